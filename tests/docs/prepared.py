"""The state in which the documents' pages and the examples begin: an application's index, files, a running bridge."""

import os
import random
import shutil
from pathlib import Path
from typing import Any

import msgspec
from opensearchpy import OpenSearch

from benchmarks.pictures import SHAPES_CLIP
from benchmarks.pictures.made import Scene, draw, png
from bridge.models.artifact import resolve
from tests.servers import free_port

INDEX = "products"
DOCUMENTS = {
    "boot": ("Rubber boots", "Keep your feet dry in wet weather. Made of natural rubber."),
    "sandal": ("Leather sandals", "Light summer shoes for the beach."),
    "coat": ("Waxed coat", "A long coat that no storm gets through."),
    "lamp": ("Desk lamp", "Bright light for late hours at work."),
    "kettle": ("Steel kettle", "Boils a litre of water in three minutes."),
    "tent": ("Tent for two", "Weighs two kilograms and stands in five minutes."),
}
QUERIES = {
    "boot": ("wet feet", "rubber shoes", "waterproof footwear", "dry feet"),
    "sandal": ("beach shoes", "summer footwear", "leather shoes", "light shoes"),
    "coat": ("storm", "long coat", "wax jacket", "windproof clothes"),
    "lamp": ("bright light", "reading at night", "work late", "desk light"),
    "kettle": ("boil water", "make tea", "hot water", "steel pot"),
    "tent": ("camping shelter", "two persons tent", "light tent", "sleep outdoors"),
}
PICTURES = {
    "triangles.png": Scene(3, "green", "triangle", "grey"),
    "circle.png": Scene(1, "red", "circle", "white"),
    "crosses.png": Scene(2, "blue", "cross", "black"),
}
ENRICHED = """neural-bridge backfill products --text-field title --text-field body --quiet
neural-bridge serve &
until curl --silent --fail --fail-early http://127.0.0.1:9290/ready http://127.0.0.1:9281/_bridge/ready > ready.txt
do sleep 0.2; done
"""


def write_as_an_application(client: OpenSearch, settings: dict[str, Any]) -> None:
    text = {"type": "text"}
    client.indices.create(
        index=INDEX, body={"settings": settings, "mappings": {"properties": {"title": text, "body": text}}}
    )
    lines: list[dict[str, Any]] = []
    for doc_id, (title, body) in DOCUMENTS.items():
        lines += [{"index": {"_id": doc_id}}, {"title": title, "body": body}]
    client.bulk(index=INDEX, body=lines, params={"refresh": "true"})


def write_files(folder: Path) -> None:
    """The files that the pages speak of: judgements, a catalogue, pictures, and other encoders."""
    judged = [f"{query},{doc_id},1\n" for doc_id, queries in QUERIES.items() for query in queries]
    (folder / "judgements.csv").write_text("query,docid,rating\n" + "".join(judged), encoding="utf-8")
    rows = [{"sku": key, "title": title, "body": body} for key, (title, body) in DOCUMENTS.items()]
    (folder / "catalogue.jsonl").write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    shutil.copytree(SHAPES_CLIP, folder / "models" / "shapes-clip")
    (folder / "pictures").mkdir()
    for name, scene in PICTURES.items():
        (folder / "pictures" / name).write_bytes(png(draw(scene, random.Random(1))))
    other = folder / "models" / "new-encoder"
    shutil.copytree(resolve("embed-base").path, other)
    manifest = msgspec.json.decode((other / "manifest.json").read_bytes())
    (other / "manifest.json").write_bytes(msgspec.json.encode({**manifest, "name": "new-encoder"}))


class Addresses:
    """This test's cluster and free ports, in the place of those that the pages name."""

    def __init__(self, cluster: str | None = None) -> None:
        self.proxy, self.admin, self.sidecar, self.node = (free_port() for _ in range(4))
        self.cluster = cluster or f"http://127.0.0.1:{self.node}"

    def environment(self) -> dict[str, str]:
        return {
            "BRIDGE_CLUSTER__URL": self.cluster,
            "BRIDGE_PROXY__PORT": str(self.proxy),
            "BRIDGE_PROXY__ADMIN_PORT": str(self.admin),
            "BRIDGE_PROXY__BUDGET_MS": "60000",
            "BRIDGE_SIDECAR__PORT": str(self.sidecar),
            "BRIDGE_PROXY__SIDECAR_URL": f"http://127.0.0.1:{self.sidecar}",
        }

    def put_into(self, text: str) -> str:
        text = text.replace("http://127.0.0.1:9200", self.cluster).replace("--port 9200", f"--port {self.node}")
        for port, here in ((9280, self.proxy), (9281, self.admin), (9290, self.sidecar)):
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{here}")
        return text.replace("--name tutorial", f"--name tutorial-{os.getpid()}")
