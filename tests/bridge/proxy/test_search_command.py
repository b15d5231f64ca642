"""`neural-bridge search` before a scripted cluster."""

import asyncio
import json

import pytest
from click.testing import CliRunner, Result

from bridge.cli import cli
from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import ScriptedIndex
from tests.fake_cluster import Reply


async def search(url: str, *options: str) -> Result:
    arguments = ["search", "docs", "red shoe", "--url", url, *options]
    return await asyncio.to_thread(CliRunner().invoke, cli, arguments)


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
    missing = await make_stack(lambda _: Reply(404, b'{"error":{"type":"index_not_found_exception"}}'))

    assert "--user" in str((await search(refused.proxy.url)).exception)
    assert "is it the proxy?" in str((await search(web_page.proxy.url)).exception)
    assert "index_not_found_exception" in str((await search(missing.proxy.url)).exception)
