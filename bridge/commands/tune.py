"""`neural-bridge tune`: find the settings that serve an index best, within a time budget."""

from contextlib import ExitStack
from pathlib import Path

import click

from bridge.commands import JSON, progress_display, require_packages, settings_of, show
from bridge.commands.evaluate import named_stages
from bridge.commands.options.judgements import JudgementOptions, judged_index
from bridge.commands.options.signature import FILE, cli_command, option

MEASURES = ("ndcg@10", "mrr@10", "recall@100")


@cli_command("tune")
def command(
    ctx: click.Context,
    *,
    judgements: JudgementOptions,
    measure: str = option("--measure", type=click.Choice(MEASURES), default="ndcg@10", help="What to maximise."),
    budget_ms: float | None = option(
        "--budget-ms",
        type=click.FloatRange(min=0, min_open=True),
        help="Longest time of a search (estimated 95th percentile).",
    ),
    stages: str | None = option(
        "--stages", help="Stages to choose from, comma-separated. Defaults to all that the gate passed."
    ),
    folds: int = option("--folds", type=click.IntRange(2, 20), default=5, help="Parts for the cross-validation."),
    plot_file: Path | None = option("--plot", type=FILE, help="Write a picture (PNG)."),
    apply_it: bool = option("--apply", help="Write the settings into the index."),
    as_json: bool = JSON,
) -> None:
    """Find the fusion, weights, window, rerank depth and blending that serve an index's judged queries best.

    Every leg is asked once and every document is read once; hundreds of settings are then tried on the answers.
    What the chosen setting is worth is measured by cross-validation. Stages that the gate did not pass are not
    tried. Without --apply nothing is written.
    """
    wanted = named_stages(stages) if stages is not None else None
    if plot_file is not None:
        require_packages("--plot", ["matplotlib"], "plot")
    import msgspec

    from bridge.processes.services import small_model_by_name

    display = progress_display()
    servers = small_model_by_name(settings_of(ctx).sidecar)
    with judged_index(ctx, judgements, display, servers=servers) as subject:
        from bridge.cluster.index import put_profile
        from bridge.evaluation.stages import REPORTED
        from bridge.evaluation.tuning.beside import proxy_searches
        from bridge.evaluation.tuning.report import front_table, in_words, plot_front
        from bridge.evaluation.tuning.tuner import Tuner, tuned

        index = subject.index
        with ExitStack() as running:
            sidecar = running.enter_context(index.servers.sidecar_client())
            beside = index.profile.beside is not None
            searches = running.enter_context(proxy_searches(index.settings)) if beside else None
            tuner = Tuner(
                index.cluster,
                sidecar,
                index.name,
                index.profile,
                subject.judged,
                subject.body_of,
                measure=REPORTED[measure],
                display=display,
                stages=None if wanted is None else frozenset(wanted),
                folds=folds,
                searches=searches,
            )
            chosen, front = tuner.run(budget_ms)
        record = tuner.record(chosen, front)
        if apply_it:
            put_profile(index.cluster, index.profile_in, lambda profile: tuned(profile, chosen.setting, record))
    if plot_file is not None:
        plot_front(plot_file, f"{subject.name}: what time buys", REPORTED[measure], front, chosen)
    summary = {"index": index.name, "setting": str(chosen.setting), "p_value": round(chosen.p_value, 4)}
    show(
        {**summary, **msgspec.to_builtins(record), "written": apply_it},
        front_table(front, record),
        in_words(tuner.default, chosen, record),
        "written to the index" if apply_it else "nothing was written; --apply writes the chosen setting",
        as_json=as_json,
        indent=None,
    )
