"""What ML Commons is told about the sidecar."""

import json
import re
import string
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bridge.commands.connector import command, looks_private
from tests.rerank_server.running import running, toy_cascade

CREATE = "POST /_plugins/_ml/connectors/_create"


def _printed(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    printed: dict[str, Any] = json.loads(result.output)
    return printed


@pytest.mark.case("R21")
@pytest.mark.parametrize("arguments", [("rerank",), ("rerank", "--cascade-depth", "2")])
async def test_the_sidecar_answers_what_the_connector_sends(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """As ML Commons does it: parameters put into the template, the answer read by the post-processor's rules."""
    async with running(toy_cascade(tmp_path)) as client:
        url = f"http://127.0.0.1:{client.port}"
        [action] = _printed(*arguments, "--url", url)[CREATE]["actions"]
        template = string.Template(action["request_body"].replace("${parameters.", "${"))
        documents = ["cat", "fish", "dog cat"]
        body = template.substitute(query="cat fish", documents=json.dumps(documents), top_n=len(documents))
        answer = await client.post(action["url"].removeprefix(url), body.encode())
    scores: list[float | None] = [None] * len(answer.body["results"])
    for result in answer.body["results"]:
        assert isinstance(result["relevance_score"], float)
        scores[result["index"]] = result["relevance_score"]
    assert len(scores) == len(documents)
    assert None not in scores


async def test_the_embedding_connector_gets_embeddings(tmp_path: Path) -> None:
    async with running(toy_cascade(tmp_path)) as client:
        url = f"http://127.0.0.1:{client.port}"
        [action] = _printed("embedding", "--url", url)[CREATE]["actions"]
        body = action["request_body"].replace("${parameters.input}", '["cat", "dog"]')
        answer = await client.post(action["url"].removeprefix(url), body.encode())
    assert [entry["index"] for entry in answer.body["data"]] == [0, 1]


def test_the_settings_allow_the_connectors_address_and_no_other() -> None:
    printed = _printed("--url", "http://10.1.2.3:9290/")
    allowed = printed["PUT /_cluster/settings"]["persistent"]
    [pattern] = allowed["plugins.ml_commons.trusted_connector_endpoints_regex"]
    assert re.match(pattern, printed[CREATE]["actions"][0]["url"])
    assert not re.match(pattern, "http://10.1.2.34:9290/v2/rerank")
    assert not re.match(pattern, "http://10x1.2.3:9290/v2/rerank")
    assert allowed["plugins.ml_commons.connector.private_ip_enabled"] is True


def test_a_public_address_does_not_open_private_ones() -> None:
    assert "private" not in json.dumps(_printed("--url", "https://rerank.example.org"))


def test_the_key_is_not_printed_but_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SIDECAR__API_KEY", "very-secret")
    created = _printed("--url", "https://rerank.example.org")[CREATE]
    assert created["actions"][0]["headers"]["Authorization"] == "Bearer ${credential.key}"
    assert "very-secret" not in json.dumps(created)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:9290", True),
        ("http://[::1]:9290", True),
        ("http://sidecar:9290", True),
        ("http://sidecar.internal", True),
        ("http://8.8.8.8", False),
        ("https://rerank.example.org", False),
    ],
)
def test_an_address_is_private_where_it_looks_so(url: str, expected: bool) -> None:
    assert looks_private(url) is expected


@pytest.mark.parametrize("arguments", [("--url", "sidecar:9290"), ("embedding", "--cascade-depth", "3")])
def test_wrong_options_are_refused(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(command, arguments).exit_code == 2


@pytest.mark.case("S14")
@pytest.mark.parametrize("url", ["http://sidecar:9290?key=very-secret", "http://ann:very-secret@sidecar:9290"])
def test_an_address_with_a_secret_is_refused_without_it(url: str) -> None:
    refused = CliRunner().invoke(command, ["--url", url])
    assert refused.exit_code == 2
    assert "very-secret" not in refused.output
