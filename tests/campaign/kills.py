"""Kills commands at random moments while an application writes; afterwards everything must be as if nothing was.

A trial is one way to enrich one small index. Its command is killed several times, and then run until it completes.
What the index holds then is compared with what the application wrote.
"""

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opensearchpy import NotFoundError, OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.dialects import compared
from bridge.cluster.generations import Generations
from bridge.cluster.index import IndexState
from bridge.models.artifact import resolve
from bridge.models.encoder import Encoder
from bridge.node.node import EmbeddedNode
from bridge.profile import companion_of, companions_of
from bridge.settings import CompanionSettings
from bridge.text import enriched_text
from ingest.runs.ingest import NOTE_KEY
from tests.campaign.application import TEXT_FIELDS, Application, Written
from tests.campaign.commands import KILLED, Commands, Ended
from tests.campaign.findings import Findings
from tests.campaign.stand import campaign_node
from tests.servers import client as client_of
from tests.toys import WORDS, make_toy_encoder

N_DOCUMENTS = 40
KILLS_A_TRIAL = 5
ATTEMPTS_A_KILL = 4
"""A command may end before its kill; then it is run once more, so many times in the mean."""
SAME_VECTOR = 0.9995
"""Of a score that is half of 1 + cosine."""
MAX_RUNS_TO_COMPLETE = 3
"""Runs beside a writer may leave the last changes to the next run."""
PREFIX = CompanionSettings().prefix
FIELDS = tuple(word for name in TEXT_FIELDS for word in ("--text-field", name))


@dataclass
class Trial:
    """One index, its application and what commands did to it."""

    number: int
    client: OpenSearch
    commands: Commands
    folder: Path
    chance: random.Random
    findings: Findings
    encoders: tuple[str, str]
    durations: dict[str, float]
    index: str = ""
    kills: list[float] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    """Commands that ran, with their exit codes."""

    @property
    def is_external(self) -> bool:
        """Whether the application numbers its versions itself, where it may: every other time."""
        return self.number // len(WAYS) % 2 == 0

    def application(self, **options: Any) -> Application:
        """The application of this trial, with an index of its own."""
        return Application(self.client, self.index, self.chance, **options)

    def run(
        self, *arguments: str, kill_after_s: float | None = None, is_over: Callable[[], bool] = lambda: False
    ) -> Ended:
        """Runs a command on the index; notes an exit code that it must not have. A command that a killed one made
        superfluous may say so: what that one had requested last may take effect after its death."""
        ended = self.commands.run(arguments, kill_after_s=kill_after_s)
        self.done.append(f"{_name(arguments)} {ended.code}")
        self.findings.figures["runs"] += 1
        if ended.code == KILLED:
            self.kills.append(round(ended.took_s, 3))
            self.findings.figures["kills"] += 1
        elif ended.code != 0 and not is_over():
            self.note(f"exit {ended.code}", command=arguments, said=ended.said)
        return ended

    def killed(self, *arguments: str, kills: int = KILLS_A_TRIAL, is_over: Callable[[], bool] = lambda: False) -> None:
        """Runs a command again and again, each time killed at a random moment, until so many kills hit."""
        name, hits = _name(arguments), 0
        for _ in range(ATTEMPTS_A_KILL * kills):
            if hits == kills or is_over():
                return
            after_s = self.chance.uniform(0, self.durations.get(name, 0.5))
            ended = self.run(*arguments, kill_after_s=after_s, is_over=is_over)
            hits += ended.code == KILLED
            if ended.code == 0:
                self.durations[name] = 0.8 * self.durations.get(name, ended.took_s) + 0.2 * ended.took_s

    def until_complete(self, *arguments: str, is_over: Callable[[], bool] = lambda: False) -> None:
        """Runs a command until it completes: once, as no application writes now."""
        began = time.monotonic()
        for _ in range(MAX_RUNS_TO_COMPLETE):
            if self.run(*arguments, is_over=is_over).code == 0 or is_over():
                break
        self.durations[_name(arguments)] = 1.3 * (time.monotonic() - began)

    def note(self, fault: str, **what: Any) -> None:
        """Writes a finding down."""
        way = WAYS[self.number % len(WAYS)].__name__
        self.findings.note(
            f"{way}: {fault}",
            seed=self.findings.seed,
            trial=self.number,
            kills=self.kills,
            runs=self.done,
            **what,
        )

    def compare(self, what: str, expected: Any, found: Any) -> None:
        """Notes a difference."""
        if expected != found:
            self.note(f"{what} differs", expected=_shown(expected), found=_shown(found))

    # What is compared.

    def documents_are(
        self, documents: Mapping[str, Written], *, encoder: str, generation: str | None = None, others: str = " "
    ) -> None:
        """In place: ids and contents as they were written, each document enriched for its text, by one generation if
        it is named. Documents whose ids begin with `others` belong to somebody else."""
        hits = {doc_id: hit for doc_id, hit in _all(self.client, self.index).items() if not doc_id.startswith(others)}
        self.compare("ids", sorted(documents), sorted(hits))
        for doc_id in documents.keys() & hits.keys():
            body = dict(hits[doc_id]["_source"])
            ours = body.pop("_neural", {})
            self.compare("a document", {doc_id: documents[doc_id].body}, {doc_id: body})
            if generation is not None:
                self.compare("generations of a document", {doc_id: [generation]}, {doc_id: sorted(ours)})
        self.settings_are_restored(self.index)
        self._are_enriched(self.index, documents, encoder)

    def versions_are(self, application: Application, *, ours: int) -> None:
        """Versions are the application's, plus what the bridge may have written since: once for what it wrote whole."""
        for doc_id, hit in _all(self.client, self.index).items():
            if (written := application.documents.get(doc_id)) is not None:
                above = hit["_version"] - written.version
                allowed = range(ours if written.whole else 0, ours + 1)
                if above not in allowed:
                    self.note("versions differ", doc_id=doc_id, above=above, allowed=list(allowed))

    def nobody_else_wrote(self, application: Application) -> None:
        """Beside: versions and sequence numbers say that the application alone wrote its index."""
        hits = _all(self.client, self.index)
        self.compare("documents", {each: w.body for each, w in application.documents.items()}, _sources(hits))
        expected = {doc_id: written.version for doc_id, written in application.documents.items()}
        self.compare("versions", expected, {doc_id: hit["_version"] for doc_id, hit in hits.items()})
        [shard] = self.client.indices.stats(index=self.index, params={"level": "shards"})["indices"][self.index][
            "shards"
        ]["0"]
        self.compare("the last sequence number", application.last_seq_no, shard["seq_no"]["max_seq_no"])
        self.compare("operations of others", 0, application.strangers)

    def companion_is(self, application: Application, *, encoder: str) -> None:
        """The companion that serves holds what is made of each document's present text, and nothing else."""
        serving = companion.find(self.client, self.index, PREFIX)
        if serving is None:
            self.note("no companion")
            return
        name = serving.name
        self.compare("ids of the companion", sorted(application.documents), sorted(_all(self.client, name)))
        self.settings_are_restored(name)
        self._are_enriched(name, application.documents, encoder)

    def settings_are_restored(self, index: str) -> None:
        """What a load changes of an index is as it was, so that searches see what is written later."""
        state = indices.look(self.client, index)
        self.compare("the refresh interval", None, state.settings.get("refresh_interval"))
        self.compare("the note of settings to restore", None, state.mapping.get("_meta", {}).get(NOTE_KEY))

    def _are_enriched(self, index: str, documents: Mapping[str, Written], encoder: str) -> None:
        """Whether each document has a stamp, and in the index the vector of its present text."""
        profile = indices.look(self.client, index).profile
        if profile is None:
            self.note("no profile")
            return
        texts = [enriched_text({name: written.body[name] for name in TEXT_FIELDS}) for written in documents.values()]
        lines: list[dict[str, Any]] = []
        for doc_id, vector in zip(documents, _encoder(encoder).encode(texts, role="passage").tolist(), strict=True):
            conditions = [{"ids": {"values": [doc_id]}}, {"exists": {"field": profile.stamp_field}}]
            query = {"bool": {"must": [compared(profile, vector)], "filter": conditions}}
            lines += [{"index": index}, {"query": query, "_source": False}]
        for doc_id, answer in zip(documents, self.client.msearch(body=lines)["responses"], strict=True):
            hits = answer["hits"]["hits"]
            if not hits or hits[0]["_score"] < SAME_VECTOR:
                score = hits[0]["_score"] if hits else None
                self.note("the vector of another text, or none", doc_id=doc_id, score=score)


def ingest(trial: Trial) -> None:
    """`ingest` of a file into an index that an application writes to, with versions of its own every other time."""
    made = {f"f{number}": _document(trial.chance) for number in range(N_DOCUMENTS)}
    older = [(doc_id, _document(trial.chance)) for doc_id in trial.chance.sample(sorted(made), 5)]
    file = trial.folder / "corpus.jsonl"
    lines = [{"_id": doc_id, **body} for doc_id, body in (*older, *made.items())]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    command = ("ingest", trial.index, str(file), *FIELDS, "--encoder", trial.encoders[0], *_COMMON)
    trial.killed(*command, kills=1)
    if not trial.client.indices.exists(index=trial.index):
        trial.until_complete(*command)
    # After that the application's operations are its own: the file's documents are others.
    application = trial.application(external=trial.is_external, prefix="a")
    with application.writing():
        trial.killed(*command)
    trial.until_complete(*command)
    own = {doc_id: hit for doc_id, hit in _all(trial.client, trial.index).items() if doc_id.startswith("a")}
    trial.compare("documents", {each: w.body for each, w in application.documents.items()}, _sources(own))
    versions = {doc_id: written.version for doc_id, written in application.documents.items()}
    trial.compare("versions", versions, {doc_id: hit["_version"] for doc_id, hit in own.items()})
    filed = {doc_id: Written(body, 1, whole=True) for doc_id, body in made.items()}
    trial.documents_are(filed, encoder=trial.encoders[0], others="a")


def backfill_in_place(trial: Trial) -> None:
    """`backfill --in-place` while the application writes."""
    application = trial.application()
    application.create(N_DOCUMENTS, knn=True)
    command = _backfill(trial, "--in-place", trial.encoders[0])
    with application.writing():
        trial.killed(*command)
    trial.until_complete(*command)
    trial.documents_are(application.documents, encoder=trial.encoders[0])
    trial.versions_are(application, ours=1)


def backfill_beside(trial: Trial) -> None:
    """`backfill --beside` while the application writes, with versions of its own every other time."""
    application = trial.application(external=trial.is_external)
    application.create(N_DOCUMENTS, knn=False)
    command = _backfill(trial, "--beside", trial.encoders[0])
    with application.writing():
        trial.killed(*command)
    trial.until_complete(*command)
    trial.nobody_else_wrote(application)
    trial.companion_is(application, encoder=trial.encoders[0])


def follow_in_place(trial: Trial) -> None:
    """`follow` of an index that was enriched in place."""
    application = trial.application()
    _followed(trial, application, "--in-place")
    trial.documents_are(application.documents, encoder=trial.encoders[0])
    trial.versions_are(application, ours=1)


def follow_beside(trial: Trial) -> None:
    """`follow` of an index with a companion; the application has versions of its own every other time."""
    application = trial.application(external=trial.is_external)
    _followed(trial, application, "--beside")
    trial.nobody_else_wrote(application)
    trial.companion_is(application, encoder=trial.encoders[0])


def _followed(trial: Trial, application: Application, where: str) -> None:
    application.create(N_DOCUMENTS, knn=where == "--in-place")
    made = _backfill(trial, where, trial.encoders[0])
    # What a first run left undone is the follower's, as soon as there is a profile.
    trial.killed(*made, kills=1)
    if Generations.of(trial.client, trial.index, PREFIX).state.profile is None:
        trial.until_complete(*made)
    command = ("follow", trial.index, "--encoder", trial.encoders[0], *_FOLLOW)
    with application.writing():
        trial.killed(*command)
    trial.until_complete(*command, "--once")


def generation_switch(trial: Trial) -> None:
    """`generation fill`, `cutover` and `drop`, each killed, while the application writes; in place."""
    application = trial.application()
    _switched(trial, application, "--in-place")
    trial.documents_are(application.documents, encoder=trial.encoders[1], generation="generation_2")


def generation_switch_beside(trial: Trial) -> None:
    """The same with companions: the second takes the place of the first, which goes."""
    application = trial.application(external=trial.is_external)
    _switched(trial, application, "--beside")
    there = indices.find_all(trial.client, companions_of(trial.index, PREFIX))
    trial.compare("companions", [companion_of(trial.index, PREFIX, 2)], sorted(there))
    trial.nobody_else_wrote(application)
    trial.companion_is(application, encoder=trial.encoders[1])


def _switched(trial: Trial, application: Application, where: str) -> None:
    application.create(N_DOCUMENTS, knn=where == "--in-place")
    trial.until_complete(*_backfill(trial, where, trial.encoders[0]))
    fill = ("generation", "fill", trial.index, "--encoder", trial.encoders[1], *_COMMON)
    cutover = ("generation", "cutover", trial.index, "--force", "--max-missing", "1000", "--min-recall", "0")
    drop = ("generation", "drop", trial.index, "--yes")

    def standing() -> IndexState:
        return Generations.of(trial.client, trial.index, PREFIX).state

    def is_cut_over() -> bool:
        return (profile := standing().profile) is not None and profile.generation == 2

    def is_dropped() -> bool:
        return standing().beside is None

    with application.writing():
        trial.killed(*fill, kills=3)
    trial.until_complete(*fill)
    with application.writing():
        trial.killed(*cutover, kills=1, is_over=is_cut_over)
        if not is_cut_over():
            trial.until_complete(*cutover, is_over=is_cut_over)
        trial.killed(*drop, kills=1, is_over=is_dropped)
    if not is_dropped():
        trial.until_complete(*drop, is_over=is_dropped)
    trial.until_complete(*_backfill(trial, where, trial.encoders[1]))
    profile = standing().profile
    trial.compare("the serving generation", 2, profile.generation if profile else None)


def _backfill(trial: Trial, where: str, encoder: str) -> tuple[str, ...]:
    return ("backfill", trial.index, where, *FIELDS, "--encoder", encoder, *_COMMON)


WAYS = (
    ingest,
    backfill_in_place,
    backfill_beside,
    follow_in_place,
    follow_beside,
    generation_switch,
    generation_switch_beside,
)
_COMMON = ("--threads", "1", "--quiet", "--no-expansion")
_FOLLOW = ("--threads", "1", "--quiet")
_ENCODERS: dict[str, Encoder] = {}


def run(findings: Findings, n_kills: int, until: float = float("inf"), *, only: int | None = None) -> None:
    """Trials of the findings' seed until so many kills hit, or so many seconds are over; or the one trial `only`."""
    with _ground() as (node, folder, encoders):
        environment = {
            "BRIDGE_CLUSTER__URL": node.url,
            "BRIDGE_INGEST__BULK_DOCUMENTS": "5",
            "BRIDGE_INGEST__FOLLOW_INTERVAL_S": "0.1",
            "BRIDGE_INGEST__GENERATOR": "",
            "BRIDGE_INGEST__THREADS": "1",
            # No sidecar: what a cutover says of it is expected, and forced.
            "BRIDGE_PROXY__SIDECAR_URL": "http://127.0.0.1:9",
            "XDG_STATE_HOME": str(folder / "state"),
        }
        commands = Commands(environment, folder)
        durations: dict[str, float] = {}
        with client_of(node.url) as client:
            while findings.figures["kills"] < n_kills and time.monotonic() < until:
                number = findings.next if only is None else only
                trial = Trial(
                    number,
                    client,
                    commands,
                    folder,
                    random.Random(f"{findings.seed}:{number}"),
                    findings,
                    encoders,
                    durations,
                    index=f"kills-{number}",
                )
                _one(trial)
                if only is not None:
                    break
                findings.next = number + 1
                findings.figures["trials"] += 1
                findings.save()
                findings.progress(f"kill {findings.figures['kills']} of {n_kills}, trial {number}")


def _one(trial: Trial) -> None:
    before = trial.findings.figures["kills"]
    way = WAYS[trial.number % len(WAYS)]
    try:
        way(trial)
    except Exception as error:  # noqa: BLE001 it is a finding, and the next trial has an index of its own
        trial.note(f"broken off by {type(error).__name__}", error=str(error)[:2000])
    trial.findings.figures[f"kills of {way.__name__}"] += trial.findings.figures["kills"] - before
    for name in (trial.index, *companions_of(trial.index, PREFIX)):
        with suppress(NotFoundError):
            trial.client.indices.delete(index=name)


@contextmanager
def _ground() -> Iterator[tuple[EmbeddedNode, Path, tuple[str, str]]]:
    """A node, a folder, and two encoders that put words elsewhere."""
    with (
        tempfile.TemporaryDirectory() as name,
        campaign_node() as node,
    ):
        folder = Path(name)
        first = make_toy_encoder(folder / "first")
        second = make_toy_encoder(folder / "second", ["first", *WORDS])
        yield node, folder, (str(first.path), str(second.path))


def _encoder(path: str) -> Encoder:
    if path not in _ENCODERS:
        _ENCODERS[path] = Encoder.load(resolve(path), threads=1)
    return _ENCODERS[path]


def _name(arguments: Sequence[str]) -> str:
    """A command's name, with that of its subcommand."""
    return " ".join(arguments[: 2 if arguments[0] == "generation" else 1])


def _document(chance: random.Random) -> dict[str, Any]:
    return {"title": " ".join(chance.choices(WORDS, k=3)), "text": " ".join(chance.choices(WORDS, k=12)), "stock": 1}


def _all(client: OpenSearch, index: str) -> dict[str, dict[str, Any]]:
    """Every document of an index, by id."""
    client.indices.refresh(index=index)
    hits = client.search(index=index, body={"size": 10_000, "version": True, "query": {"match_all": {}}})["hits"][
        "hits"
    ]
    return {hit["_id"]: hit for hit in hits}


def _sources(hits: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {doc_id: hit["_source"] for doc_id, hit in hits.items()}


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)[:3000]
