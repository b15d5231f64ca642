"""The security matrix in its short form, and leaks that it must see."""

import json
import random
from typing import Any

import pytest
import requests

from tests.campaign.findings import Findings
from tests.campaign.security import PATHS, RIGHTS, WAYS, Asked, Caller, Matrix, matrix
from tests.proxy_stack import ProxyStack
from tests.secured_node import SecuredNode

BODY = {"query": {"match": {"title": "wing"}}}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nobody_is_shown_more_than_the_node_shows_him(secured_node: SecuredNode, tmp_path: Any) -> None:
    findings = Findings(tmp_path, "security", 1)

    with matrix(secured_node, random.Random(1), findings) as whole:
        whole.round()

    assert findings.counts == {}, (tmp_path / "security.jsonl").read_text("utf-8")[:10_000]
    assert whole.asked.keys() == {(name, path, way) for name in RIGHTS for path in PATHS for way in WAYS}
    assert all(whole.upgraded[way] >= 30 for way in WAYS), whole.upgraded


def answer(body: Any, status: int = 200) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made._content = json.dumps(body).encode()
    return made


def hits(*found: dict[str, Any], total: int = 1) -> dict[str, Any]:
    return {"hits": {"total": {"value": total}, "hits": list(found)}}


SHOWN = {"_id": "doc-1", "_source": {"title": "wing mk1t"}}
OWN = answer(hits(SHOWN))


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (answer(hits(SHOWN)), None),
        (answer(hits({**SHOWN, "highlight": {"title": ["wing <em>mk1t</em>"]}})), None),
        (answer(hits({"_id": "doc-2"})), "documents that he may not see"),
        (answer({"results": [{"doc_id": "doc-2"}]}), "documents that he may not see"),
        (answer(hits({**SHOWN, "_source": {"body": "mk1b"}})), "words of what he may not see"),
        (answer(hits({**SHOWN, "highlight": {"body": ["<em>mk2b</em>"]}})), "words of what he may not see"),
        (answer(hits({**SHOWN, "_bridge": {"predicted_queries": ["mk1q"]}})), "words of what he may not see"),
        (answer({"error": {"reason": "mk2t"}}, 400), "words of what he may not see"),
        (answer(hits(SHOWN, total=2)), "another count"),
        (answer({"error": "x"}, 403), "another status"),
        (answer({"error": "x"}, 500), "a fault"),
    ],
)
def test_what_is_shown_beyond_is_a_finding(tmp_path: Any, given: requests.Response, kind: str | None) -> None:
    findings = Findings(tmp_path, "security", 1)
    nothing = Matrix(SecuredNode("", ""), ProxyStack("", "", None), random.Random(1), findings)  # type: ignore[arg-type]
    caller = Caller("dls", "in place", "kept", ("", ""), 200, ids={"doc-1"}, words={"mk1t"})

    nothing._judge(caller, "upgraded", BODY, Asked(given, OWN, same="hits" in given.json()))

    kinds = {name.rpartition(": ")[2] for name in findings.counts}
    assert kind in kinds if kind else not kinds


def test_an_answer_in_spite_of_a_refusal_is_a_finding(tmp_path: Any) -> None:
    findings = Findings(tmp_path, "security", 1)
    nothing = Matrix(SecuredNode("", ""), ProxyStack("", "", None), random.Random(1), findings)  # type: ignore[arg-type]

    nothing._judge(Caller("none", "beside", "apart", ("", ""), 403), "retrieve", BODY, Asked(answer({"results": []})))

    assert [*findings.counts] == ["beside, none, retrieve: an answer in spite of a refusal"]
