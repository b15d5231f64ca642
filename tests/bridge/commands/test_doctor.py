"""What the doctor says about a sidecar, by the encoders that it runs."""

from typing import Any

import msgspec
import pytest
from opensearchpy import OpenSearch

from bridge.cluster.diagnosis import Beside, EnrichedIndex
from bridge.commands.doctor import encoder_findings, language_findings
from bridge.model_servers.client import SidecarInfo
from tests.bridge.commands.products import Call, printed
from tests.command_line import run
from tests.fake_bulk import FakeCluster
from tests.servers import free_port

SERVED = EnrichedIndex("shop", 12, 12, "a@1", "knn_vector", ["lexical", "hybrid"])
CHANGING = EnrichedIndex("docs", 12, 12, "a@1", "knn_vector", ["hybrid"], 1, Beside(2, 7, "b@2"))
WITHOUT = EnrichedIndex("logs", 12, 12, "c@3", "none", ["lexical", "rerank"])


@pytest.mark.parametrize(
    ("encoders", "indices", "levels", "message"),
    [
        (["a@1"], [SERVED], ["ok"], "embeds with a@1, reranks with r@1"),
        (["b@2"], [SERVED], ["problem"], "the documents of shop were embedded with another encoder"),
        (["a@1", "b@2"], [SERVED, CHANGING], ["ok"], "embeds with a@1, b@2"),
        (["a@1"], [SERVED, CHANGING], ["ok", "note"], "does not run b@2, the encoder of generation 2 of docs"),
        (["b@2"], [CHANGING], ["problem"], "the documents of docs were embedded with another encoder"),
        (["a@1"], [WITHOUT], ["ok"], "embeds with a@1"),
    ],
    ids=["the index's", "another", "both", "not the next one", "the next one only", "no vectors, no matter"],
)
def test_an_index_needs_its_encoder_now_and_after_a_change(
    encoders: list[str], indices: list[EnrichedIndex], levels: list[str], message: str
) -> None:
    findings = encoder_findings("http://sidecar", SidecarInfo(encoders, ["r@1"]), indices)
    assert [finding.level for finding in findings] == levels
    assert any(message in finding.message for finding in findings)


@pytest.mark.parametrize(("running", "levels"), [(["s@4"], ["ok"]), ([], ["ok", "note"])])
def test_an_index_with_terms_needs_its_sparse_encoder(running: list[str], levels: list[str]) -> None:
    with_terms = msgspec.structs.replace(WITHOUT, sparse_encoder="s@4")
    served = SidecarInfo(["a@1"], ["r@1"], sparse_model_ids=running)
    findings = encoder_findings("http://sidecar", served, [with_terms, SERVED])
    assert [finding.level for finding in findings] == levels


@pytest.mark.case("S14")
def test_keys_in_addresses_are_not_printed(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_CLUSTER__URL", f"{cluster.url}?key=very-secret")
    monkeypatch.setenv("BRIDGE_PROXY__SIDECAR_URL", f"http://127.0.0.1:{free_port()}/x?key=very-secret")
    for options in ([], ["--json"]):
        printed = run("doctor", *options).output
        assert "sidecar" in printed
        assert "very-secret" not in printed


def test_an_index_that_is_enriched_beside_is_compared_with_its_companion(
    call: Call, opensearch: OpenSearch, products_beside: str
) -> None:
    def found() -> tuple[dict[str, Any], dict[str, Any]]:
        diagnosis = printed(call("doctor", "--json"))
        [index] = [each for each in diagnosis["indices"] if each["name"] == products_beside]
        [finding] = [each for each in diagnosis["findings"] if each["subject"] == f"index {products_beside}"]
        return index, finding

    index, finding = found()
    assert (index["companion"], index["documents"], index["enriched"]) == (f"neural-bridge.{products_beside}", 30, 30)
    assert (finding["level"], "enriched beside, in neural-bridge." in finding["told"]) == ("ok", True)

    opensearch.index(index=products_beside, id="new", body={"title": "red"})
    opensearch.update(index=products_beside, id="d1", body={"doc": {"title": "another"}})
    opensearch.delete(index=products_beside, id="d2", params={"refresh": "true"})
    index, finding = found()
    compared = index["completeness"]
    assert (compared["missing"], compared["stale"], compared["orphaned"]) == (1, 1, 1)
    assert finding["remedy"] == f"neural-bridge backfill {products_beside}"
    assert call("backfill", products_beside).exit_code == 0
    assert found()[1]["level"] == "ok"


def test_texts_in_a_language_that_the_encoder_does_not_read_are_told(opensearch: OpenSearch, fresh_index: str) -> None:
    body = {"body": "Die Schuhe sind aus Gummi und halten das Wasser ab, wenn es auf der Wiese nass ist."}
    opensearch.index(index=fresh_index, body=body, params={"refresh": "true"})
    index = EnrichedIndex(fresh_index, 1, 1, "embed-base@0", "knn_vector", ["hybrid"], text_fields=["body"])

    [finding] = language_findings(opensearch, index)

    assert (finding.level, finding.message.startswith("texts look German")) == ("note", True)
    assert (finding.remedy or "").startswith("name an encoder that reads them")
    assert not language_findings(opensearch, msgspec.structs.replace(index, encoder="elsewhere@0"))
    assert not language_findings(opensearch, msgspec.structs.replace(index, vector_type="none"))
    assert not language_findings(opensearch, msgspec.structs.replace(index, name="gone"))
