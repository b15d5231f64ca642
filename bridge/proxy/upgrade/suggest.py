"""`/_bridge/suggest`: what a user may want to ask, from the predicted queries of documents that the caller may read.

In place, documents are searched in the caller's name. Beside, the companion is asked by the bridge's own identity; a
document's predicted queries count if the application's index returns it to the caller, with the texts that they were
made of.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated
from urllib.parse import parse_qsl

import msgspec
from aiohttp import hdrs, web

from bridge.errors import StageFailed
from bridge.proxy.transport.passthrough import Inbound, aside
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.upgrade.cluster_client import OwnSearches
from bridge.proxy.upgrade.companion import Entries
from bridge.proxy.upgrade.planning import Plan, Planner
from bridge.proxy.upgrade.retrieve import forbidden, profile_of_index, unavailable
from bridge.records import Key
from bridge.search import legs
from bridge.search.request import words_request
from bridge.search.response import ShownHit, doc_values
from bridge.search.suggestions import MAX_TYPED_CHARS, Suggestion, predicted_queries, suggesting, suggestions
from bridge.settings import ProxySettings
from bridge.text import decode

MAX_SUGGESTIONS = 50


class SuggestRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What was typed so far, `prefix`, and how many suggestions are wanted from `index`."""

    index: Annotated[str, msgspec.Meta(min_length=1)]
    prefix: Annotated[str, msgspec.Meta(max_length=MAX_TYPED_CHARS)]
    size: Annotated[int, msgspec.Meta(ge=1, le=MAX_SUGGESTIONS)] = 10


class SuggestAnswer(msgspec.Struct):
    """The suggestions, best first."""

    took_ms: int
    suggestions: list[Suggestion]


class Suggest:
    """Answers by GET, with the request's members as parameters, or by POST."""

    route = "suggest"
    path = "/_bridge/suggest"
    methods: Sequence[str] = (hdrs.METH_GET, hdrs.METH_POST)

    def __init__(self, planner: Planner, searches: OwnSearches, settings: ProxySettings) -> None:
        self.listener = settings.suggest
        self._planner = planner
        self._searches = searches

    async def answer(self, inbound: Inbound, body: bytes) -> web.Response:
        """The answer to a request.

        Raises:
            Refused: 400 for a malformed request or an index without predicted queries, 403 if the caller may not search
                it, 503 if the cluster cannot be reached or does not answer in time.
        """
        started = _now()
        try:
            if inbound.method == hdrs.METH_GET:
                parameters = dict(parse_qsl(inbound.target.partition("?")[2], keep_blank_values=True))
                wanted = msgspec.convert(parameters, SuggestRequest, strict=False)
            else:
                wanted = decode(body, SuggestRequest)
        except msgspec.ValidationError as error:
            raise _malformed(str(error)) from error
        except msgspec.DecodeError as error:
            raise _malformed(f"the body is no JSON: {error}") from error
        found = await self.suggest(wanted, inbound)
        answer = SuggestAnswer(round((_now() - started) * 1000), found)
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    def refusal(self, refused: Refused) -> bytes:
        """As OpenSearch writes an error."""
        return refused.body()

    async def suggest(self, wanted: SuggestRequest, inbound: Inbound) -> list[Suggestion]:
        """The suggestions for one request, as `answer`."""
        deadline = _now() + self._planner.budget_s
        profile = await profile_of_index(self._planner, wanted.index, inbound.headers)
        if profile.generator is None:
            raise Refused(
                400,
                "illegal_argument_exception",
                f"index {wanted.index}: its documents have no predicted queries: enrich them with a generator "
                f"(ingest.generator), and search again",
            )
        plan = Plan(
            request=words_request(wanted.prefix, profile.text_fields),
            profile=profile,
            expression=wanted.index,
            caller=inbound.headers,
            stage="expansion",
            explain=False,
            deadline=deadline,
            budget_s=self._planner.budget_s,
        )
        if not wanted.prefix.strip():
            return []
        try:
            hits = await (self._in_place(plan) if profile.beside is None else self._beside(plan))
        except StageFailed as failed:
            if failed.reason == "suggest_forbidden":
                raise forbidden(wanted.index) from failed
            raise unavailable(wanted.index, str(failed)) from failed

        def chosen() -> list[Suggestion]:
            queries_of = {key: predicted_queries(hit, profile) for key, hit in hits.items()}
            return suggestions(wanted.prefix, queries_of, size=wanted.size)

        n_bytes = sum(memoryview(value).nbytes for hit in hits.values() for value in hit.members.values())
        return await aside(n_bytes, chosen)

    async def _in_place(self, plan: Plan) -> dict[Key, ShownHit]:
        """The documents that may have suggestions, best first."""
        body = suggesting(plan.profile, plan.request.text)
        hits = await self._searches.hits(plan, body, stage="suggest", deadline=plan.deadline)
        return {hit.key: hit for hit in hits}

    async def _beside(self, plan: Plan) -> dict[Key, ShownHit]:
        """The entries of companions that may have suggestions, best first, under the keys of their documents."""
        body = suggesting(plan.profile, plan.request.text)
        found = await self._searches.companion_search(plan, body, deadline=plan.deadline)
        if not found:
            return {}
        entries = Entries(plan.profile)
        entries.add({hit.key: doc_values(hit) for hit in found})
        shown = await self._shown(plan, [hit.key for hit in found])
        await aside(sum(map(len, shown.values())), lambda: entries.show(shown))
        return {hit.key: hit for hit in found if entries.count(hit.key)}

    async def _shown(self, plan: Plan, keys: Sequence[Key]) -> Mapping[Key, bytes]:
        """The texts of those of the documents that the application's index returns to the caller."""
        body = legs.texts(plan.profile, keys, None)
        hits = await self._searches.hits(plan, body, stage="suggest", deadline=plan.deadline)
        return {hit.key: bytes(hit.members.get("_source", b"{}")) for hit in hits}


def _now() -> float:
    return asyncio.get_running_loop().time()


def _malformed(detail: str) -> Refused:
    return Refused(
        400,
        "illegal_argument_exception",
        f"the request for suggestions: {detail}: expected index, prefix of at most {MAX_TYPED_CHARS} characters, and "
        f"size from 1 to {MAX_SUGGESTIONS}",
    )
