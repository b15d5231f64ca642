"""The bridge as a library: enrich a file, look at the report, and score two texts with the built-in models."""

import json
import os
import tempfile
from pathlib import Path

from bridge import CrossEncoder, Encoder, connect, ingest, load_settings

index = os.environ.get("NEW_INDEX", "catalogue")
documents = [
    {"sku": "boot", "title": "Rubber boots", "body": "Keep your feet dry in wet weather."},
    {"sku": "lamp", "title": "Desk lamp", "body": "Bright light for late hours at work."},
]

with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "catalogue.jsonl"
    file.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    report = ingest([str(file)], index, text_fields=["title", "body"], id_field="sku", state_folder=Path(folder))
print("written:", report.ledger.written)

# The settings are those of the environment and of BRIDGE_CONFIG, as for the command.
with connect(load_settings().cluster) as cluster:
    cluster.indices.refresh(index=index)
    stored = cluster.get(index=index, id="boot")["_source"]
print("predicted:", stored["_neural"]["predicted_queries"])

texts = [document["body"] for document in documents]
encoder, cross_encoder = Encoder.load("embed-base"), CrossEncoder.load("rerank-base")
similarity = encoder.encode(texts, role="passage") @ encoder.encode(["waterproof footwear"])[0]
logits = cross_encoder.score("waterproof footwear", texts)
for document, near, logit in zip(documents, similarity, logits, strict=True):
    print(f"{document['sku']}: similarity {near:.2f}, logit {logit:.2f}")
