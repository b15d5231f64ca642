"""What the application says of its index, beside what a node says."""

import random

from opensearchpy import OpenSearch

from tests.campaign.application import Application


def test_it_knows_contents_versions_and_sequence_numbers(opensearch: OpenSearch, fresh_index: str) -> None:
    for external in (False, True):
        index = f"{fresh_index}-{external}".lower()
        application = Application(opensearch, index, random.Random(1), external=external)
        application.create(10, knn=False)
        for _ in range(40):
            application.step()

        opensearch.indices.refresh(index=index)
        hits = opensearch.search(index=index, body={"size": 1000, "version": True})["hits"]["hits"]
        opensearch.indices.delete(index=index)
        written = {doc_id: (each.body, each.version) for doc_id, each in application.documents.items()}
        assert {hit["_id"]: (hit["_source"], hit["_version"]) for hit in hits} == written
        assert (application.last_seq_no, application.strangers) == (application.operations - 1, 0)


def test_it_notices_another_writer(opensearch: OpenSearch, fresh_index: str) -> None:
    application = Application(opensearch, fresh_index, random.Random(1))
    application.create(3, knn=False)

    with application.writing():
        opensearch.index(index=fresh_index, id="another", body={})
        # One may have been under way before.
        at_least = application.operations + 2
        while application.operations < at_least:
            pass

    assert application.strangers == 1
