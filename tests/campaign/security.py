"""Who sees what: every kind of caller, on every path of a search, in place and beside.

Each document's fields, and what was predicted of it, hold a word of their own. A caller may be shown the words that the
node itself shows him directly, and those that were made of texts which he sees whole; no other may stand anywhere in an
answer, and no id of a document that he may not see. Totals and aggregations are the node's own.
"""

import json
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from pydantic import SecretStr

from bridge.profile import RerankSettings
from bridge.settings import ClusterSettings
from tests.campaign.findings import Findings
from tests.proxy_stack import PREFIX, ProxyStack, proxy_stack
from tests.secured_node import SecuredNode, role, start_secured_node
from tests.toys import WORDS

N_DOCUMENTS = 60
WAYS = {"in place": "kept", "beside": "apart"}
"""The index that is enriched in each way."""
PUBLIC = {"term": {"public": True}}
STAGES = ("expansion", "vector", "hybrid", "cascade", "rerank")
MARKER = re.compile(r"mk\d+[tbnq]")
"""Words that say whence they come: the document, and its title, body, note or predicted query."""
PROPERTIES: dict[str, Any] = {"public": {"type": "boolean"}, "n": {"type": "integer"}, "note": {"type": "text"}}
_TIMEOUT_S = 120

_READ: dict[str, Any] = {"index_patterns": [*WAYS.values()], "allowed_actions": ["read"]}
_DLS = {"dls": json.dumps(PUBLIC)}
_FLS = {"fls": ["~body", "~_neural", "~_neural.*"]}
RIGHTS: dict[str, dict[str, Any] | None] = {
    "stranger": None,
    "none": {"index_patterns": ["others"], "allowed_actions": ["read"]},
    "read": _READ,
    "dls": _READ | _DLS,
    "fls": _READ | _FLS,
    "fls note": _READ | {"fls": ["~note"]},
    "dls and fls": _READ | _DLS | _FLS,
    "masked": _READ | {"masked_fields": ["title"]},
    "masked note": _READ | {"masked_fields": ["note"]},
    "filtered alias": _READ,
}
"""Callers. The last one asks by an alias with a filter; the stranger's password is wrong."""


@dataclass
class Caller:
    """A kind of caller at one index: `expression` is what he asks for, `ids` and `words` what the node shows him there
    directly, and `status` what it answers him."""

    name: str
    way: str
    expression: str
    auth: tuple[str, str]
    status: int = 0
    ids: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)

    def look(self, url: str) -> None:
        """Reads all that the node shows him."""
        body = {"query": {"match_all": {}}, "size": 1000, "fields": ["*"]}
        answer = requests.post(f"{url}/{self.expression}/_search", json=body, auth=self.auth, timeout=_TIMEOUT_S)
        self.status = answer.status_code
        self.ids = set(ids_in(answer.text)) if answer.ok else set()
        self.words = set(MARKER.findall(answer.text))
        if self.way == "beside":
            # What was made of texts that he sees whole tells him nothing new.
            whole = [i for i in range(N_DOCUMENTS) if {f"mk{i}t", f"mk{i}b"} <= self.words]
            self.words |= {f"mk{i}q" for i in whole}


@dataclass(frozen=True)
class Asked:
    """A request by way of the proxy, and the same at the node if that can be asked. `same`: whether totals and
    aggregations have to be alike."""

    answer: requests.Response
    direct: requests.Response | None = None
    same: bool = True


def ids_in(text: str) -> list[str]:
    """The ids of the documents in an answer."""
    return re.findall(r'"(?:_id|doc_id)": ?"([^"]+)"', text)


@dataclass
class Matrix:
    """All callers, paths and ways of one node and proxy."""

    node: SecuredNode
    stack: ProxyStack
    chance: random.Random
    findings: Findings
    asked: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    wrong: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    upgraded: Counter[str] = field(default_factory=Counter)

    def callers(self) -> Iterator[Caller]:
        """Every caller at every index, with what the node shows him."""
        for name in RIGHTS:
            for way, index in WAYS.items():
                password = self.node.password if RIGHTS[name] else "wrong"
                expression = f"{index}-public" if name == "filtered alias" else index
                caller = Caller(name, way, expression, (_user(name), password))
                caller.look(self.node.url)
                yield caller

    def round(self, until: float = float("inf")) -> None:
        """One search of each kind by every caller; none is begun after `until`, by the monotonic clock."""
        for caller in self.callers():
            if time.monotonic() >= until:
                return
            for path, ask in PATHS.items():
                body = self._body()
                for asked in ask(self, caller, body):
                    self._judge(caller, path, body, asked)

    def _body(self) -> dict[str, Any]:
        """A search for some words: of the vocabulary, and of documents that not everybody sees."""
        chance = self.chance
        marks = [f"mk{chance.randrange(N_DOCUMENTS)}{chance.choice('tbnq')}" for _ in range(chance.randrange(3))]
        words = [*chance.sample(WORDS, chance.randint(1, 4)), *marks]
        chance.shuffle(words)
        match: dict[str, Any] = {"multi_match": {"query": " ".join(words), "fields": ["title", "body"]}}
        filters = chance.choice([[], [], [{"range": {"n": {"gte": chance.randrange(20)}}}], [PUBLIC]])
        body: dict[str, Any] = {
            "query": {"bool": {"must": [match], "filter": filters}} if filters else match,
            "size": chance.choice([3, 10, 50]),
            "aggs": {"n": {"max": {"field": "n"}}, "of": {"terms": {"field": "public"}}},
        }
        more: list[dict[str, Any]] = [
            {},
            {"_source": chance.choice([False, ["title"], {"excludes": ["body"]}])},
            {"fields": ["*"]},
            {"suggest": {"s": {"text": "wong", "term": {"field": "body"}}}},
            {"post_filter": PUBLIC},
            {"track_total_hits": chance.choice([True, False, 5])},
        ]
        return body | chance.choice(more)

    def _judge(self, caller: Caller, path: str, body: Mapping[str, Any], asked: Asked) -> None:
        answer, direct = asked.answer, asked.direct
        cell = caller.name, path, caller.way
        self.asked[cell] += 1
        self.findings.figures["answers"] += 1
        mark = answer.headers.get("X-Bridge", "")
        if mark and not mark.startswith(("pass", "lexical")):
            self.upgraded[caller.way] += 1
        text = re.sub(r"</?em>", "", answer.text)
        beyond = sorted(set(MARKER.findall(text)) - caller.words)
        if path == "retrieve":
            # It repeats the question.
            beyond = [word for word in beyond if word not in json.dumps(body)]
        refused = caller.status != 200 and (direct is None or not direct.ok)
        faults = {
            "words of what he may not see": beyond,
            "documents that he may not see": sorted(set(ids_in(text)) - caller.ids),
            "an answer in spite of a refusal": answer.status_code if refused and answer.ok else None,
            "a fault": answer.status_code if answer.status_code >= 500 else None,
        }
        if direct is not None:
            faults["another status"] = (
                [answer.status_code, direct.status_code] if answer.status_code != direct.status_code else None
            )
            if asked.same and answer.ok and direct.ok:
                told, known = (_counts(each.json()) for each in (answer, direct))
                faults["another count"] = [told, known] if told != known else None
        for kind, what in faults.items():
            if what:
                self.wrong[cell] += 1
                self.findings.note(
                    f"{caller.way}, {caller.name}, {path}: {kind}", what=what, body=body, mark=mark, answer=text[:4000]
                )

    def _post(self, caller: Caller, path: str, body: Any, *, at: str = "", **headers: str) -> requests.Response:
        lines = "".join(json.dumps(line) + "\n" for line in body) if isinstance(body, list) else json.dumps(body)
        kind = "application/x-ndjson" if isinstance(body, list) else "application/json"
        given = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        url = f"{at or self.stack.url}{path}"
        return requests.post(url, data=lines, headers=given, auth=caller.auth, timeout=_TIMEOUT_S)

    def _both(self, caller: Caller, path: str, body: Any, *, same: bool = True, **headers: str) -> Asked:
        answer = self._post(caller, path, body, **headers)
        return Asked(answer, self._post(caller, path, body, at=self.node.url), same)

    # The paths

    def plain(self, caller: Caller, body: dict[str, Any]) -> Iterator[Asked]:
        """Unchanged."""
        yield self._both(caller, f"/{caller.expression}/_search", body, x_bridge="off")

    def better(self, caller: Caller, body: dict[str, Any]) -> Iterator[Asked]:
        """Upgraded, to some stage."""
        stage = self.chance.choice(STAGES)
        yield self._both(caller, f"/{caller.expression}/_search", body, x_bridge=stage)

    def paged(self, caller: Caller, body: dict[str, Any]) -> Iterator[Asked]:
        """Page by page."""
        for start in range(0, 36, 12):
            page = {**body, "from": start, "size": 12}
            yield self._both(caller, f"/{caller.expression}/_search", page, x_bridge="rerank")

    def cached(self, caller: Caller, body: dict[str, Any]) -> Iterator[Asked]:
        """By a kept ranking; who may see everything has asked before."""
        target = f"/{caller.expression}/_search"
        admin = Caller("admin", caller.way, caller.expression, ("admin", self.node.password))
        self._post(admin, target, body, x_bridge="rerank")
        for _ in range(2):
            yield self._both(caller, target, body, x_bridge="rerank")

    def explained(self, caller: Caller, body: dict[str, Any]) -> Iterator[Asked]:
        """With what each stage did."""
        yield self._both(caller, f"/{caller.expression}/_search", body, x_bridge="rerank, explain")
        explained = {**body, "explain": True}
        yield self._both(caller, f"/{caller.expression}/_search", explained, x_bridge="hybrid")

    def highlighted(self, caller: Caller, body: dict[str, Any]) -> Iterator[Asked]:
        """With highlights of all fields, and the winning passage."""
        highlights = {**body, "highlight": {"fields": {"*": {"require_field_match": False}}}}
        yield self._both(caller, f"/{caller.expression}/_search", highlights, x_bridge="rerank, passage")

    def several(self, caller: Caller, body: dict[str, Any]) -> Iterator[Asked]:
        """By `_msearch`."""
        lines = [{}, body, {"index": caller.expression}, {**body, "from": 2}]
        yield self._both(caller, f"/{caller.expression}/_msearch", lines, same=False)

    def templated(self, caller: Caller, body: dict[str, Any]) -> Iterator[Asked]:
        """By a template."""
        yield self._both(caller, f"/{caller.expression}/_search/template", {"source": body}, same=False)

    def retrieved(self, caller: Caller, body: dict[str, Any]) -> Iterator[Asked]:
        """As passages."""
        [words] = re.findall(r'"multi_match": {"query": "([^"]*)"', json.dumps(body))
        asked = {"index": caller.expression, "queries": [words], "size": 50}
        yield Asked(self._post(caller, "/_bridge/retrieve", asked, at=self.stack.admin_url))

    def viewed(self, caller: Caller, body: dict[str, Any]) -> Iterator[Asked]:
        """From the page that compares rankings."""
        target = f"/{caller.expression}/_search"
        answer = self._post(
            caller, f"/_bridge/cluster{target}", body, at=self.stack.admin_url, x_bridge="rerank, explain"
        )
        yield Asked(answer, self._post(caller, target, body, at=self.node.url))

    def cells(self) -> list[dict[str, Any]]:
        """Answers and faults of each caller, path and way."""
        return [
            {"caller": cell[0], "path": cell[1], "way": cell[2], "answers": asked, "findings": self.wrong[cell]}
            for cell, asked in self.asked.items()
        ]

    def table(self) -> str:
        """Answers, and faults if there are any, by caller and path; both ways together."""
        width = max(map(len, RIGHTS)) + 2
        lines = [" " * width + "".join(f"{path:>13}" for path in PATHS)]
        for name in RIGHTS:
            cells = []
            for path in PATHS:
                asked, wrong = (sum(count[name, path, way] for way in WAYS) for count in (self.asked, self.wrong))
                cells.append(f"{f'{wrong} of {asked}' if wrong else asked:>13}")
            lines.append(f"{name:<{width}}" + "".join(cells))
        return "\n".join(lines)


PATHS: dict[str, Callable[[Matrix, Caller, dict[str, Any]], Iterator[Asked]]] = {
    "plain": Matrix.plain,
    "upgraded": Matrix.better,
    "paged": Matrix.paged,
    "cached": Matrix.cached,
    "explained": Matrix.explained,
    "highlighted": Matrix.highlighted,
    "_msearch": Matrix.several,
    "template": Matrix.templated,
    "retrieve": Matrix.retrieved,
    "page": Matrix.viewed,
}


def _user(name: str) -> str:
    return f"matrix-{name.replace(' ', '-')}"


def _counts(answer: Mapping[str, Any]) -> Any:
    """What no stage may change."""
    return {
        "total": answer["hits"].get("total"),
        **{name: answer.get(name) for name in ("aggregations", "suggest")},
    }


def documents(chance: random.Random) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Documents with their predicted queries; half of them are public."""

    def words(i: int, kind: str) -> str:
        return " ".join([*(chance.choice(WORDS) for _ in range(4)), f"mk{i}{kind}"])

    return {
        f"doc-{i}": (
            {"title": words(i, "t"), "body": f"{words(i, 'b')}.", "note": words(i, "n"), "public": i % 2 == 0, "n": i},
            [words(i, "q")],
        )
        for i in range(N_DOCUMENTS)
    }


@contextmanager
def matrix(node: SecuredNode, chance: random.Random, findings: Findings) -> Iterator[Matrix]:
    """Callers, indices and a proxy for the length of the block."""
    companions = {
        "index_patterns": [f"{PREFIX}*"],
        "allowed_actions": ["indices:admin/mappings/get", "indices:data/read/search", "indices:data/read/msearch"],
    }
    mappings = {"index_patterns": ["*"], "allowed_actions": ["indices:admin/mappings/get"]}
    users = {"matrix-bridge": role(companions, mappings, cluster=("indices:data/read/msearch",))} | {
        _user(name): role(rights, cluster=("cluster_composite_ops_ro",)) for name, rights in RIGHTS.items() if rights
    }
    node.add_users(users)
    cluster = ClusterSettings(url=node.url, username="matrix-bridge", password=SecretStr(node.password))
    more: dict[str, Any] = {"window": 20, "rerank": RerankSettings(depth=20)}
    with (
        tempfile.TemporaryDirectory() as folder,
        proxy_stack(cluster, Path(folder), budget_ms=60_000, ranking_ttl_s=600) as stack,
        node.client() as admin,
    ):
        made = documents(chance)
        stack.fill(admin, WAYS["in place"], made, properties=PROPERTIES, **more)
        stack.fill_beside(admin, WAYS["beside"], made, properties=PROPERTIES, **more)
        for index in WAYS.values():
            admin.indices.put_alias(index=index, name=f"{index}-public", body={"filter": PUBLIC})
        try:
            yield Matrix(node, stack, chance, findings)
        finally:
            admin.indices.delete(index=[*WAYS.values(), f"{PREFIX}{WAYS['beside']}"])
            node.remove_user(*users)


def run(findings: Findings, rounds: int, until: float) -> Matrix:
    """Rounds from the seed's next one on; `until` by the monotonic clock."""
    with start_secured_node() as node, matrix(node, random.Random(findings.seed), findings) as whole:
        while findings.next < rounds and time.monotonic() < until:
            whole.chance.seed(f"{findings.seed} {findings.next}")
            whole.round(until)
            findings.next += 1
            findings.save()
        findings.figures.update({f"upgraded {way}": whole.upgraded[way] for way in WAYS})
        return whole
