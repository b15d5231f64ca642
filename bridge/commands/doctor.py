"""`neural-bridge doctor`: can the bridge work with this cluster, and what needs fixing?"""

from typing import TYPE_CHECKING

import click

from bridge.commands import JSON, settings_of, show
from bridge.commands.options.signature import argument, cli_command

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from bridge.cluster.diagnosis import EnrichedIndex, Finding
    from bridge.model_servers.client import SidecarInfo
    from bridge.settings import Settings

_MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
_TIMEOUT_S = 5.0
_LANGUAGE_SAMPLE = 50
"""Documents of an index whose texts are read to know their language."""


@cli_command("doctor")
def command(ctx: click.Context, *, url: str | None = argument(required=False), as_json: bool = JSON) -> None:
    """Check the cluster at URL (the setting cluster.url by default): what it can do and what to fix.

    Says of each index whether it is enriched in place or beside, and how well a companion matches its index. Also
    checks the sidecar that the proxy uses, whether it runs the encoder of each enriched index, and whether that encoder
    reads the language of the texts. Writes nothing.

    \b
    Exit codes: 0 no problem
                1 something needs fixing
                2 usage
                4 no connection or no permission
    """
    settings = settings_of(ctx, cluster={"url": url})
    import msgspec

    from bridge.cluster.connection import connect
    from bridge.cluster.diagnosis import examine

    with connect(settings.cluster) as client:
        diagnosis = examine(client, settings)
        languages = [finding for each in diagnosis.indices for finding in language_findings(client, each)]
    findings = [*diagnosis.findings, *languages, *_sidecar_findings(settings, diagnosis.indices)]
    diagnosis = msgspec.structs.replace(diagnosis, findings=findings)
    lines = [
        f"{diagnosis.cluster}: {diagnosis.distribution} {diagnosis.version}{' serverless' * diagnosis.serverless}",
        *(line for finding in findings for line in _in_words(finding)),
    ]
    show({**msgspec.to_builtins(diagnosis), "fit": diagnosis.is_fit}, *lines, as_json=as_json)
    ctx.exit(0 if diagnosis.is_fit else 1)


def _in_words(finding: "Finding") -> list[str]:
    line = f"  {_MARKS[finding.level]} {finding.subject}: {finding.message}"
    return [line, f"          → {finding.remedy}"] if finding.remedy else [line]


def language_findings(client: "OpenSearch", index: "EnrichedIndex") -> "list[Finding]":
    """Whether the encoder of an index reads the language of its first documents, if its model folder is here."""
    from opensearchpy import OpenSearchException

    from bridge.cluster.diagnosis import Finding
    from bridge.errors import BridgeError
    from bridge.languages import unread_language
    from bridge.models.artifact import resolve
    from bridge.text import field_texts

    try:
        encoder = resolve(index.encoder.partition("@")[0])
        body = {"size": _LANGUAGE_SAMPLE, "_source": index.text_fields}
        hits = client.search(index=index.name, body=body)["hits"]["hits"]
    except (BridgeError, OpenSearchException):
        return []  # other findings tell of an index that cannot be read, and of a model that is not here
    texts = ("\n".join(field_texts(hit.get("_source") or {}, index.text_fields).values()) for hit in hits)
    unread = unread_language(texts, encoder.manifest.languages, encoder.manifest.name)
    if unread is None or index.vector_type == "none":
        return []
    message, _, remedy = unread.partition(": ")
    return [Finding("note", f"index {index.name}", message, remedy)]


def _sidecar_findings(settings: "Settings", indices: "list[EnrichedIndex]") -> "list[Finding]":
    """Whether the sidecar answers, and embeds queries with the encoders of the documents."""
    from bridge.cluster.diagnosis import Finding
    from bridge.errors import SidecarError
    from bridge.model_servers.client import ModelServer
    from bridge.settings import masked

    url, key = settings.proxy.sidecar_url, settings.sidecar.api_key
    server = ModelServer(url, api_key=key.get_secret_value() if key else None, timeout_s=_TIMEOUT_S)
    try:
        info = server.info()
    except SidecarError as error:
        message = f"does not answer at {masked(url)}, so searches are neither embedded nor reranked: {error}"
        return [
            Finding("note", "sidecar", message, "start it with `neural-bridge serve rerank`, or set proxy.sidecar_url")
        ]
    return encoder_findings(masked(url), info, indices)


def encoder_findings(url: str, info: "SidecarInfo", indices: "list[EnrichedIndex]") -> "list[Finding]":
    """Whether a sidecar can serve the indices, now and after their change of models."""
    from bridge.cluster.diagnosis import Finding

    encoders = info.embedding_model_ids
    with_vectors = [each for each in indices if each.vector_type != "none"]
    findings = []
    if others := [each.name for each in with_vectors if each.encoder not in encoders]:
        message = (
            f"embeds queries with {', '.join(encoders)}, but the documents of {', '.join(others)} were embedded with "
            f"another encoder: searches have no vectors there"
        )
        remedy = "name the index's encoder in sidecar.encoder or sidecar.more_encoders"
        findings.append(Finding("problem", "sidecar", message, remedy))
    else:
        reranker = next(iter(info.rerank_model_ids), "no model")
        message = f"answers at {url}; embeds with {', '.join(encoders)}, reranks with {reranker}"
        findings.append(Finding("ok", "sidecar", message))
    for each in indices:
        if each.sparse_encoder and each.sparse_encoder not in info.sparse_model_ids:
            message = f"does not run {each.sparse_encoder}: searches of {each.name} do not use its weighted terms"
            findings.append(Finding("note", "sidecar", message, "name it in sidecar.sparse_encoders"))
        if each.image_encoder and each.image_encoder not in encoders:
            message = f"does not run {each.image_encoder}: searches of {each.name} do not find pictures"
            findings.append(Finding("note", "sidecar", message, "name it in sidecar.more_encoders"))
    for each in with_vectors:
        if each.beside and each.beside.encoder not in encoders:
            message = (
                f"does not run {each.beside.encoder}, the encoder of generation {each.beside.generation} of {each.name}"
            )
            remedy = "name it in sidecar.more_encoders before that generation serves searches"
            findings.append(Finding("note", "sidecar", message, remedy))
    return findings
