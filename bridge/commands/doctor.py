"""`neural-bridge doctor`: can the bridge work with this cluster, and what should be put right?"""

import json
from typing import TYPE_CHECKING

import click

from bridge.commands import settings_of
from bridge.commands.index import json_option

if TYPE_CHECKING:
    from bridge.cluster.diagnosis import Diagnosis, EnrichedIndex, Finding

_MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
_TIMEOUT_S = 5.0


@click.command(name="doctor")
@click.argument("url", required=False)
@json_option
@click.pass_context
def command(ctx: click.Context, url: str | None, as_json: bool) -> None:
    """Examine the cluster at URL, or at `cluster.url`: what it can do, what keeps the bridge from working.

    Also looks at the sidecar that the proxy would ask, and whether its encoder is the one of each enriched
    index. Nothing is written.

    Exit codes: 0 nothing is in the way; 1 something must be put right; 2 usage; 4 no connection or no
    permission.
    """
    settings = settings_of(ctx, cluster={"url": url})
    import msgspec

    from bridge.cluster.connection import connect
    from bridge.cluster.diagnosis import examine

    with connect(settings.cluster) as client:
        found = examine(client, settings)
    findings = [*found.findings, *_sidecar(settings.proxy.sidecar_url, found.indices)]
    found = msgspec.structs.replace(found, findings=findings)
    if as_json:
        click.echo(json.dumps({**msgspec.to_builtins(found), "fit": found.is_fit}, indent=2))
    else:
        click.echo(_told(found))
    ctx.exit(0 if found.is_fit else 1)


def _told(found: "Diagnosis") -> str:
    lines = [f"{found.cluster}: {found.distribution} {found.version}{' serverless' if found.serverless else ''}"]
    for finding in found.findings:
        lines.append(f"  {_MARKS[finding.level]} {finding.subject}: {finding.told}")
        if finding.remedy:
            lines.append(f"          → {finding.remedy}")
    return "\n".join(lines)


def _sidecar(url: str, indices: "list[EnrichedIndex]") -> "list[Finding]":
    """Whether the sidecar answers, and embeds queries as the documents were embedded."""
    import requests

    from bridge.cluster.diagnosis import Finding

    try:
        with requests.Session() as session:
            session.trust_env = False
            info = session.get(f"{url.rstrip('/')}/info", timeout=_TIMEOUT_S).json()
        encoders = [str(encoder) for encoder in info.get("embedding_model_ids") or [info["embedding_model_id"]]]
    except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError) as error:
        told = f"does not answer at {url} ({type(error).__name__}): searches are neither embedded nor reranked"
        return [
            Finding("note", "sidecar", told, "start it with `neural-bridge serve rerank`, or see proxy.sidecar_url")
        ]
    return encoder_findings(url, encoders, str(info.get("model_id")), indices)


def encoder_findings(url: str, encoders: "list[str]", reranker: str, indices: "list[EnrichedIndex]") -> "list[Finding]":
    """Whether a sidecar that embeds by `encoders` can serve the indices, now and after their change of models."""
    from bridge.cluster.diagnosis import Finding

    names = ", ".join(encoders)
    with_vectors = [each for each in indices if each.vector_type != "none"]
    findings = []
    if others := [each.name for each in with_vectors if each.encoder not in encoders]:
        told = f"embeds queries by {names}, the documents of {', '.join(others)} by another: no vectors there"
        findings.append(
            Finding("problem", "sidecar", told, "name the index's encoder in sidecar.encoder or more_encoders")
        )
    else:
        findings.append(Finding("ok", "sidecar", f"answers at {url}; embeds by {names}, reranks by {reranker}"))
    for each in with_vectors:
        if each.beside and each.beside.encoder not in encoders:
            told = f"does not run {each.beside.encoder}, which made generation {each.beside.generation} of {each.name}"
            remedy = "name it in sidecar.more_encoders before that generation serves searches"
            findings.append(Finding("note", "sidecar", told, remedy))
    return findings
