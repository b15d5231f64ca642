"""May this search be upgraded, and how far? From request to `Plan`, or the reason to leave it alone."""

from dataclasses import dataclass

from aiohttp import hdrs
from multidict import CIMultiDict

from bridge.profile import IndexProfile, Stage
from bridge.proxy.transport.elasticsearch_clients import plain_media_type
from bridge.proxy.upgrade.control import Control
from bridge.proxy.upgrade.profiles import Profiles
from bridge.search.hiding import hidden_object
from bridge.search.request import LeaveAlone, SearchRequest, parse

_JSON_BODIES = ("application/json", "application/x-ndjson", "")
_JSON_ANSWERS = ("application/json", "*/*", "application/*", "")


@dataclass(frozen=True, slots=True)
class Plan:
    """A search to be upgraded: what it asks, of which index, as whom, and how far to go.

    `expression` is the index or alias as in the request's path; `caller` the forwarded headers;
    `deadline` on the event loop's clock. `explain`, `passage` and `union` as in `Control`.
    """

    request: SearchRequest
    profile: IndexProfile
    expression: str
    caller: CIMultiDict[str]
    stage: Stage
    explain: bool
    deadline: float
    budget_s: float
    passage: bool = False
    union: bool = False


class Planner:
    """Plans searches by the profiles of their indices, `budget_s` for each request."""

    def __init__(self, profiles: Profiles, *, budget_s: float) -> None:
        self._profiles = profiles
        self._budget_s = budget_s

    async def plan(
        self,
        expression: str,
        body: bytes,
        query_string: str,
        *,
        caller: CIMultiDict[str],
        control: Control,
        started: float,
    ) -> Plan | LeaveAlone:
        """Plans one search of the index or alias `expression`; `started` is when its request came."""
        profile = await self._profiles.of(expression, caller)
        if isinstance(profile, LeaveAlone):
            return profile
        profile = control.weighed(profile)
        stage = control.stage or profile.stages[-1]
        if stage == "lexical":
            return LeaveAlone("lexical", hidden_object(body, query_string, profile.object_field))
        understood = parse(
            body,
            query_string,
            text_fields=profile.text_fields,
            object_field=profile.object_field,
            rules=profile.rules,
        )
        if isinstance(understood, LeaveAlone):
            return understood
        return Plan(
            request=understood,
            profile=profile,
            expression=expression,
            caller=caller,
            stage=stage,
            explain=control.explain or understood.explain,
            deadline=started + self._budget_s,
            budget_s=self._budget_s,
            passage=control.passage,
            union=control.union,
        )


def left_alone(control: Control, caller: CIMultiDict[str]) -> LeaveAlone | None:
    """Why a request is left alone whatever its body says; None where the body decides."""
    if control.off or control.stage == "lexical":
        return LeaveAlone("off" if control.off else "lexical")
    if caller.get(hdrs.AUTHORIZATION, "").startswith("AWS4-"):
        # The signature covers this very request: no other can be sent in the caller's name.
        return LeaveAlone("signed")
    if _media_type(caller, hdrs.CONTENT_TYPE) not in _JSON_BODIES:
        return LeaveAlone("content_type")
    if _media_type(caller, hdrs.ACCEPT) not in _JSON_ANSWERS:
        return LeaveAlone("accept")
    return None


def _media_type(headers: CIMultiDict[str], name: str) -> str:
    return plain_media_type(headers.get(name, "")).partition(";")[0].strip().lower()
