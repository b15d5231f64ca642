"""`neural-bridge search` before a scripted cluster."""

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from opensearchpy import OpenSearch

from bridge.cli import cli
from bridge.node.node import EmbeddedNode
from bridge.profile import companion_of
from bridge.settings import ClusterSettings
from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import ScriptedIndex
from tests.fake_cluster import Reply
from tests.proxy_stack import PREFIX, proxy_stack
from tests.servers import free_port


async def search(url: str, *options: str) -> Result:
    arguments = ["search", "docs", "red shoe", "--url", url, *options]
    return await asyncio.to_thread(CliRunner().invoke, cli, arguments)


def _index(titles: Mapping[str, str]) -> ScriptedIndex:
    """An index of these documents, which every leg finds."""
    ids = list(titles)
    return ScriptedIndex(own=ids, expanded=ids, near=ids, compared=ids, titles=titles)


async def test_ranks_and_scores_of_each_stage_are_shown(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe"}))

    outcome = await search(stack.proxy.url)

    assert outcome.exit_code == 0
    assert "hybrid+rerank" in outcome.output
    assert "#4" in outcome.output


async def test_a_narrow_terminal_shows_ids_and_texts_whole(
    make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe"}))

    monkeypatch.setenv("COLUMNS", "80")
    narrow = (await search(stack.proxy.url)).output
    monkeypatch.setenv("COLUMNS", "140")
    wide = (await search(stack.proxy.url)).output

    assert all(len(line) <= 80 for line in narrow.splitlines())
    assert [line.split()[1] for line in narrow.splitlines() if "red shoe" in line] == ["d"]
    assert "#4 (" in wide
    assert "#4 (" not in narrow


async def test_json_holds_the_whole_answer(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    outcome = await search(stack.proxy.url, "--json", "--stage", "hybrid", "--size", "2", "--fields", "title")

    printed = json.loads(outcome.output)
    assert printed["x_bridge"].startswith("hybrid;")
    assert [hit["_id"] for hit in printed["answer"]["hits"]["hits"]] == ["a", "d"]


async def test_an_index_that_was_not_enriched_is_named(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(profile=None))

    outcome = await search(stack.proxy.url)

    assert outcome.exit_code != 0
    assert "--fields" in str(outcome.exception)


async def test_refusals_and_other_servers_are_told_apart(make_stack: MakeStack) -> None:
    refused = await make_stack(lambda _: Reply(401, b'{"error":"no"}'))
    web_page = await make_stack(lambda _: Reply(200, b"<html>"))

    assert "--user" in str((await search(refused.proxy.url)).exception)
    assert "is it the proxy?" in str((await search(web_page.proxy.url)).exception)


@pytest.mark.case("M8")
@pytest.mark.parametrize(
    ("status", "options", "message"),
    [
        (404, (), "there is no index docs behind the proxy at http://.*: `neural-bridge doctor` lists"),
        (403, ("--user", "ann"), "user ann may not read the mapping of docs.*name the fields with --fields"),
        (403, ("--user", "ann", "--fields", "title"), "user ann may not search docs: grant indices:data/read/search"),
        (403, (), "give --user"),
        (401, ("--user", "ann"), "user ann: check BRIDGE_SEARCH_PASSWORD"),
        (503, ("--fields", "title"), r"refused the search of docs \(status 503\): all shards failed"),
    ],
    ids=["missing index", "no mapping rights", "no search rights", "no user", "wrong password", "cluster in trouble"],
)
async def test_a_refusal_says_what_to_do(
    make_stack: MakeStack, status: int, options: tuple[str, ...], message: str
) -> None:
    answer = b'{"error":{"type":"some_exception","reason":"all shards failed"}}'
    stack = await make_stack(lambda _: Reply(status, answer))
    assert re.search(message, str((await search(stack.proxy.url, *options)).exception))


@pytest.mark.case("M8")
async def test_a_proxy_that_is_away_is_named_with_its_remedy() -> None:
    told = str((await search(f"http://127.0.0.1:{free_port()}")).exception)
    assert re.match("the proxy at http://127.* does not answer: start it with `neural-bridge serve`", told)
    assert "expected http://HOST:PORT" in str((await search("localhost:9280")).exception)


@pytest.mark.case("M8")
async def test_a_long_id_leaves_the_title_a_line_of_its_own(
    make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "d" * 60
    stack = await make_stack(_index({key: "red shoe for wet grass"}))
    monkeypatch.setenv("COLUMNS", "80")
    lines = (await search(stack.proxy.url)).output.splitlines()
    place = next(number for number, line in enumerate(lines) if key in line)
    assert lines[place + 1].strip() == "red shoe for wet grass"
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.case("S13")
@pytest.mark.parametrize("columns", ["80", "140"])
async def test_documents_cannot_steer_the_terminal(
    make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    stack = await make_stack(_index({"\x1b]0;id\x07": "red \x1b[31mshoe [bold]x[/nothing]"}))
    monkeypatch.setenv("COLUMNS", columns)
    printed = await search(stack.proxy.url)
    assert printed.exit_code == 0
    assert "\x1b" not in printed.output
    assert r"\x1b]0;id\x07" in printed.output
    assert r"red \x1b[31mshoe [bold]x" in printed.output
    as_json = await search(stack.proxy.url, "--json")
    assert "\x1b" not in as_json.output


@pytest.mark.case("S20")
@pytest.mark.parametrize("columns", ["80", "140"])
async def test_the_name_of_a_field_cannot_steer_the_terminal(
    make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    stack = await make_stack(_index({"d1": "red shoe"}))
    monkeypatch.setenv("COLUMNS", columns)
    printed = await search(stack.proxy.url, "--fields", "title\x1b]0;x\x07\u202e[/b]")
    assert printed.exit_code == 0
    assert not set("\x1b\x07\u202e") & set(printed.output)


def test_the_fields_of_an_index_that_is_enriched_beside_are_those_of_its_companion(
    node: EmbeddedNode, opensearch: OpenSearch, fresh_index: str, tmp_path: Path
) -> None:
    documents = {f"d{n}": ({"title": f"red shoe {n}", "body": "a shoe"}, [f"blue {n}"]) for n in range(5)}
    with proxy_stack(ClusterSettings(url=node.url), tmp_path, budget_ms=60_000) as stack:
        arguments = ["search", fresh_index, "blue", "--url", stack.url, "--stage", "expansion", "--json"]
        opensearch.indices.create(index=fresh_index)
        assert "is not enriched" in str(CliRunner().invoke(cli, arguments).exception)
        opensearch.indices.delete(index=fresh_index)
        stack.fill_beside(opensearch, fresh_index, documents)
        printed = json.loads(CliRunner().invoke(cli, arguments).output)
    assert printed["x_bridge"].startswith("expansion;")
    assert sorted(hit["_id"] for hit in printed["answer"]["hits"]["hits"]) == sorted(documents)
    opensearch.indices.delete(index=companion_of(fresh_index, PREFIX))
