"""`neural-bridge search INDEX "words"`: an ordinary search through the proxy, and what each stage made of it."""

import json
import os
from typing import TYPE_CHECKING, Any

import click

from bridge.commands import settings_of
from bridge.errors import AccessDenied, AnswerNotUnderstood, ClusterError, ClusterUnreachable

if TYPE_CHECKING:
    from rich.table import Table

_LEGS = ("lexical", "expansion", "vector")
_SHOWN_CHARS = 60


@click.command(name="search")
@click.argument("index")
@click.argument("words")
@click.option("--url", help="Address of the proxy; by default the one in the settings.")
@click.option("--fields", default="*", show_default=True, help="Fields to search, comma-separated, boosts allowed.")
@click.option("--size", default=10, show_default=True, type=click.IntRange(1, 100), help="How many hits to show.")
@click.option(
    "--stage",
    type=click.Choice(["off", "lexical", "expansion", "vector", "hybrid", "rerank"]),
    help="Where to stop; by default as far as the index allows.",
)
@click.option("--user", envvar="BRIDGE_SEARCH_USER", help="User name; the password comes from BRIDGE_SEARCH_PASSWORD.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    index: str,
    words: str,
    url: str | None,
    fields: str,
    size: int,
    stage: str | None,
    user: str | None,
    as_json: bool,
) -> None:
    """Search INDEX for WORDS through the proxy, and show ranks and scores of every stage."""
    if url is None:
        proxy = settings_of(ctx).proxy
        url = f"http://{proxy.host}:{proxy.port}"
    query: dict[str, Any] = {"multi_match": {"query": words, "fields": fields.split(",")}}
    control = ", ".join(["explain", *([stage] if stage else [])])
    answer, mark = _ask(url, index, {"size": size, "query": query}, control, user)
    if as_json:
        click.echo(json.dumps({"x_bridge": mark, "answer": answer}, ensure_ascii=False))
        return
    from rich.console import Console  # rich is for people; `--json` has no use for it

    console = Console()
    console.print(f"[bold]{mark or 'the proxy added nothing'}[/bold]")
    console.print(_table(answer["hits"]["hits"]))


def _ask(
    url: str, index: str, body: dict[str, Any], control: str, user: str | None
) -> tuple[dict[str, Any], str | None]:
    """The answer, and the proxy's `X-Bridge` header."""
    import requests

    password = os.environ.get("BRIDGE_SEARCH_PASSWORD", "")
    session = requests.Session()
    # Credentials come from the option alone, never from `.netrc`.
    session.trust_env = False
    try:
        answered = session.post(
            f"{url.rstrip('/')}/{index}/_search",
            json=body,
            headers={"x-bridge": control},
            auth=(user, password) if user else None,
            timeout=60,
        )
    except requests.RequestException as error:
        raise ClusterUnreachable(
            f"no answer from the proxy at {url} ({error}): start it with `neural-bridge serve`, or give --url"
        ) from error
    try:
        answer = answered.json()
    except requests.JSONDecodeError as error:
        raise AnswerNotUnderstood(f"{url} answered status {answered.status_code} without JSON: is it the proxy?") from error
    if answered.status_code in (401, 403):
        raise AccessDenied(f"the cluster refused this search (status {answered.status_code}): give --user")
    if answered.status_code != 200:
        reason = answer.get("error", {}).get("reason", answer) if isinstance(answer, dict) else answer
        raise ClusterError(f"the search failed with status {answered.status_code}: {reason}")
    return answer, answered.headers.get("X-Bridge")


def _table(hits: list[dict[str, Any]]) -> "Table":
    from rich.table import Table

    table = Table("rank", "document", *_LEGS, "fused", "reranked", "score", "")
    for rank, hit in enumerate(hits, start=1):
        told = hit.get("_bridge", {})
        legs = told.get("legs", {})
        table.add_row(
            str(told.get("rank", rank)),
            hit["_id"],
            *(f"#{legs[leg]['rank']} ({legs[leg]['score']:.2f})" if leg in legs else "·" for leg in _LEGS),
            _number(told.get("fused_score")),
            _number(told.get("rerank_score")),
            _number(hit.get("_score")),
            _beginning(hit.get("_source", {})),
        )
    return table


def _number(value: float | None) -> str:
    return "·" if value is None else f"{value:.3f}"


def _beginning(source: dict[str, Any]) -> str:
    """The first text of the document, cut to fit."""
    text = next((value for value in source.values() if isinstance(value, str)), "")
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
