"""`neural-bridge search INDEX "words"`: an ordinary search through the proxy, and the part of each stage in it."""

import json
import os
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote

import click

from bridge.commands import INDEX, settings_of
from bridge.commands.options.signature import argument, cli_command, option
from bridge.errors import (
    AccessDenied,
    AnswerNotUnderstood,
    ClusterError,
    ClusterUnreachable,
    IndexUnsuitable,
    UsageError,
)
from bridge.profile import LEGS, IndexProfile, Stage, companions_of, profile_beside, profile_of

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN_CHARS = 60
_WIDE = 120
"""Terminals with this many columns show a table with the legs' scores; narrower ones show two lines for each hit."""

_FEWEST_TITLE_COLUMNS = 30


@cli_command("search")
def command(
    ctx: click.Context,
    *,
    index: str = INDEX,
    words: str = argument(),
    url: str | None = option("--url", help="Address of the proxy. Defaults to the one in the settings."),
    fields: str | None = option(
        "--fields", help="Fields to search, comma-separated, boosts allowed. Defaults to the enriched ones."
    ),
    size: int = option("--size", default=10, type=click.IntRange(1, 100), help="Number of hits to show."),
    stage: str | None = option(
        "--stage",
        type=click.Choice(["off", *get_args(Stage)]),
        metavar="STAGE",
        help=f"Stage to stop at: off, {', '.join(get_args(Stage))}. Defaults to the last one that the index allows.",
    ),
    user: str | None = option(
        "--user", envvar="BRIDGE_SEARCH_USER", help="User name; BRIDGE_SEARCH_PASSWORD holds the password."
    ),
    as_json: bool = option("--json", help="Print the answer as one JSON object."),
) -> None:
    """Search INDEX for WORDS through the proxy, and show what each stage did.

    Terminals with 120 columns or more show the legs' scores too; `--json` prints everything.
    """
    settings = settings_of(ctx)
    url = url or f"http://{settings.proxy.host}:{settings.proxy.port}"
    from bridge.settings import http_address, masked

    try:
        http_address(url)
    except ValueError as error:
        raise UsageError(f"--url is {masked(url)!r}: {error}") from error
    proxy = _Proxy(url.rstrip("/"), user, index)
    searched = fields.split(",") if fields else proxy.enriched_fields(settings.companion.prefix)
    control = ", ".join(["explain", *([stage] if stage else [])])
    answer, mark = proxy.search({"multi_match": {"query": words, "fields": searched}}, size, control)
    if as_json:
        click.echo(json.dumps({"x_bridge": mark, "answer": answer}))
        return
    from rich.console import Console  # rich is for people; `--json` does not need it

    console = Console()
    _text(console, mark or "the proxy added nothing", style="bold")
    texts = [name.partition("^")[0] for name in searched]
    hits = [_Hit(rank, hit, texts) for rank, hit in enumerate(answer["hits"]["hits"], start=1)]
    if not hits:
        _text(console, "no hits")
    elif console.width >= _WIDE:
        _print_table(console, hits, texts[0])
    else:
        for each in hits:
            _print_lines(console, each)


class _Proxy:
    """The proxy at `url`, searched for one index as `user`."""

    def __init__(self, url: str, user: str | None, index: str) -> None:
        from bridge.cluster.connection import connect
        from bridge.settings import ClusterSettings, masked

        self._url = masked(url)
        self._user = user
        self._index = index
        # Credentials come from the option alone, never from `.netrc` or the settings.
        password = os.environ.get("BRIDGE_SEARCH_PASSWORD", "") if user else None
        self._client = connect(ClusterSettings(url=url, username=user, password=password))

    def enriched_fields(self, prefix: str) -> list[str]:
        """The text fields in the profile of the index, or of its companion.

        Raises:
            AccessDenied: this user may not read the mapping.
            IndexUnsuitable: neither has a profile that this user may read, or the index does not exist.
        """
        mappings, _ = self._send("GET", "_mapping")
        profiles = [profile_of(body["mappings"].get("_meta"), index=name) for name, body in mappings.items()]
        if not any(profiles) and len(mappings) == 1:
            [name] = mappings
            profiles = [self._beside(name, prefix)]
        for profile in profiles:
            if profile is not None:
                return profile.text_fields
        raise IndexUnsuitable(
            f"index {self._index} is not enriched, as far as this user may know: name the fields to search with "
            f"--fields, or enrich it with `neural-bridge backfill {self._index}`"
        )

    def _beside(self, index: str, prefix: str) -> IndexProfile | None:
        """The profile of an index's companion; None if there is none that this user may know of."""
        from bridge.cluster.connection import exchange

        names = quote(",".join(companions_of(index, prefix)), safe=",")
        answer = exchange(self._client, "GET", f"/{names}/_mapping", params={"ignore_unavailable": "true"})
        if answer.status != 200:
            return None
        metas = {name: body["mappings"].get("_meta") for name, body in json.loads(answer.body).items()}
        return profile_beside(metas, index, prefix)

    def search(self, query: dict[str, Any], size: int, control: str) -> tuple[dict[str, Any], str | None]:
        """The answer, and its `X-Bridge` header."""
        return self._send("POST", "_search", {"size": size, "query": query}, {"x-bridge": control})

    def _send(
        self, method: str, endpoint: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> tuple[dict[str, Any], str | None]:
        from bridge.cluster.connection import exchange

        path = f"/{quote(self._index, safe=',*')}/{endpoint}"
        content = None if body is None else json.dumps(body).encode()
        try:
            answer = exchange(self._client, method, path, body=content, headers=headers)
        except ClusterUnreachable as error:
            raise ClusterUnreachable(
                f"the proxy at {self._url} does not answer: start it with `neural-bridge serve`, or name another with "
                f"--url ({error})"
            ) from error
        try:
            parsed = json.loads(answer.body)
        except ValueError as error:
            raise AnswerNotUnderstood(
                f"{self._url} answered status {answer.status} without JSON: is it the proxy? Name it with --url"
            ) from error
        if answer.status != 200:
            raise self._refusal(endpoint, answer.status, parsed)
        return parsed, answer.headers.get("x-bridge")

    def _refusal(self, endpoint: str, status: int, answer: Any) -> ClusterError | IndexUnsuitable:
        if status == 401 or (status == 403 and self._user is None):
            who = (
                f"user {self._user}: check BRIDGE_SEARCH_PASSWORD"
                if self._user
                else "searches without a user: give --user"
            )
            return AccessDenied(f"the cluster refuses {who} (status {status})")
        if status == 403 and endpoint == "_mapping":
            return AccessDenied(
                f"user {self._user} may not read the mapping of {self._index}, which lists its enriched fields: grant "
                f"indices:admin/mappings/get (without it the proxy adds nothing to this user's searches), or name the "
                f"fields with --fields"
            )
        if status == 403:
            return AccessDenied(f"user {self._user} may not search {self._index}: grant indices:data/read/search")
        if status == 404:
            return IndexUnsuitable(
                f"there is no index {self._index} behind the proxy at {self._url}: `neural-bridge doctor` lists the "
                f"enriched ones"
            )
        error = answer.get("error", answer) if isinstance(answer, dict) else answer
        reason = error.get("reason", error) if isinstance(error, dict) else error
        return ClusterError(f"the cluster refused the search of {self._index} (status {status}): {reason}")


class _Hit:
    """A hit as it is shown: the proxy's explanation, and the beginning of its text."""

    def __init__(self, rank: int, hit: dict[str, Any], texts: list[str]) -> None:
        from bridge.console import safe_text

        explained = hit.get("_bridge", {})
        self.rank = explained.get("rank", rank)
        self.doc_id = safe_text(hit["_id"])
        self.legs: dict[str, dict[str, Any]] = explained.get("legs", {})
        self.scores = {
            "fused": explained.get("fused_score"),
            "reranked": explained.get("rerank_score"),
            "score": hit.get("_score"),
        }
        source = hit.get("_source", {})
        # The first searched field with a text; of a document without one, any text.
        text = next((value for name in (*texts, *source) if isinstance(value := source.get(name), str)), "")
        self.title = safe_text(" ".join(text.split()))


def _print_table(console: "Console", hits: list[_Hit], field: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from bridge.console import safe_cell

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    searched = [leg for leg in LEGS if any(leg in hit.legs for hit in hits)]
    for name in ("rank", "document", *searched, "fused", "reranked", "score"):
        table.add_column(name, no_wrap=True)
    table.add_column(safe_cell(field), ratio=1)
    for hit in hits:
        legs = [hit.legs.get(leg) for leg in searched]
        cells = [
            str(hit.rank),
            hit.doc_id,
            *("·" if leg is None else f"#{leg['rank']} ({leg['score']:.2f})" for leg in legs),
            *("·" if score is None else f"{score:.3f}" for score in hit.scores.values()),
            hit.title if len(hit.title) <= _SHOWN_CHARS else f"{hit.title[:_SHOWN_CHARS]}…",
        ]
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


def _print_lines(console: "Console", hit: _Hit) -> None:
    """Rank, id and title, then the part of each stage; a long id leaves the title a line of its own."""
    beginning = f"{hit.rank:>3}  {hit.doc_id}"
    if console.width - len(beginning) - 2 >= min(_FEWEST_TITLE_COLUMNS, len(hit.title)):
        _text(console, f"{beginning}  {hit.title}")
    else:
        _text(console, beginning)
        _text(console, f"     {hit.title}")
    parts = [f"{name} #{leg['rank']}" for name in LEGS if (leg := hit.legs.get(name)) is not None]
    parts += [f"{name} {score:.3f}" for name, score in hit.scores.items() if score is not None]
    _text(console, f"     {' · '.join(parts)}", style="dim")


def _text(console: "Console", line: str, *, style: str = "") -> None:
    from bridge.console import safe_cell

    console.print(safe_cell(line), style=style, no_wrap=True, overflow="ellipsis")
