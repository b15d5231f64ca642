"""May this search be upgraded, and how far? From request to `Plan`, or the reason to leave it alone.

The profile that says how to search an index is read from its mapping and trusted for a while. It holds nothing of the
documents, so one caller's reading serves all; whether a caller may search the index is decided by the cluster, at each
search. A failed reading is never shared between callers: a permission may be missing.

If the indices have none, the mappings of their companions may hold it. A companion knows texts that a caller may not
see, so for each caller the cluster is asked whether it shows all text fields.
"""

import asyncio
import math
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypeAlias, get_args
from urllib.parse import parse_qsl, quote, unquote, urlencode

import aiohttp
import msgspec
from aiohttp import hdrs
from cachetools import TTLCache
from multidict import CIMultiDict

from bridge.errors import IndexUnsuitable
from bridge.profile import (
    DEFAULT_OBJECT,
    LEGS,
    META_KEY,
    IndexProfile,
    Stage,
    companions_of,
    object_of,
    profile_beside,
    profile_of,
)
from bridge.proxy.transport.headers import CONTROL, accepts_json, identity, of_a_leg, own_identity, plain_media_type
from bridge.proxy.transport.passthrough import AnswerMemory, aside
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.transport.upstream import Upstream
from bridge.search.flow import ANY_DISTANCE, Distance
from bridge.search.request import LeaveAlone, SearchRequest, parse
from bridge.settings import ProxySettings, Settings
from bridge.text import decode_answer

_STAGES: dict[str, Stage] = {stage: stage for stage in get_args(Stage)}
_WORDS = ("off", "explain", "passage", "sentences", "union", "facets", "fallback")
_CUTOFF = "cutoff"
_SHARES = ("smoothing", "diverse", _CUTOFF)
_REPAIR = {"repair": True, "repair=off": False}
_JSON_BODIES = ("application/json", "application/x-ndjson", "")
_CACHED_INDICES = 10_000
_COMPANION_SHARE = 0.5
"""Of the budget: what a search waits for the mapping of a companion that there may not be."""
_SLOW_SHARE = 0.5
"""Of the budget: a mapping that does not come in this time is waited for by nobody for a while."""
_Asked: TypeAlias = "tuple[Searched, bytes | None]"
"""Which indices, and who asks; None for everybody."""
_PROFILE_BYTES = 500_000
"""Of a profile in a mapping; decoding one takes the interpreter from everybody else."""
_COMPANIONS_CHARS = 3_000
"""In a request's path; clusters take lines of 4,096 bytes."""
_UNREADABLE = LeaveAlone("mapping_unreadable")
_NO_PROFILE = LeaveAlone("no_profile")
_DIFFERENT = LeaveAlone("profiles_differ")
MAPPINGS_AT_ONCE = 8
"""Of one `_msearch`."""
_TOO_LARGE = 413
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
CLUSTER_UNAVAILABLE = LeaveAlone("cluster_unavailable")
"""The cluster did not say how the index is searched, and may do so a little later."""
_INDEX_OPTIONS = ("allow_no_indices", "expand_wildcards", "ignore_unavailable")
_NAME = r"(?!_)[^\x00-\x20\x7f\\/?\"<>|,#:]{1,255}"
_NAMES = re.compile(rf"(?!\*+$){_NAME}(?:,{_NAME})*")
"""Indices and aliases by name or pattern, also several: not all of them, no date arithmetic, no other cluster."""


@dataclass(frozen=True, slots=True)
class Control:
    """The words of a request's `x-bridge` header.

    `stage`: where to stop, None for all that the index enables; `off`: leave this search alone; `explain`: show what
    each stage contributed; `passage`: show the winning passage among a hit's highlights; `sentences`: show the sentence
    that answers in place of a highlight that a hit lacks; `union`: include what the bridge found in the total;
    `facets`: aggregate it, too; `weights`: weights of legs, and the shares of neighbours in
    smoothed scores (`smoothing`) and of likeness to the documents before (`diverse`), that replace the profile's;
    `cutoff`, None if the request names none, and `fallback` as in `Distance`; `repair`: whether misspelt words are
    repaired, None if the profile says so.
    """

    stage: Stage | None = None
    off: bool = False
    explain: bool = False
    passage: bool = False
    sentences: bool = False
    union: bool = False
    facets: bool = False
    weights: Mapping[str, float] = field(default_factory=dict)
    cutoff: float | None = None
    fallback: bool = False
    repair: bool | None = None

    def distance(self, settings: ProxySettings) -> Distance:
        """What becomes of documents that only vectors found. The settings decide what a request leaves open, unless it
        names a stage: it wants what that one finds."""
        default = Distance(settings.cutoff, settings.fallback) if self.stage is None else ANY_DISTANCE
        cutoff = default.cutoff if self.cutoff is None else self.cutoff
        return Distance(cutoff, default.fallback or self.fallback)

    def applied_to(self, profile: IndexProfile) -> IndexProfile:
        """The profile with this request's weights and rules."""
        if not self.weights and self.repair is None:
            return profile
        weights = {**profile.fusion.weights, **self.weights}
        smoothing = weights.pop("smoothing", profile.fusion.smoothing)
        rules = msgspec.structs.replace(
            profile.rules,
            diversity=weights.pop("diverse", profile.rules.diversity),
            repair=profile.rules.repair if self.repair is None else self.repair,
        )
        fusion = msgspec.structs.replace(profile.fusion, weights=weights, smoothing=smoothing)
        return msgspec.structs.replace(profile, fusion=fusion, rules=rules)


@dataclass(frozen=True, slots=True)
class Plan:
    """A search to be upgraded: what it asks, of which index, as whom, and how far to go.

    `expression` is the index or alias as in the request's path; `caller` the forwarded headers;
    `deadline` on the event loop's clock. `hide`: the objects of the bridge that the answer leaves out. `of_one_index`:
    the expression led to one index when the profile was read. `explain`, `passage`, `sentences`, `union` and
    `facets` as in `Control`; `distance`: what becomes of documents that only vectors found.
    """

    request: SearchRequest
    profile: IndexProfile
    expression: str
    caller: CIMultiDict[str]
    stage: Stage
    explain: bool
    deadline: float
    budget_s: float
    hide: frozenset[str] = frozenset()
    passage: bool = False
    sentences: bool = False
    union: bool = False
    facets: bool = False
    of_one_index: bool = False
    distance: Distance = ANY_DISTANCE


class Planner:
    """Plans searches by the profiles of their indices. Remembers profiles for `proxy.profile_ttl_s`."""

    def __init__(
        self,
        upstream: Upstream,
        memory: AnswerMemory,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._memory = memory
        self._own_identity = own_identity(settings.cluster)
        self._prefix = settings.companion.prefix
        self._settings = settings.proxy
        self.budget_s = settings.proxy.budget_ms / 1000
        self._per_request_headers = settings.proxy.per_request_headers
        ttl_s = settings.proxy.profile_ttl_s
        self._known: TTLCache[_Asked, _Known] = TTLCache(_CACHED_INDICES, ttl_s, timer=clock)
        self._shown: TTLCache[_Asked, _Shown] = TTLCache(_CACHED_INDICES, ttl_s, timer=clock)
        self._every_object = frozenset((DEFAULT_OBJECT,))

    def plan(
        self,
        expression: str,
        profile: IndexProfile,
        body: bytes,
        query_string: str,
        *,
        caller: CIMultiDict[str],
        control: Control,
        started: float,
    ) -> Plan | LeaveAlone:
        """Plans one search of the index or alias `expression`; `started` is when its request came."""
        profile = control.applied_to(profile)
        stage = control.stage or profile.stages[-1]
        if stage == "lexical":
            return LeaveAlone("lexical")
        request = parse(
            body,
            query_string,
            text_fields=profile.text_fields,
            object_field=profile.object_field,
            rules=profile.rules,
        )
        if isinstance(request, LeaveAlone):
            return request
        return Plan(
            request=request,
            profile=profile,
            expression=expression,
            caller=caller,
            stage=stage,
            explain=control.explain or request.explain,
            deadline=started + self.budget_s,
            budget_s=self.budget_s,
            # An index with a companion holds none: a field of that name is the application's own.
            hide=frozenset() if request.asks_for_ours or profile.beside else frozenset((profile.object_field,)),
            passage=control.passage,
            sentences=(control.sentences or profile.rules.sentences) and "highlight" in request.presentation,
            union=control.union,
            facets=control.facets,
            distance=control.distance(self._settings),
        )

    def objects(self, searched: "Searched", caller: CIMultiDict[str]) -> frozenset[str]:
        """The bridge's objects in documents of these indices: what their mappings say, or, if they have not been read,
        every name that any mapping gave such an object."""
        known = self._remembered(searched, caller)
        return self._every_object if known is None or known.objects is None else known.objects

    def leads_to_one_index(self, searched: "Searched", caller: CIMultiDict[str]) -> bool:
        """Whether these names led to one index when the profile was read."""
        known = self._remembered(searched, caller)
        return known is not None and known.of_one_index

    def _remembered(self, searched: "Searched", caller: CIMultiDict[str]) -> "_Known | None":
        callers, everybodys = self._askers(searched, caller)
        return self._known.get(callers) or self._known.get(everybodys)

    def _askers(self, searched: "Searched", caller: CIMultiDict[str]) -> tuple[_Asked, _Asked]:
        """Under what the answer to this caller is remembered, and under what an answer to everybody."""
        return (searched, identity(caller, self._per_request_headers)), (searched, None)

    async def profiles(
        self, searched: Collection["Searched"], caller: CIMultiDict[str], *, deadline: float
    ) -> dict["Searched", IndexProfile | LeaveAlone]:
        """The profile of each search's indices; their mappings are read together, and all until `deadline`."""
        at_once = asyncio.Semaphore(MAPPINGS_AT_ONCE)

        async def profile(each: Searched) -> IndexProfile | LeaveAlone:
            async with at_once:
                return await self.profile(each, caller, deadline=deadline)

        if len(searched) == 1:
            return {each: await self.profile(each, caller, deadline=deadline) for each in searched}
        return dict(zip(searched, await asyncio.gather(*map(profile, searched)), strict=True))

    async def profile(
        self, searched: "Searched", caller: CIMultiDict[str], *, deadline: float
    ) -> IndexProfile | LeaveAlone:
        """The profile of the indices that a search finds; they have to agree.

        `caller` are the forwarded headers of the search; `deadline` is on the event loop's clock. For a caller that may
        not read mappings the configured identity reads; it reads the mappings of companions too.
        """
        if not _NAMES.fullmatch(unquote(searched.expression)):
            return LeaveAlone("index_expression")
        callers, everybodys = self._askers(searched, caller)
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(deadline):
                known = self._known.get(callers) or self._known.get(everybodys)
                if known is None:
                    await asyncio.sleep(0)  # a deadline that is past counts before anything is sent
                    known, indices = await self._read(searched, caller)
                    if known.profile == CLUSTER_UNAVAILABLE:
                        return known.profile
                    known = replace(known, of_one_index=indices is not None and len(indices) == 1)
                    # Patterns and aliases lead each caller to the indices that he may read.
                    self._known[everybodys if indices == [unquote(searched.expression)] else callers] = known
                    self._every_object |= known.objects or frozenset()
                profile = known.profile
                if isinstance(profile, LeaveAlone) or profile.beside is None:
                    return profile
                if (shown := self._shown.get(callers)) is None:
                    self._shown[callers] = shown = await self._field_caps(searched, profile.read_fields, caller)
                if sorted(shown.indices) != profile.beside_indices:
                    # This caller's wildcard or alias leads elsewhere than another's did.
                    return _NO_PROFILE
                return profile if all(map(shown.everywhere, profile.read_fields)) else LeaveAlone("fields_hidden")
        except TimeoutError:
            # Whoever asks next need not wait as long, whoever it is: slowness is no matter of permissions. But a caller
            # who asks for many at once has used up the time of the last ones himself.
            is_slow = asyncio.get_running_loop().time() - began > self.budget_s * _SLOW_SHARE
            is_read = callers in self._known or everybodys in self._known
            self._known[everybodys if is_slow and not is_read else callers] = _Known(CLUSTER_UNAVAILABLE)
            return CLUSTER_UNAVAILABLE
        except (Refused, aiohttp.ClientError):
            # Whether the cluster can be searched is for the search itself to find out.
            return CLUSTER_UNAVAILABLE

    async def _read(self, searched: "Searched", caller: CIMultiDict[str]) -> "tuple[_Known, Sequence[str] | None]":
        """What the mappings of the indices themselves say, or those of their companions; and the indices, None if none
        was readable."""
        status, body = await self._get(searched.target("_mapping"), of_a_leg(caller))
        if status in (401, 403) and hdrs.AUTHORIZATION in self._own_identity:
            status, body = await self._get(searched.target("_mapping"), self._own_identity)
        known, indices = _Known(_UNREADABLE), None
        if status == 200:
            known, indices = await aside(len(body), lambda: _common_profile(body))
            if searched.options and len(indices) > 1 and isinstance(known.profile, LeaveAlone):
                # A mapping is read of closed indices too, which the search leaves out.
                open_ones = (await self._field_caps(searched, ["_id"], caller)).indices
                known, indices = await aside(len(body), lambda: _common_profile(body, among=open_ones))
            if known.profile != _NO_PROFILE:
                return known, indices
        elif status not in (401, 403):
            failed = status >= _SERVER_ERROR or status == _TOO_MANY_REQUESTS
            return _Known(CLUSTER_UNAVAILABLE) if failed else known, None
        return await self._beside(searched, indices, caller) or known, indices

    async def _beside(
        self, searched: "Searched", indices: Sequence[str] | None, caller: CIMultiDict[str]
    ) -> "_Known | None":
        """The profile in the mappings of the indices' companions; None if there is none that can be read in time.

        That is remembered too: no search waits again for a companion that does not answer.
        """
        try:
            async with asyncio.timeout(self.budget_s * _COMPANION_SHARE):
                if indices is None:
                    # Which indices an alias leads to is told to whoever may search it.
                    indices = (await self._field_caps(searched, ["_id"], caller)).indices
                names = [name for index in sorted(indices) for name in companions_of(index, self._prefix)]
                companions = quote(",".join(names), safe=",")
                if not 0 < len(companions) <= _COMPANIONS_CHARS:
                    return None
                # One that is missing must not hide the others.
                status, body = await self._get(f"/{companions}/_mapping?ignore_unavailable=true", self._own_identity)
        except (Refused, TimeoutError, aiohttp.ClientError):
            return None
        if status != 200:
            return None
        profile = await aside(len(body), lambda: _profile_beside(body, sorted(indices), self._prefix))
        return _Known(profile) if isinstance(profile, IndexProfile) or profile == _DIFFERENT else None

    async def _field_caps(self, searched: "Searched", fields: Sequence[str], caller: CIMultiDict[str]) -> "_Shown":
        """Which of the fields the cluster shows to the caller, and in which indices; none if it refuses."""
        target = searched.target("_field_caps", fields=",".join(fields), include_unmapped="true")
        status, body = await self._get(target, of_a_leg(caller))
        try:
            return await aside(len(body), lambda: decode_answer(body, _Shown)) if status == 200 else _Shown()
        except msgspec.DecodeError:
            return _Shown()

    async def _get(self, target: str, headers: CIMultiDict[str]) -> tuple[int, bytes]:
        """Status and body of an answer; 413 for one that is larger than memory is left for."""
        answer = await self._upstream.send("GET", target, headers, None)
        with self._memory.share() as share:
            async with answer:
                body = await share.read(answer)
        return (answer.status, body) if body is not None else (_TOO_LARGE, b"")


def read_control(header: str | None) -> Control:
    """Reads the header's comma-separated words, and the numbers among them (`vector=2`, `cutoff=0.5`).

    Raises:
        Refused: 400; a word is unknown, a number is out of its range, or two words contradict each other.
    """
    named = [part for each in (header or "").split(",") if (part := each.strip().lower())]
    repair = {_REPAIR[part] for part in named if part in _REPAIR}
    parts = [part for part in named if part not in _REPAIR]
    words = {part for part in parts if "=" not in part}
    assignments = [part.partition("=") for part in parts if "=" in part]
    weights = {leg.strip(): float(weight) for leg, _, weight in assignments if _is_weight(leg.strip(), weight)}
    cutoff = weights.pop(_CUTOFF, None)
    n_numbers = len(weights) + (cutoff is not None)
    stages = words & _STAGES.keys()
    if words - stages - set(_WORDS) or len(stages) > 1 or n_numbers < len(assignments) or len(repair) > 1:
        raise Refused(
            400,
            "illegal_argument_exception",
            f"header {CONTROL}: {header}: expected one of off, {', '.join(_STAGES)}, any of "
            f"{', '.join(_WORDS[1:])}, repair or repair=off, one weight from 0 on for any of {', '.join(LEGS)}, as "
            f"vector=2, and one number from 0 to 1 for any of {', '.join(_SHARES)}",
        )
    return Control(
        stage=_STAGES[stages.pop()] if stages else None,
        weights=weights,
        cutoff=cutoff,
        repair=repair.pop() if repair else None,
        **{word: word in words for word in _WORDS},
    )


def _is_weight(leg: str, weight: str) -> bool:
    try:
        number = float(weight)
    except ValueError:
        return False
    return (leg in LEGS and 0 <= number < math.inf) or (leg in _SHARES and 0 <= number <= 1)


def left_alone(control: Control, caller: CIMultiDict[str]) -> LeaveAlone | None:
    """Why a request is left alone whatever its body says; None if the body decides."""
    if control.off or control.stage == "lexical":
        return LeaveAlone("off" if control.off else "lexical")
    if caller.get(hdrs.AUTHORIZATION, "").startswith("AWS4-"):
        # The signature covers this very request: no other can be sent in the caller's name.
        return LeaveAlone("signed")
    content_type = plain_media_type(caller.get(hdrs.CONTENT_TYPE, "")).partition(";")[0].strip().lower()
    if content_type not in _JSON_BODIES:
        return LeaveAlone("content_type")
    return None if accepts_json(caller) else LeaveAlone("accept")


@dataclass(frozen=True, slots=True)
class Searched:
    """Which indices a search finds: `expression` names them, percent-encoded as in a path, and `options` are the
    parameters that say which of them count, as a query string."""

    expression: str
    options: str = ""

    @classmethod
    def by(cls, expression: str, query_string: str) -> Self:
        """What a search with these parameters finds."""
        options = {name: value for name, value in parse_qsl(query_string) if name in _INDEX_OPTIONS}
        return cls(expression, urlencode(sorted(options.items())))

    def target(self, endpoint: str, **parameters: str) -> str:
        """The target of a request to `endpoint` about the same indices."""
        query = "&".join(filter(None, (self.options, urlencode(parameters))))
        return f"/{self.expression}/{endpoint}" + (f"?{query}" if query else "")


@dataclass(frozen=True, slots=True)
class _Known:
    """What a mapping says: how to search, and the names of the bridge's objects in documents, None if it was not
    read."""

    profile: IndexProfile | LeaveAlone
    objects: frozenset[str] | None = None
    of_one_index: bool = False


class _Mapping(msgspec.Struct):
    """A mapping. Its fields, and what an application keeps in `_meta`, may be megabytes: they are not decoded."""

    class Body(msgspec.Struct):
        class Meta(msgspec.Struct):
            profile: msgspec.Raw = msgspec.field(name=META_KEY, default_factory=msgspec.Raw)

        meta: Meta | None = msgspec.field(name="_meta", default=None)

    mappings: Body

    @property
    def meta(self) -> dict[str, object]:
        """What of `_meta` is the bridge's; null in place of what is too long for a profile."""
        profile = bytes(self.mappings.meta.profile) if self.mappings.meta is not None else b""
        if not profile:
            return {}
        return {META_KEY: decode_answer(profile, object) if len(profile) <= _PROFILE_BYTES else None}


class _Shown(msgspec.Struct):
    """An answer of `_field_caps`: by field the types that it has, of which `unmapped` stands for indices without it."""

    indices: list[str] = []
    fields: dict[str, dict[str, msgspec.Raw]] = {}

    def everywhere(self, name: str) -> bool:
        """Whether each of the indices shows the field."""
        return "unmapped" not in self.fields.get(name, {"unmapped": None})


def _common_profile(body: bytes, *, among: Collection[str] | None = None) -> tuple[_Known, list[str]]:
    """The one profile of all indices in the answer to a request for mappings, or of those in `among`, and their names.
    The profile of a companion is none of its own.
    """
    try:
        mappings = decode_answer(body, dict[str, _Mapping])
    except msgspec.DecodeError:
        return _Known(LeaveAlone("profile_unreadable")), []
    metas = {index: mapping.meta for index, mapping in mappings.items() if among is None or index in among}
    indices = list(metas)
    objects = frozenset(name for meta in metas.values() if (name := object_of(meta)) is not None)
    try:
        profiles = [profile_of(meta, index=index) for index, meta in metas.items()]
    except IndexUnsuitable:
        return _Known(LeaveAlone("profile_unreadable"), objects), indices
    own = [profile if profile is None or profile.beside is None else None for profile in profiles]
    return _Known(_only_one(own), objects), indices


def _profile_beside(body: bytes, indices: Sequence[str], prefix: str) -> IndexProfile | LeaveAlone:
    """The one profile of the companions of all these indices in the answer to a request for mappings."""
    try:
        metas = {name: mapping.meta for name, mapping in decode_answer(body, dict[str, _Mapping]).items()}
        profiles = [profile_beside(metas, index, prefix) for index in indices]
    except (msgspec.DecodeError, IndexUnsuitable):
        return LeaveAlone("profile_unreadable")
    together = ",".join(indices)
    return _only_one([profile and msgspec.structs.replace(profile, beside=together) for profile in profiles])


def _only_one(profiles: Sequence[IndexProfile | None]) -> IndexProfile | LeaveAlone:
    """The profile that all indices have, without its evidence and calibration, in which they may differ; one that all
    have alike stays."""
    found = [profile for profile in profiles if profile is not None]
    known = [msgspec.structs.replace(profile, gate=None, tuning=None, calibration=None) for profile in found]
    if not known:
        return _NO_PROFILE
    if len(known) < len(profiles) or any(profile != known[0] for profile in known):
        return _DIFFERENT
    calibration = found[0].calibration if all(each.calibration == found[0].calibration for each in found) else None
    return msgspec.structs.replace(known[0], calibration=calibration)
