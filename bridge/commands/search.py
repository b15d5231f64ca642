"""`neural-bridge search INDEX "words"`: an ordinary search through the proxy, and what each stage made of it."""

import json
import os
from typing import TYPE_CHECKING, Any, get_args

import click

from bridge.commands import settings_of
from bridge.errors import AccessDenied, AnswerNotUnderstood, ClusterError, ClusterUnreachable, IndexUnsuitable
from bridge.profile import Stage, profile_of

if TYPE_CHECKING:
    from rich.table import Table

_LEGS = ("lexical", "expansion", "vector")
_SHOWN_CHARS = 60
_WIDE = 120
"""Columns of a terminal from which on there is room for the legs' scores."""


@click.command(name="search")
@click.argument("index")
@click.argument("words")
@click.option("--url", help="Address of the proxy; by default the one in the settings.")
@click.option("--fields", help="Fields to search, comma-separated, boosts allowed; by default the enriched ones.")
@click.option("--size", default=10, show_default=True, type=click.IntRange(1, 100), help="How many hits to show.")
@click.option(
    "--stage",
    type=click.Choice(["off", *get_args(Stage)]),
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
    fields: str | None,
    size: int,
    stage: str | None,
    user: str | None,
    as_json: bool,
) -> None:
    """Search INDEX for WORDS through the proxy, and show what every stage made of it.

    The legs' scores are shown where the terminal has 120 columns; `--json` has everything."""
    if url is None:
        proxy = settings_of(ctx).proxy
        url = f"http://{proxy.host}:{proxy.port}"
    asked = _Asked(url.rstrip("/"), user)
    named = fields.split(",") if fields else asked.enriched_fields(index)
    query = {"multi_match": {"query": words, "fields": named}}
    control = ", ".join(["explain", *([stage] if stage else [])])
    answer, mark = asked.send("POST", f"/{index}/_search", {"size": size, "query": query}, {"x-bridge": control})
    if as_json:
        click.echo(json.dumps({"x_bridge": mark, "answer": answer}, ensure_ascii=False))
        return
    from rich.console import Console  # rich is for people; `--json` has no use for it

    console = Console()
    console.print(f"[bold]{mark or 'the proxy added nothing'}[/bold]")
    texts = [name.partition("^")[0] for name in named]
    console.print(_table(answer["hits"]["hits"], texts, leg_scores=console.width >= _WIDE))


class _Asked:
    """The proxy at `url`, asked as `user`."""

    def __init__(self, url: str, user: str | None) -> None:
        import requests

        self._url = url
        self._session = requests.Session()
        # Credentials come from the option alone, never from `.netrc`.
        self._session.trust_env = False
        if user:
            self._session.auth = (user, os.environ.get("BRIDGE_SEARCH_PASSWORD", ""))

    def enriched_fields(self, index: str) -> list[str]:
        """The text fields that the index's profile names.

        Raises:
            IndexUnsuitable: the index has no profile.
        """
        mappings, _ = self.send("GET", f"/{index}/_mapping", None, {})
        profiles = [profile_of(body["mappings"].get("_meta"), index=name) for name, body in mappings.items()]
        for profile in profiles:
            if profile is not None:
                return profile.text_fields
        raise IndexUnsuitable(f"index {index} was not enriched by the bridge: name the fields to search with --fields")

    def send(
        self, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]
    ) -> tuple[dict[str, Any], str | None]:
        """The JSON answer, and the `X-Bridge` header that came with it."""
        import requests

        try:
            answered = self._session.request(method, self._url + path, json=body, headers=headers, timeout=60)
        except requests.RequestException as error:
            raise ClusterUnreachable(
                f"no answer from the proxy at {self._url} ({error}): start it with `neural-bridge serve`, or give --url"
            ) from error
        try:
            answer = answered.json()
        except requests.JSONDecodeError as error:
            raise AnswerNotUnderstood(
                f"{self._url} answered status {answered.status_code} without JSON: is it the proxy?"
            ) from error
        if answered.status_code in (401, 403):
            raise AccessDenied(f"the cluster refused {path} (status {answered.status_code}): give --user")
        if answered.status_code != 200:
            reason = answer.get("error", answer) if isinstance(answer, dict) else answer
            raise ClusterError(f"{path} failed with status {answered.status_code}: {reason}")
        return answer, answered.headers.get("X-Bridge")


def _table(hits: list[dict[str, Any]], texts: list[str], *, leg_scores: bool) -> "Table":
    """A row for each hit; what `texts` hold of it takes the room that is left."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("rank", "document", *_LEGS, "fused", "reranked", "score"):
        table.add_column(name, no_wrap=True)
    table.add_column(texts[0] if texts else "", ratio=1)
    for rank, hit in enumerate(hits, start=1):
        told = hit.get("_bridge", {})
        legs = told.get("legs", {})
        table.add_row(
            str(told.get("rank", rank)),
            hit["_id"],
            *(_found_by(legs.get(leg), with_score=leg_scores) for leg in _LEGS),
            _number(told.get("fused_score")),
            _number(told.get("rerank_score")),
            _number(hit.get("_score")),
            _beginning(hit.get("_source", {}), texts),
        )
    return table


def _found_by(leg: dict[str, Any] | None, *, with_score: bool) -> str:
    if leg is None:
        return "·"
    return f"#{leg['rank']} ({leg['score']:.2f})" if with_score else f"#{leg['rank']}"


def _number(value: float | None) -> str:
    return "·" if value is None else f"{value:.3f}"


def _beginning(source: dict[str, Any], texts: list[str]) -> str:
    """The first text of the document that was searched; of one without such a field, any text."""
    values = (source.get(name) for name in (*texts, *source))
    text = next((value for value in values if isinstance(value, str)), "")
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
