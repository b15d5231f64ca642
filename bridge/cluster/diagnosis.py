"""Checks a cluster for what would keep the bridge from working, and names the remedies. Nothing is written.

Each check sends one request and yields findings; a request that this user may not send is a finding too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import msgspec
from opensearchpy import OpenSearch, TransportError

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.completeness import SAMPLE, Completeness, completeness
from bridge.cluster.connection import capabilities, exchange
from bridge.cluster.dialects import Capabilities
from bridge.cluster.field_security import ELASTICSEARCH_ROLES, OPENSEARCH_ROLES, field_rules, uncovered
from bridge.cluster.schema import read_beside
from bridge.errors import BridgeError, IndexUnsuitable
from bridge.node.process import VECTOR_ENGINES_ATTRIBUTE
from bridge.profile import BESIDE_KEY, META_KEY, IndexProfile, profile_of
from bridge.settings import Settings, masked
from bridge.text import decode

Level = Literal["ok", "note", "problem"]
"""ok: as it should be. note: works, and could be better or should be known. problem: keeps the bridge from
working or a cluster from taking documents, or shows somebody a text that is hidden from him."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_REFUSED = (401, 403)


class Finding(msgspec.Struct, frozen=True):
    """The result of one check; `remedy` if something can be done."""

    level: Level
    subject: str
    message: str = msgspec.field(name="told")
    remedy: str | None = None


class Beside(msgspec.Struct, frozen=True):
    """A generation of our fields that stands beside the serving one."""

    generation: int
    enriched: int
    encoder: str


class EnrichedIndex(msgspec.Struct, frozen=True):
    """An index that the bridge serves: how much of it is enriched, by which encoder, up to which stage; `beside`
    while its models change. `companion`: its name, if the index is enriched beside and not in place, and
    `completeness` then says how well the two match."""

    name: str
    documents: int
    enriched: int
    encoder: str
    vector_type: str
    stages: list[str]
    generation: int = 1
    beside: Beside | None = None
    companion: str | None = None
    sparse_encoder: str | None = None
    image_encoder: str | None = None
    completeness: Completeness | None = None
    text_fields: list[str] = []


class Diagnosis(msgspec.Struct, frozen=True):
    """All results. `vector_engines` is empty if the cluster cannot search vectors."""

    cluster: str
    distribution: str
    version: str
    serverless: bool
    plugins: list[str] | None
    vector_engines: list[str]
    indices: list[EnrichedIndex]
    findings: list[Finding]

    @property
    def is_fit(self) -> bool:
        """Whether no finding keeps the bridge from working."""
        return all(finding.level != "problem" for finding in self.findings)


@dataclass(frozen=True, slots=True)
class _Cluster:
    """The cluster under examination."""

    client: OpenSearch
    capabilities: Capabilities
    settings: Settings

    def ask(self, path: str) -> tuple[int, Any]:
        """Status and decoded JSON; None if the answer is no JSON."""
        answer = exchange(self.client, "GET", path)
        try:
            return answer.status, decode(answer.body, Any)
        except msgspec.DecodeError:
            return answer.status, None


def examine(client: OpenSearch, settings: Settings) -> Diagnosis:
    """Runs every check on the cluster of `settings.cluster`, which `client` is connected to.

    Raises:
        ClusterUnreachable, AccessDenied: it answers no request of this user.
        AnswerNotUnderstood: it is neither OpenSearch nor Elasticsearch.
    """
    found = capabilities(client)
    cluster = _Cluster(client, found, settings)
    findings = [finding for check in _CHECKS for finding in check(cluster)]
    enriched = []
    for profile, beside, name in _profiles(cluster, findings):
        if profile.beside is None:
            counted, finding = _counted(cluster, profile, beside, name)
        else:
            counted, finding = _compared(cluster, profile, profile.beside, name)
        findings += [finding, *_shown_after_all(cluster, profile, name)]
        enriched += [counted] if counted else []
    return Diagnosis(
        cluster=masked(settings.cluster.url),
        distribution=found.distribution,
        version=".".join(map(str, found.version)),
        serverless=found.serverless,
        plugins=sorted(found.plugins) if found.plugins is not None else None,
        vector_engines=list(_loadable_engines(cluster)),
        indices=enriched,
        findings=findings,
    )


def _version(cluster: _Cluster) -> Iterator[Finding]:
    if not cluster.capabilities.is_supported:
        remedy = "upgrade to OpenSearch 1.3 or Elasticsearch 7.10, or later"
        yield Finding("problem", "version", f"{cluster.capabilities} is older than the bridge supports", remedy)
    elif cluster.capabilities.serverless:
        message = f"{cluster.capabilities}: it may refuse points in time, settings and refreshes; untested"
        yield Finding("note", "version", message)
    else:
        yield Finding("ok", "version", str(cluster.capabilities))


def _vectors(cluster: _Cluster) -> Iterator[Finding]:
    found = cluster.capabilities
    if not found.has_knn:
        remedy = (
            "install the opensearch-knn plugin on every node"
            if found.distribution == "opensearch"
            else "upgrade to Elasticsearch 8.12 or later"
        )
        message = "cannot search vectors: weighted terms, predicted queries and reranking work, without vectors"
        yield Finding("note", "vectors", message, f"{remedy}; then enrich its indices anew, after `undo`")
        return
    message = f"can be searched; engines: {', '.join(_loadable_engines(cluster))}"
    yield Finding("ok", "vectors", message + (" (assumed: plugins are not shown)" if not found.plugins else ""))


def _loadable_engines(cluster: _Cluster) -> tuple[str, ...]:
    """Engines that every node can load: an embedded node lacks the native libraries of all but Lucene's."""
    engines = cluster.capabilities.vector_engines
    _, answer = cluster.ask(f"/_nodes?filter_path=nodes.*.attributes.{VECTOR_ENGINES_ATTRIBUTE}")
    nodes = answer.get("nodes", {}).values() if isinstance(answer, dict) else ()
    for node in nodes:
        loadable = node["attributes"][VECTOR_ENGINES_ATTRIBUTE].split(",")
        engines = tuple(engine for engine in engines if engine in loadable)
    return engines


def _vector_memory(cluster: _Cluster) -> Iterator[Finding]:
    if cluster.capabilities.plugins and cluster.capabilities.has_knn:
        _, stats = cluster.ask("/_plugins/_knn/stats")
        if isinstance(stats, dict) and stats.get("circuit_breaker_triggered") is True:
            remedy = "give the nodes more memory, or raise knn.memory.circuit_breaker.limit"
            yield Finding("problem", "vector memory", "the k-NN plugin's circuit breaker is open", remedy)


def _health(cluster: _Cluster) -> Iterator[Finding]:
    status, health = cluster.ask("/_cluster/health")
    match health:
        case {"status": "red", "unassigned_shards": count}:
            remedy = "see `GET _cluster/allocation/explain`: reads of such an index are incomplete"
            yield Finding("problem", "health", f"red: {count} shards are nowhere", remedy)
        case {"status": str(colour)}:
            yield Finding("ok", "health", colour)
        case _:
            yield _unseen("health", status)


def _blocks(cluster: _Cluster) -> Iterator[Finding]:
    status, state = cluster.ask("/_cluster/state/blocks")
    if not isinstance(state, dict) or "blocks" not in state:
        yield _unseen("write blocks", status)
        return
    reasons = [block.get("description") for block in state["blocks"].get("global", {}).values()]
    if reasons:
        yield Finding("problem", "write blocks", f"the cluster takes no writes: {', '.join(map(str, reasons))}")
    for index, blocks in state["blocks"].get("indices", {}).items():
        message = f"index {index}: " + ", ".join(str(block.get("description")) for block in blocks.values())
        yield Finding("note", "write blocks", message, "free disk space, or remove the block if it was set by hand")


def _request_size(cluster: _Cluster) -> Iterator[Finding]:
    path = "/_nodes/http?filter_path=nodes.*.http.max_content_length_in_bytes"
    status, nodes = cluster.ask(path)
    if not isinstance(nodes, dict):
        yield _unseen("request size", status)
        return
    limits = [node["http"]["max_content_length_in_bytes"] for node in nodes.get("nodes", {}).values()]
    limit = cluster.settings.ingest.bulk_bytes
    if limits and limit > min(limits):
        message = f"nodes take up to {min(limits):,} bytes, ingest.bulk_bytes is {limit:,}"
        yield Finding("problem", "request size", message, f"set ingest.bulk_bytes to {min(limits) * 3 // 4} or less")
    elif limits:
        yield Finding("ok", "request size", f"nodes take up to {min(limits):,} bytes")


def _identity(cluster: _Cluster) -> Iterator[Finding]:
    elastic = cluster.capabilities.distribution == "elasticsearch"
    status, who = cluster.ask("/_security/_authenticate" if elastic else "/_plugins/_security/authinfo")
    match status, who:
        case 200, {"username": str(user), "roles": list(roles)} | {"user_name": str(user), "roles": list(roles)}:
            yield Finding("ok", "security", f"on; we are {user}, with the roles {', '.join(map(str, roles)) or 'none'}")
        case ((401 | 403), _):
            yield _unseen("security", status)
        case _:
            yield Finding("note", "security", "off: whoever reaches the cluster can read and change everything")


def _transport(cluster: _Cluster) -> Iterator[Finding]:
    settings = cluster.settings.cluster
    address = urlsplit(settings.url)
    if address.scheme == "http" and settings.username is not None and address.hostname not in _LOOPBACK:
        message = f"the password of {settings.username} travels in clear to {address.hostname}"
        yield Finding("problem", "transport", message, "use https:// in cluster.url")
    if address.scheme == "https" and not settings.verify_tls:
        remedy = "name the authority in cluster.ca_file and set cluster.verify_tls"
        yield Finding("note", "transport", "the certificate is not verified: anybody may answer in its place", remedy)


_CHECKS: tuple[Callable[[_Cluster], Iterator[Finding]], ...] = (
    *(_version, _vectors, _vector_memory, _health, _blocks, _request_size, _identity, _transport),
)


def _profiles(cluster: _Cluster, findings: list[Finding]) -> Iterator[tuple[IndexProfile, IndexProfile | None, str]]:
    """Indices that have a profile, with that of a second generation; an unreadable profile becomes a finding."""
    shown = ",".join(f"*.mappings._meta.{key}" for key in (META_KEY, BESIDE_KEY))
    mappings: dict[str, Any] = {}
    # Companions are hidden; other hidden indices may be the cluster's own, which nobody may read.
    ours = f"/{quote(cluster.settings.companion.prefix)}*/_mapping?expand_wildcards=all&filter_path={shown}"
    for subject, path in (("indices", f"/_mapping?filter_path={shown}"), ("companions", ours)):
        status, answer = cluster.ask(path)
        if status == 200 and isinstance(answer, dict):
            mappings |= answer
        elif status != 404:
            findings.append(_unseen(subject, status))
    for name, state in sorted(mappings.items()):
        try:
            profile = profile_of(state["mappings"]["_meta"], index=name)
            beside = read_beside(state["mappings"], index=name)
        except IndexUnsuitable as error:
            findings.append(Finding("problem", f"index {name}", str(error)))
            continue
        if profile is not None:
            yield profile, beside, name


def _shown_after_all(cluster: _Cluster, profile: IndexProfile, name: str) -> Iterator[Finding]:
    """Findings for roles that hide a text but not what the bridge made of it."""
    elastic = cluster.capabilities.distribution == "elasticsearch"
    status, roles = cluster.ask(ELASTICSEARCH_ROLES if elastic else OPENSEARCH_ROLES)
    if status in _REFUSED:
        yield _unseen(f"field rules of {name}", status)
    elif status == 200 and isinstance(roles, dict):
        remedy = f"hide {profile.object_field} and {profile.object_field}.* from the role as well"
        for sentence in uncovered(field_rules(roles), name, profile):
            yield Finding("problem", f"field rules of {name}", sentence, remedy)


def _counted(
    cluster: _Cluster, profile: IndexProfile, beside: IndexProfile | None, name: str
) -> tuple[EnrichedIndex | None, Finding]:
    try:
        documents = indices.count(cluster.client, name)
        enriched = indices.count_enriched(cluster.client, name, profile)
        stamped = indices.count_stamped(cluster.client, name, profile)
        also = indices.count_enriched(cluster.client, name, beside) if beside else 0
    except (BridgeError, TransportError) as error:  # TransportError: the cluster's own word, such as a closed index
        return None, Finding("note", f"index {name}", f"cannot be counted: {error}")
    encoder = profile.encoder.identity
    message = f"{enriched:,} of {documents:,} documents enriched in place by {encoder}; serves {profile.stages[-1]}"
    remedy = f"neural-bridge backfill {name}, or ingest it anew" if stamped < documents else None
    if documents and not enriched and remedy is None:
        remedy = f"no document has text in {', '.join(profile.text_fields)}: name other fields after undo {name}"
    if beside:
        message += f"; generation {beside.generation} by {beside.encoder.identity} stands beside, in {also:,} documents"
    counted = EnrichedIndex(
        name,
        documents,
        enriched,
        encoder,
        profile.vector_type,
        list(profile.stages),
        profile.generation,
        Beside(beside.generation, also, beside.encoder.identity) if beside else None,
        sparse_encoder=profile.sparse.encoder.identity if profile.sparse else None,
        image_encoder=profile.image.encoder.identity if profile.image else None,
        text_fields=profile.text_fields,
    )
    return counted, Finding("note" if remedy else "ok", f"index {name}", message, remedy)


def _compared(cluster: _Cluster, profile: IndexProfile, index: str, name: str) -> tuple[EnrichedIndex | None, Finding]:
    """An index that has the companion `name`."""
    subject = f"index {index}"
    try:
        source = indices.find(cluster.client, index)
        state = indices.look(cluster.client, name)
        if source is None or source.name != index:
            message = f"is gone, and its companion {name} is not"
            return None, Finding("note", subject, message, f"neural-bridge undo {index}")
        documents = indices.count(cluster.client, index)
        enriched = indices.count_enriched(cluster.client, name, profile)
        sample = min(SAMPLE, int(source.settings.get("max_result_window", SAMPLE)))
        compared = completeness(cluster.client, name, profile, sample=sample)
    except (BridgeError, TransportError) as error:
        return None, Finding("note", subject, f"cannot be compared with its companion {name}: {error}")
    message = f"enriched beside, in {name}: {enriched:,} of {documents:,} documents by {profile.encoder.identity}"
    message += f"; serves {profile.stages[-1]}"
    counted = EnrichedIndex(
        index,
        documents,
        enriched,
        profile.encoder.identity,
        profile.vector_type,
        list(profile.stages),
        profile.generation,
        companion=name,
        sparse_encoder=profile.sparse.encoder.identity if profile.sparse else None,
        image_encoder=profile.image.encoder.identity if profile.image else None,
        completeness=compared,
        text_fields=profile.text_fields,
    )
    if not companion.is_of(state, source):
        message = (
            f"was made anew after its companion {name}, which serves only what has the same id and texts as before"
        )
        return counted, Finding("note", subject, message, f"neural-bridge backfill {index}")
    if compared.is_whole:
        return counted, Finding("ok", subject, message)
    message += (
        f"; of {compared.sampled_documents:,} documents compared {compared.missing:,} have no entry there and "
        f"{compared.stale:,} one of other texts, of {compared.sampled_entries:,} entries {compared.orphaned:,} "
        f"are of no document"
    )
    return counted, Finding("note", subject, message, f"neural-bridge backfill {index}")


def _unseen(subject: str, status: int) -> Finding:
    reason = "this user may not read it" if status in _REFUSED else f"the cluster answered {status}"
    return Finding("note", subject, f"not known: {reason}")
