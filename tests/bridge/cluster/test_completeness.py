"""What a companion lacks, has too much, or has of other texts."""

from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.completeness import Completeness, completeness
from bridge.profile import IndexProfile, ModelReference
from bridge.text import text_digest

PROFILE = IndexProfile(["title"], ModelReference("toy", "0" * 12), 2)


def test_documents_and_entries_are_compared_by_id_and_texts(opensearch: OpenSearch, fresh_index: str) -> None:
    for doc_id in ("same", "changed", "missing", "deleted"):
        opensearch.index(index=fresh_index, id=doc_id, body={"title": doc_id})
    made = companion.create(opensearch, indices.look(opensearch, fresh_index), PROFILE, "neural-bridge.")
    try:
        for doc_id in ("same", "changed", "deleted"):
            ours = {"stamp": f"recipe.{text_digest({'title': doc_id})}"}
            opensearch.index(index=made.name, id=doc_id, body={"title": doc_id, "_neural": ours})
        indices_of = f"{fresh_index},{made.name}"
        opensearch.indices.refresh(index=indices_of)
        before = completeness(opensearch, made.name, made.required_profile)
        assert before == Completeness(3, sampled_documents=4, missing=1, stale=0, sampled_entries=3, orphaned=0)

        opensearch.index(index=fresh_index, id="changed", body={"title": "anew"})
        opensearch.index(index=fresh_index, id="same", body={"title": "same", "price": 2})
        opensearch.delete(index=fresh_index, id="deleted")
        opensearch.delete(index=fresh_index, id="missing")
        opensearch.indices.refresh(index=indices_of)
        after = completeness(opensearch, made.name, made.required_profile)
        assert after == Completeness(3, sampled_documents=2, missing=0, stale=1, sampled_entries=3, orphaned=1)
        assert not after.is_whole
    finally:
        opensearch.indices.delete(index=made.name)
