"""One adaptation of an index's models, from documents to verdict.

Each step stores its result in the run's folder, so an interrupted run continues from there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event

import msgspec
from opensearchpy import OpenSearch

from bridge.adaptation.comparison import Difference, HeldOutQueries
from bridge.adaptation.index_texts import IndexedText, IndexTexts
from bridge.adaptation.making import Kind, Recipe, make
from bridge.adaptation.training_pairs import judged_pairs, predicted_pairs, title_pairs, without_queries, write_pairs
from bridge.cluster.generations import Generations, next_generation
from bridge.console import Display
from bridge.errors import CheckpointUnusable
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.memory import Vectors
from bridge.models.artifact import ModelFolder, resolve, resolve_identity
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.query_generator import QueryGenerator
from bridge.models.session import compute_threads
from bridge.profile import IndexProfile, Stage
from bridge.settings import IngestServerSettings, IngestSettings
from bridge.training.data import LabelledPair, read_pairs, write_value
from bridge.training.mining import hardest, mine_candidates, without_overlaps
from bridge.training.run_folder import CANDIDATES, LOGITS
from bridge.training.teachers import teacher_logits
from ingest.books.ledger import Progress, Report
from ingest.job import Job
from ingest.runs.backfill import run_backfill
from ingest.runs.beside import run_beside
from ingest.stages.expansion import QueryFilter
from ingest.stages.models import load_models, profile_for

DEFAULT_GENERATOR = "doc2query-small"


@dataclass(frozen=True, slots=True)
class ServingModels:
    """The opened models that serve an index now. An adapted model learns from them and is compared with them. `keep`:
    the filter of predicted queries by the cross-encoder."""

    encoder: Encoder
    cross_encoder: CrossEncoder
    cross_encoder_folder: ModelFolder
    generator: QueryGenerator
    keep: QueryFilter


def serving_models(profile: IndexProfile, settings: IngestSettings) -> ServingModels:
    """Opens the models; the default generator if the index has no predicted queries.

    Raises:
        ModelError: a model is missing, fails to open, or is not the one that enriched the index.
    """
    threads = settings.threads
    reader = resolve(profile.rerank.model)
    cross_encoder = CrossEncoder.load(reader, threads=threads)
    generator = resolve(DEFAULT_GENERATOR)
    if profile.generator:
        generator = resolve_identity(
            profile.generator.identity, settings.generator or DEFAULT_GENERATOR, setting="ingest.generator"
        )
    encoder = resolve_identity(profile.encoder.identity, settings.encoder, setting="ingest.encoder")
    return ServingModels(
        encoder=Encoder.load(encoder, threads=threads),
        cross_encoder=cross_encoder,
        cross_encoder_folder=reader,
        generator=QueryGenerator.load(generator, threads=threads),
        keep=QueryFilter(cross_encoder, threshold=settings.filter_threshold, threads=compute_threads(threads)),
    )


class Choices(msgspec.Struct, frozen=True):
    """The operator's choices. An interrupted adaptation continues only with the same ones."""

    recipe: Recipe
    documents: int
    queries_per_passage: int


class Verdict(msgspec.Struct, frozen=True):
    """The result for one model: the folder of its int8 form and its differences by stage. The last stage decides."""

    kind: Kind
    model: str
    differences: list[Difference]
    helps: bool


@dataclass(frozen=True)
class Subject:
    """The index and models to adapt. `excluded`: documents that must not be learnt from; `learnt`: judgements or
    clicks to learn from."""

    index: str
    profile: IndexProfile
    texts: IndexTexts
    models: ServingModels
    held_out: JudgedQueries
    excluded: frozenset[str]
    learnt: JudgedQueries | None


class Adaptation:
    """The steps of an adaptation. Each works on the results of the one before in `folder`."""

    def __init__(self, folder: Path, choices: Choices, subject: Subject, display: Display) -> None:
        self._folder = folder
        self._choices = choices
        self._subject = subject
        self._display = display
        self._source = f"index-{subject.index}"

    def verdicts(self, kinds: Sequence[Kind], *, min_gain: float) -> list[Verdict]:
        """Trains and measures each kind of model.

        Raises:
            CheckpointUnusable: the folder holds an adaptation with other choices.
            UsageError: the index yields too few training pairs.
            BridgeError: as raised by reading the index and by the models.
        """
        self._claim()
        pairs = self._pairs()
        self._prepare(pairs, [self._folder / kind for kind in kinds])
        return [self._verdict(kind, self._model(kind, pairs), min_gain) for kind in kinds]

    def _claim(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        file, chosen = self._folder / "choices.json", msgspec.json.encode(self._choices)
        if not file.exists():
            file.write_bytes(chosen)
        elif file.read_bytes() != chosen:
            raise CheckpointUnusable(
                f"{self._folder} holds an adaptation with other choices: {file.read_text(encoding='utf-8')}; repeat "
                f"these to go on with it, or name another --state-folder"
            )

    @cached_property
    def _sample(self) -> list[IndexedText]:
        with self._display.step(f"Read documents of {self._subject.index}"):
            sampled = self._subject.texts.sample(self._choices.documents)
            return [text for text in sampled if text.doc_id not in self._subject.excluded]

    def _pairs(self) -> list[LabelledPair]:
        folder = self._folder / "pairs"
        file = folder / f"{self._source}.jsonl"
        if not file.exists():
            folder.mkdir(exist_ok=True)
            pairs = [*self._judged(), *title_pairs(self._sample, source=self._source), *self._predicted()]
            unfinished = file.with_suffix(".partial")
            write_pairs(without_queries(pairs, self._subject.held_out), unfinished)
            unfinished.rename(file)
        return read_pairs(folder)

    def _judged(self) -> list[LabelledPair]:
        learnt = self._subject.learnt
        if learnt is None:
            return []
        relevant = {doc_id for grades in learnt.qrels.values() for doc_id, grade in grades.items() if grade > 0}
        documents = {text.doc_id: text for text in self._subject.texts.by_id(sorted(relevant))}
        return judged_pairs(learnt, documents, self._subject.models.cross_encoder, source=self._source)

    def _predicted(self) -> list[LabelledPair]:
        models = self._subject.models
        with self._display.progress("Predict queries", sum(len(text.passages) for text in self._sample)) as show:
            return predicted_pairs(
                self._sample,
                models.generator,
                models.keep,
                n_queries=self._choices.queries_per_passage,
                source=self._source,
                on_passages=show,
            )

    def _prepare(self, pairs: Sequence[LabelledPair], runs: Sequence[Path]) -> None:
        """Stores the mined candidates and the serving cross-encoder's logits in the folder of each run."""
        if all((run / LOGITS).exists() for run in runs):
            return
        size, models = self._choices.recipe.preset(), self._subject.models
        with self._display.step(f"Mine negatives for {len(pairs):,} queries"):
            mined = mine_candidates(pairs, models.encoder.encode, depth=size.mining_depth)
            candidates = hardest(without_overlaps(mined), size.taught_per_kind)
        with self._display.step(f"Score them with {models.cross_encoder.identity}"):
            logits = teacher_logits(candidates, [models.cross_encoder_folder])
        for run in runs:
            run.mkdir(exist_ok=True)
            write_value(candidates, run / CANDIDATES)
            write_value(logits, run / LOGITS)

    def _model(self, kind: Kind, pairs: Sequence[LabelledPair]) -> ModelFolder:
        models = self._subject.models
        serving = models.encoder if kind == "encoder" else models.cross_encoder
        with self._display.step(f"Train, export and quantise the {kind.replace('_', '-')}"):
            return make(
                kind,
                self._choices.recipe,
                self._folder,
                pairs,
                index=self._subject.index,
                max_tokens=serving.tokenizer.max_tokens,
            )

    @cached_property
    def _evaluation(self) -> HeldOutQueries:
        """The sampled documents and every judged document."""
        subject = self._subject
        documents = {text.doc_id: text for text in self._sample}
        judged = {doc_id for grades in subject.held_out.qrels.values() for doc_id in grades}
        documents |= {text.doc_id: text for text in subject.texts.by_id(sorted(judged - documents.keys()))}
        return HeldOutQueries(subject.held_out, list(documents.values()), subject.profile)

    @cached_property
    def _serving_vectors(self) -> Vectors:
        return self._evaluation.embed(self._subject.models.encoder)

    def _verdict(self, kind: Kind, model: ModelFolder, min_gain: float) -> Verdict:
        with self._display.step(f"Measure it with {len(self._subject.held_out.queries):,} held-out queries"):
            evaluation, serving = self._evaluation, self._serving_vectors
            if kind == "encoder":
                adapted = evaluation.embed(Encoder.load(model))
                stages: list[Stage] = ["vector", "hybrid"]
                differences = [
                    evaluation.difference(stage, evaluation.rank(stage, serving), evaluation.rank(stage, adapted))
                    for stage in stages
                ]
            else:
                before = evaluation.rank("rerank", serving, self._subject.models.cross_encoder)
                after = evaluation.rank("rerank", serving, CrossEncoder.load(model))
                differences = [evaluation.difference("rerank", before, after)]
        return Verdict(kind, str(model.path), differences, differences[-1].helps(min_gain=min_gain))


def install_encoder(
    client: OpenSearch,
    standing: Generations,
    profile: IndexProfile,
    model: Path,
    settings: IngestSettings,
    *,
    prefix: str,
    state_folder: Path,
    on_progress: Callable[[Progress], None],
    stopped: Event,
) -> tuple[int, Report]:
    """Fills a new generation of an adapted encoder's vectors next to the serving one, in place or beside as that, or
    continues filling it, and returns its number with the report. Searches use it only after
    `neural-bridge generation cutover`. The generator stays that of `profile` if the settings name it.

    Raises:
        IndexUnsuitable: another generation is already being filled.
        BridgeError: as raised by `run_backfill` and `run_beside`.
    """
    generator = settings.generator if profile.generator else None
    # No server runs the new model yet, so this process runs it.
    made_with = settings.model_copy(
        update={"encoder": str(model), "generator": generator, "server": IngestServerSettings()}
    )
    models = load_models(made_with)
    names = profile.text_fields
    wanted = next_generation(standing.state, profile_for(models, names, passages=profile.passages))
    job = Job(
        standing.index,
        profile=wanted,
        models=models,
        client=client,
        settings=made_with,
        state_folder=state_folder,
        on_progress=on_progress,
        stopped=stopped,
    )
    report = run_beside(job, prefix).report if wanted.beside else run_backfill(job).report
    return wanted.generation, report
