"""`neural-bridge adapt`: models that learn from an index's own documents, kept only where they help there."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.commands import settings_of
from bridge.commands.index import cluster_option, json_option
from bridge.commands.options.enrich import collected_as
from bridge.errors import IndexUnsuitable, UsageError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from bridge.adaptation.adaptation import Choices, Subject, Verdict
    from bridge.cluster.index import IndexState
    from bridge.console import Display
    from bridge.evaluation.judged_queries import JudgedQueries
    from bridge.profile import IndexProfile
    from bridge.settings import Settings

HELPS_NOT = 1
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options say; the fields are the options' own names."""

    base: Path
    rerank_base: Path | None
    kinds: tuple[str, ...]
    pooling: str
    documents: int
    queries_per_passage: int
    learn: Path | None
    judgements: Path | None
    held_out: int
    size: str
    minutes: float
    licence: str
    min_gain: float


_OPTIONS = [
    click.option("--base", required=True, type=_FOLDER, help="BERT in transformers' layout that the models begin as."),
    click.option(
        "--rerank-base", type=_FOLDER, help="Trained cross-encoder to go on from instead; transformers' layout."
    ),
    click.option(
        "--model",
        "kinds",
        type=click.Choice(["encoder", "cross_encoder"]),
        multiple=True,
        default=("encoder", "cross_encoder"),
        show_default=True,
        help="What to adapt; repeatable.",
    ),
    click.option("--pooling", type=click.Choice(["mean", "cls"]), default="mean", show_default=True),
    click.option(
        "--documents", type=click.IntRange(1, 10_000), default=2000, show_default=True, help="Documents to learn from."
    ),
    click.option(
        "--queries",
        "queries_per_passage",
        type=click.IntRange(min=1),
        default=3,
        show_default=True,
        help="Queries predicted for each passage.",
    ),
    click.option("--learn", type=_FILE, help="Judgements or clicks to learn from: query, docid, rating."),
    click.option("--judgements", type=_FILE, help="Judgements to measure with, and never to learn from."),
    click.option(
        "--held-out",
        type=click.IntRange(min=10),
        default=200,
        show_default=True,
        help="Without --judgements: predicted questions to measure with, of documents that are not learnt from.",
    ),
    click.option("--size", type=click.Choice(["smoke", "cpu", "gpu"]), default="cpu", show_default=True),
    click.option(
        "--minutes", type=click.FloatRange(min=0.1), default=30.0, show_default=True, help="Of training, each model."
    ),
    click.option("--licence", default="as its base", show_default=True, help="Licence of the adapted weights."),
    click.option(
        "--min-gain",
        type=click.FloatRange(0, 1),
        default=0.01,
        show_default=True,
        help="Of nDCG@10: less is no help.",
    ),
]


def _adaptation_options(command: Any) -> Any:
    collected = collected_as(Asked, "asked", command)
    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected


@click.command(name="adapt")
@click.argument("index")
@_adaptation_options
@click.option("--no-install", is_flag=True, help="Write nothing to the cluster.")
@click.option("--state-folder", type=click.Path(path_type=Path, file_okay=False), help="Where all of it is kept.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@cluster_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    index: str,
    asked: Asked,
    no_install: bool,
    state_folder: Path | None,
    quiet: bool,
    cluster_url: str | None,
    as_json: bool,
) -> None:
    """Fine-tune encoder and cross-encoder on the documents of INDEX, and keep what helps (extra: train).

    Queries are predicted for a sample of documents and filtered by the serving cross-encoder; titles and what
    --learn holds are added; negatives are mined by BM25 and by the serving encoder. The trained models rank the
    sample and all judged documents for queries that they never saw, beside the serving ones. One that gains
    --min-gain and passes the gate's rule helps: an encoder is then installed as a generation beside the one that
    serves searches. A run that was stopped is simply run again.

    Exit codes: 0 a model helps; 1 none does, nothing was installed; 2 usage; 3 some documents are dead letters; 4
    no connection or no permission.
    """
    settings = settings_of(ctx, cluster={"url": cluster_url})
    _require_extras()
    from bridge.adaptation.adaptation import Adaptation
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from ingest.state import default_state_folder

    with connect(settings.cluster) as client:
        state = indices.look(client, index)
        if state.profile is None:
            raise IndexUnsuitable(f"index {index} is not enriched: begin with `neural-bridge backfill {index}`")
        if state.profile.vector_type == "none" and "encoder" in asked.kinds:
            raise IndexUnsuitable(
                f"index {index} holds no vectors: adapt the cross-encoder alone, --model cross_encoder"
            )
        folder = state_folder or default_state_folder("adapt", state.name)
        display = _display(quiet=quiet)
        subject = _subject(client, state, state.profile, settings, asked)
        verdicts = Adaptation(folder, _choices(asked), subject, display).verdicts(
            list(dict.fromkeys(asked.kinds)),  # type: ignore[arg-type]  # click checked them
            min_gain=asked.min_gain,
        )
        for verdict in verdicts:
            if not as_json:
                click.echo(_told(verdict))
        installed = None
        encoder = next((one for one in verdicts if one.kind == "encoder" and one.helps), None)
        if encoder is not None and not no_install:
            installed = _install(ctx, client, state, state.profile, settings, Path(encoder.model), folder, quiet=quiet)
    helps = any(verdict.helps for verdict in verdicts)
    if as_json:
        import msgspec

        told = {"index": state.name, "judgements": subject.held_out.source, "queries": len(subject.held_out.queries)}
        more = {"helps": helps, "models": msgspec.to_builtins(verdicts), "generation": installed}
        click.echo(json.dumps({**told, "remarks": list(subject.held_out.remarks), **more}))
    else:
        for remark in subject.held_out.remarks:
            click.echo(remark, err=True)
        click.echo(_conclusion(index, verdicts, installed))
    ctx.exit(0 if helps else HELPS_NOT)


def _require_extras() -> None:
    needed = ("torch", "transformers", "bm25s", "ir_measures")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise UsageError(
            f"adapting needs {', '.join(missing)}: install the extras, "
            f"`pip install 'opensearch-neural-bridge[train,ctranslate2]'`"
        )


def _display(*, quiet: bool) -> "Display":
    from rich.console import Console

    from bridge.console import Display, wide_console

    return Display(Console(stderr=True, quiet=True) if quiet else wide_console(stderr=True))


def _subject(
    client: "OpenSearch", state: "IndexState", profile: "IndexProfile", settings: "Settings", asked: Asked
) -> "Subject":
    from bridge.adaptation.adaptation import Subject
    from bridge.adaptation.index_texts import IndexTexts
    from bridge.adaptation.models_of_index import serving_models
    from bridge.evaluation.judgement_files import read_judgement_list
    from bridge.text.passages import split_passages

    models = serving_models(profile, settings.ingest)
    spans = models.encoder.tokenizer.token_offsets
    held_out, kept_back = _held_out(client, state, profile, settings, asked)
    return Subject(
        index=state.name,
        profile=profile,
        texts=IndexTexts(client, state, profile, lambda text: split_passages(text, profile.passages, spans)),
        models=models,
        held_out=held_out,
        kept_back=kept_back,
        learnt=read_judgement_list(asked.learn) if asked.learn else None,
    )


def _held_out(
    client: "OpenSearch", state: "IndexState", profile: "IndexProfile", settings: "Settings", asked: Asked
) -> "tuple[JudgedQueries, frozenset[str]]":
    """Queries to measure with, and the documents that are not to be learnt from."""
    from bridge.evaluation.judgement_files import read_judgement_list
    from bridge.evaluation.label_free import predict_questions

    if asked.judgements is not None:
        return read_judgement_list(asked.judgements), frozenset()
    questions = predict_questions(client, state.name, profile, settings.ingest, n_questions=asked.held_out)
    return questions, frozenset(doc_id for grades in questions.qrels.values() for doc_id in grades)


def _choices(asked: Asked) -> "Choices":
    from bridge.adaptation.adaptation import Choices
    from bridge.adaptation.making import Recipe

    recipe = Recipe(
        base=str(asked.base.resolve()),
        rerank_base=str(asked.rerank_base.resolve()) if asked.rerank_base else None,
        pooling=asked.pooling,  # type: ignore[arg-type]  # click checked it
        size=asked.size,
        minutes=asked.minutes,
        licence=asked.licence,
    )
    return Choices(recipe, asked.documents, asked.queries_per_passage)


def _install(
    ctx: click.Context,
    client: "OpenSearch",
    state: "IndexState",
    profile: "IndexProfile",
    settings: "Settings",
    model: Path,
    folder: Path,
    *,
    quiet: bool,
) -> int:
    from bridge.adaptation.installation import install_encoder
    from bridge.commands.options.enrich import end
    from ingest.display import shown
    from ingest.signals import stop_on_signals

    with stop_on_signals() as request, shown(f"the adapted encoder in {state.name}", quiet=quiet) as on_progress:
        generation, done = install_encoder(
            client,
            state,
            profile,
            model,
            settings.ingest,
            state_folder=folder / "generation",
            on_progress=on_progress,
            stopped=request.stopped,
        )
    if not done.report.complete or done.report.exit_code:
        click.echo(str(done.report), err=True)
        end(ctx, request, done.report)
    return generation


def _told(verdict: "Verdict") -> str:
    lines = [f"{verdict.kind}: {verdict.model}"]
    for found in verdict.differences:
        lines.append(
            f"  {found.stage}: nDCG@10 {found.serving_mean:.3f} → {found.adapted_mean:.3f}, difference "
            f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}], p {found.p_value:.3f}"
        )
    return "\n".join([*lines, f"  {'it helps' if verdict.helps else 'it does not help'}"])


def _conclusion(index: str, verdicts: "list[Verdict]", installed: int | None) -> str:
    lines = []
    if installed is not None:
        lines.append(
            f"generation {installed} stands beside the one that serves searches: name the encoder in "
            f"sidecar.more_encoders, then `neural-bridge generation cutover {index}`"
        )
    if reranker := next((one for one in verdicts if one.kind == "cross_encoder" and one.helps), None):
        lines.append(f"let the sidecar rerank with it: sidecar.rerank_model {reranker.model}")
    return "\n".join(lines) or f"nothing helps the searches of {index}: they go on as they are"
