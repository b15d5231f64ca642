"""`neural-bridge adapt`: fine-tune the models on the documents of an index, and keep those that help there."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.commands import CLUSTER, INDEX, JSON, QUIET, progress_display, require_packages, say, settings_of, show
from bridge.commands.options.signature import EXISTING_FILE, EXISTING_FOLDER, FOLDER, cli_command, option
from bridge.errors import IndexUnsuitable

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from bridge.adaptation.adaptation import Choices, Subject, Verdict
    from bridge.cluster.generations import Generations
    from bridge.evaluation.judged_queries import JudgedQueries
    from bridge.profile import IndexProfile
    from bridge.settings import Settings

NONE_HELPS = 1
"""Exit code."""


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """What is adapted, from what, and how."""

    base: Path = option(
        "--base", required=True, type=EXISTING_FOLDER, help="Starting checkpoint (a BERT in transformers format)."
    )
    rerank_base: Path | None = option(
        "--rerank-base",
        type=EXISTING_FOLDER,
        help="Starting checkpoint of the cross-encoder, if not --base: a trained one, in transformers format.",
    )
    kinds: tuple[str, ...] = option(
        "--model",
        type=click.Choice(["encoder", "cross_encoder"]),
        multiple=True,
        default=("encoder", "cross_encoder"),
        help="What to adapt; repeatable.",
    )
    pooling: str = option(
        "--pooling", type=click.Choice(["mean", "cls"]), default="mean", help="How token vectors become one."
    )
    documents: int = option(
        "--documents", type=click.IntRange(1, 10_000), default=2000, help="Documents to learn from."
    )
    queries_per_passage: int = option(
        "--queries", type=click.IntRange(min=1), default=3, help="Queries to predict per passage."
    )
    learn: Path | None = option(
        "--learn", type=EXISTING_FILE, help="Judgements or clicks to learn from (CSV: query, docid, rating)."
    )
    judgements: Path | None = option(
        "--judgements", type=EXISTING_FILE, help="Judgements to measure with; never learnt from."
    )
    held_out: int = option(
        "--held-out",
        type=click.IntRange(min=10),
        default=200,
        help="Without --judgements: predicted questions to measure with, from documents that are not learnt from.",
    )
    size: str = option(
        "--size",
        type=click.Choice(["smoke", "cpu", "gpu"]),
        default="cpu",
        help="Batch sizes for this hardware; smoke only tests the setup.",
    )
    minutes: float = option(
        "--minutes", type=click.FloatRange(min=0.1), default=30.0, help="Training time of each model."
    )
    licence: str = option("--licence", default="as its base", help="Licence of the adapted weights.")
    min_gain: float = option(
        "--min-gain", type=click.FloatRange(0, 1), default=0.01, help="Smallest gain of nDCG@10 that counts as help."
    )


@cli_command("adapt")
def command(
    ctx: click.Context,
    *,
    index: str = INDEX,
    options: AdaptOptions,
    no_install: bool = option("--no-install", help="Write nothing to the cluster."),
    state_folder: Path | None = option("--state-folder", type=FOLDER, help="Folder for all files of the run."),
    quiet: bool = QUIET,
    cluster_url: str | None = CLUSTER,
    as_json: bool = JSON,
) -> None:
    """Fine-tune encoder and cross-encoder on the documents of INDEX, and keep those that help (extra: train).

    Queries are predicted for a sample of documents and filtered by the serving cross-encoder; titles and the
    pairs of --learn are added; negatives are mined by BM25 and by the serving encoder. The trained models and the
    serving ones then rank the sample and all judged documents for queries that were not learnt from. A model
    helps if it gains --min-gain and passes the rule of `neural-bridge gate`. An encoder that helps is installed
    as a generation beside the one that serves searches. Rerun the command after an interruption.

    \b
    Exit codes: 0 a model helps
                1 none helps, nothing was installed
                2 usage
                3 some documents are dead letters
                4 no connection or no permission
    """
    settings = settings_of(ctx, cluster={"url": cluster_url})
    needed = ("torch", "transformers", "bm25s", "ir_measures")
    require_packages("adapting", needed, "train,evaluate,ctranslate2")
    from bridge.adaptation.adaptation import Adaptation
    from bridge.cluster.connection import connect
    from bridge.cluster.generations import Generations
    from bridge.folders import default_state_folder

    with connect(settings.cluster) as client:
        standing = Generations.of(client, index, settings.companion.prefix)
        profile = standing.state.profile
        if profile is None:
            raise IndexUnsuitable(
                f"index {index} is not enriched, which adapting needs: start with `neural-bridge backfill {index}`"
            )
        if not profile.has_vectors and "encoder" in options.kinds:
            raise IndexUnsuitable(
                f"index {index} holds no vectors: adapt the cross-encoder alone, --model cross_encoder"
            )
        folder = state_folder or default_state_folder("adapt", standing.index)
        subject = _subject(client, standing, profile, settings, options)
        verdicts = Adaptation(folder, _choices(options), subject, progress_display(quiet=quiet)).verdicts(
            list(dict.fromkeys(options.kinds)),  # type: ignore[arg-type]  # click checked them
            min_gain=options.min_gain,
        )
        for verdict in verdicts:
            if not as_json:
                say(_verdict_in_words(verdict))
        installed = None
        encoder = next((one for one in verdicts if one.kind == "encoder" and one.helps), None)
        if encoder is not None and not no_install:
            installed = _install(ctx, client, standing, profile, settings, Path(encoder.model), folder, quiet=quiet)
    helps = any(verdict.helps for verdict in verdicts)
    import msgspec

    judged = subject.held_out
    if not as_json:
        say(*judged.remarks, err=True)
    show(
        {
            "index": standing.index,
            "judgements": judged.source,
            "queries": len(judged.queries),
            "remarks": list(judged.remarks),
            "helps": helps,
            "models": msgspec.to_builtins(verdicts),
            "generation": installed,
        },
        _conclusion(index, verdicts, installed),
        as_json=as_json,
        indent=None,
    )
    ctx.exit(0 if helps else NONE_HELPS)


def _subject(
    client: "OpenSearch", standing: "Generations", profile: "IndexProfile", settings: "Settings", options: AdaptOptions
) -> "Subject":
    from bridge.adaptation.adaptation import Subject, serving_models
    from bridge.adaptation.index_texts import IndexTexts
    from bridge.evaluation.judgement_files import read_judgement_list
    from bridge.text import split_passages

    models = serving_models(profile, settings.ingest)
    spans = models.encoder.tokenizer.token_offsets
    held_out, excluded = _held_out(client, standing, profile, settings, options)
    return Subject(
        index=standing.index,
        profile=profile,
        texts=IndexTexts(client, standing.index, profile, lambda text: split_passages(text, profile.passages, spans)),
        models=models,
        held_out=held_out,
        excluded=excluded,
        learnt=read_judgement_list(options.learn) if options.learn else None,
    )


def _held_out(
    client: "OpenSearch", standing: "Generations", profile: "IndexProfile", settings: "Settings", options: AdaptOptions
) -> "tuple[JudgedQueries, frozenset[str]]":
    """Queries to measure with, and the documents that must not be learnt from."""
    from bridge.evaluation.judgement_files import read_judgement_list
    from bridge.evaluation.label_free import predict_questions

    if options.judgements is not None:
        return read_judgement_list(options.judgements), frozenset()
    questions = predict_questions(
        client, standing.holder(profile), profile, settings.ingest, n_questions=options.held_out
    )
    return questions, frozenset(doc_id for grades in questions.qrels.values() for doc_id in grades)


def _choices(options: AdaptOptions) -> "Choices":
    from bridge.adaptation.adaptation import Choices
    from bridge.adaptation.making import Recipe

    recipe = Recipe(
        base=str(options.base.resolve()),
        rerank_base=str(options.rerank_base.resolve()) if options.rerank_base else None,
        pooling=options.pooling,  # type: ignore[arg-type]  # click checked it
        size=options.size,
        minutes=options.minutes,
        licence=options.licence,
    )
    return Choices(recipe, options.documents, options.queries_per_passage)


def _install(
    ctx: click.Context,
    client: "OpenSearch",
    standing: "Generations",
    profile: "IndexProfile",
    settings: "Settings",
    model: Path,
    folder: Path,
    *,
    quiet: bool,
) -> int:
    from bridge.adaptation.adaptation import install_encoder
    from bridge.commands.options.enrich import end, shown_progress
    from ingest.signals import stop_on_signals

    title = f"the adapted encoder of {standing.index}"
    with stop_on_signals() as request, shown_progress(title, quiet=quiet) as on_progress:
        generation, report = install_encoder(
            client,
            standing,
            profile,
            model,
            settings.ingest,
            prefix=settings.companion.prefix,
            state_folder=folder / "generation",
            on_progress=on_progress,
            stopped=request.stopped,
        )
    if not report.complete or report.exit_code:
        say(str(report), err=True)
        end(ctx, request, report)
    return generation


def _verdict_in_words(verdict: "Verdict") -> str:
    lines = [f"{verdict.kind}: {verdict.model}"]
    for each in verdict.differences:
        lines.append(
            f"  {each.stage}: nDCG@10 {each.serving_mean:.3f} → {each.adapted_mean:.3f}, difference "
            f"{each.difference:+.3f} [{each.low:+.3f}, {each.high:+.3f}], p {each.p_value:.3f}"
        )
    return "\n".join([*lines, f"  {'it helps' if verdict.helps else 'it does not help'}"])


def _conclusion(index: str, verdicts: "list[Verdict]", installed: int | None) -> str:
    lines = []
    if installed is not None:
        lines.append(
            f"generation {installed} is filled with the adapted encoder: name it in sidecar.more_encoders, then run "
            f"`neural-bridge generation cutover {index}`"
        )
    if reranker := next((one for one in verdicts if one.kind == "cross_encoder" and one.helps), None):
        lines.append(f"to rerank with the adapted cross-encoder, set sidecar.rerank_model to {reranker.model}")
    return "\n".join(lines) or f"no adapted model helps the searches of {index}: they go on as they are"
