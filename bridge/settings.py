"""Every setting once: name, unit, default, and one sentence for the operator.

A value comes from, first found: the command's flag, the environment (`BRIDGE_` and the path of the
setting, joined by `__`: `BRIDGE_PROXY__PORT`), the YAML file (`--config`, or `BRIDGE_CONFIG`), the
default. An unknown key is an error. Secrets are masked wherever settings are shown.
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast
from urllib.parse import SplitResult, urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    PlainSerializer,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, YamlConfigSettingsSource

from bridge.errors import SettingsError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

_PREFIX = "BRIDGE_"

Port = Annotated[int, Field(ge=0, le=65535)]

Listener = Literal["operators", "applications", "off"]
"""Of the proxy: on which of its addresses an endpoint is."""

Lowered = Annotated[str, AfterValidator(str.lower)]


def _with_hyphens(header: str) -> str:
    """A header's name as clusters compare it that take `_` for `-`."""
    return header.lower().replace("_", "-")


def http_address(url: str) -> SplitResult:
    """The parts of an HTTP server's address.

    Raises:
        ValueError: it is none; the message does not hold it.
    """
    with suppress(ValueError):
        parts = urlsplit(url)
        in_brackets = parts.netloc.endswith("]") or "]:" in parts.netloc
        host = str(ip_address(parts.hostname or "")) if in_brackets else parts.hostname
        # Reading a port checks it.
        if parts.scheme in ("http", "https") and host and parts.port != 0 and not _UNFIT.search(url):
            return parts
    raise ValueError("expected http://HOST:PORT or https://HOST:PORT")


def _without_credentials(url: str) -> str:
    """Raises ValueError if `url` is not that of an HTTP server, or holds credentials: what we report of a server
    that fails names its address."""
    if http_address(url).username is not None:
        raise ValueError("it may not hold credentials: give the server's API key in the setting beside it")
    return url


def masked(url: str) -> str:
    """An address as it may be shown: without the credentials in it, and without the values of its parameters."""
    address, mark, parameters = re.sub(r"^(\w*:?/*).*@", r"\1…@", url).partition("?")
    shown = address + mark + re.sub(r"((?:^|[&;])(?:[^=&;#]*=)?)[^&;#]+", r"\1…", parameters)
    return re.sub("#.*", "#…", shown)


def without_secrets(text: str, url: str) -> str:
    """A message about `url` with the address as it may be shown."""
    address, _, query = url.partition("?")
    text = text.replace(url, masked(url)).replace(address, masked(address))
    return text.replace(query, masked(f"?{query}")[1:]) if query else text


_UNFIT = re.compile(r"[\s\x00-\x20\x7f#\\]")
"""What stands in no address of a server, and URL parsers leave out silently or refuse each in its own way."""


_SHOWN_MASKED = PlainSerializer(masked, when_used="json")
"""Settings are shown as JSON and YAML; addresses may hold an API key as a parameter."""

ServerUrl = Annotated[str, AfterValidator(_without_credentials), _SHOWN_MASKED]
"""Address of a model server."""


class Section(BaseModel):
    """A named group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ClusterSettings(Section):
    """The cluster: its address and our access to it."""

    url: Annotated[str, _SHOWN_MASKED] = Field(
        "http://127.0.0.1:9200", description="Address of the cluster, scheme included."
    )
    username: str | None = Field(None, description="User for ingest and administration; never used to search.")
    password: SecretStr | None = Field(None, description="That user's password.")
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed the cluster's certificate.")
    verify_tls: bool = Field(True, description="Refuse a certificate that cannot be verified.")
    timeout_s: float = Field(60.0, gt=0, description="Longest wait for one answer, in seconds.")


class CompanionSettings(Section):
    """Companions: indices of our own that hold what is made of an application's documents, beside its index."""

    prefix: str = Field(
        "neural-bridge.",
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
        description="Begins a companion's name; the name of the application's index follows.",
    )


class ProxySettings(Section):
    """The query proxy."""

    mode: Literal["upgrade", "shadow", "interleave"] = Field(
        "upgrade",
        description="upgrade answers searches with the better ranking; shadow answers as the cluster does, and logs "
        "how the rankings differ; interleave mixes both rankings, for clicks to tell which one is better.",
    )
    canary_percent: float = Field(
        100.0,
        ge=0,
        le=100,
        description="Share of callers, in percent, whom the bridge serves; the others' searches pass.",
    )
    event_log: Path | None = Field(
        None, description="File for comparisons, interleaved pages and clicks, read by neural-bridge report."
    )
    event_log_queries: bool = Field(
        False,
        description="Write the words of queries beside interleaved pages, so that clicks become judgements "
        "(neural-bridge evaluate --clicks). They may be personal data.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(9280, description="Port to listen on; 0 takes a free one.")
    admin_host: str = Field("127.0.0.1", description="Address of the admin listener (health, metrics, page).")
    admin_port: Port = Field(9281, description="Port of the admin listener; 0 takes a free one.")
    workers: int = Field(
        1,
        gt=0,
        description="Processes that answer applications on the one port; each has an admin listener of its own, on "
        "admin_port and the ports after it.",
    )
    share_port: bool = Field(
        False, description="Listen beside other proxies on the same port; the kernel spreads connections over them."
    )
    admin_names: tuple[str, ...] = Field(
        (),
        description="Names by which operators reach the admin listener beside its addresses and localhost; requests to "
        "other names are refused, except for health, readiness and metrics.",
    )
    page: bool = Field(
        True,
        description="Serve the page that compares rankings on the admin listener; viewers search with their own "
        "credentials.",
    )
    further_nodes: tuple[Annotated[str, _SHOWN_MASKED], ...] = Field(
        (),
        description="Addresses of further nodes of the cluster, used in turn with cluster.url; one that is away is "
        "left out until it is back.",
    )
    path_prefix: str = Field(
        "",
        pattern=r"^(/[^/?#]+)*$",
        description="Path that clients put before every target, as /search; it is taken off.",
    )
    tls_certificate_file: Path | None = Field(
        None, description="PEM file of the certificate shown to applications; they speak HTTPS then."
    )
    tls_key_file: Path | None = Field(None, description="PEM file of its key, unless the certificate's file holds it.")
    per_request_headers: tuple[Lowered, ...] = Field(
        (
            *("b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"),
            *("traceparent", "tracestate", "x-amzn-trace-id", "x-correlation-id", "x-opaque-id", "x-request-id"),
        ),
        description="Headers that differ between the requests of one caller. By all other headers the proxy tells "
        "callers apart in everything that it remembers: take out what a query of document-level security names.",
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description="Addresses or networks of the proxies that authenticate callers before this one. From them alone "
        "cross the headers of proxy.proxy_identity_headers.",
    )
    proxy_identity_headers: tuple[Annotated[str, AfterValidator(_with_hyphens)], ...] = Field(
        ("x-proxy-",),
        description="How the names of headers begin by which such a proxy tells the cluster who asks: user_header, "
        "roles_header and attr_header_prefix of OpenSearch's proxy authentication.",
    )
    keep_sniffing_clients: bool = Field(
        True, description="Tell clients that ask for the nodes' addresses the proxy's own, so that they stay."
    )
    es_compat: bool = Field(
        False, description="Answer Elasticsearch's clients as Elasticsearch does: product, version and media types."
    )
    cutoff: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Leave out documents that only vectors found, and that answer the query with a smaller probability "
        "than this; 0 leaves none out. For indices that neural-bridge gate --calibrate has calibrated.",
    )
    fallback: bool = Field(
        False,
        description="If the application's own query matches nothing, give the closest documents all the same, whatever "
        "proxy.cutoff is, and mark them.",
    )
    retrieve: Listener = Field(
        "operators", description="Which listener answers /_bridge/retrieve: passages for questions, in batches."
    )
    suggest: Listener = Field(
        "operators",
        description="Which listener answers /_bridge/suggest: predicted queries that complete what was typed.",
    )
    mcp: Listener = Field(
        "operators",
        description="Which listener answers /_bridge/mcp: search as tools of language models, by the Model Context "
        "Protocol.",
    )
    openai: Listener = Field(
        "operators",
        description="Which listener answers /_bridge/openai/v1/: vector-store search and embeddings in OpenAI's shape.",
    )
    sidecar_url: ServerUrl = Field("http://127.0.0.1:9290", description="Address of the rerank sidecar.")
    budget_ms: int = Field(
        1000, gt=0, description="Longest time, in milliseconds, that the bridge may add to one search."
    )
    profile_ttl_s: float = Field(
        10.0, ge=0, description="How long, in seconds, an index's profile is trusted before it is read again."
    )
    max_search_body_bytes: int = Field(
        1_000_000, gt=0, description="A larger search body passes through unread, in bytes."
    )
    idle_timeout_s: float = Field(
        75.0, gt=0, description="How long, in seconds, a connection stays open between two requests."
    )
    max_headers_bytes: int | None = Field(
        None,
        gt=0,
        description="Largest size of a request's headers together, in bytes; by default 512 less than the nodes take "
        "(http.max_header_size, which cluster.username reads when a request has more than 7680), or 7680 if it may "
        "not read that.",
    )
    read_timeout_s: float = Field(
        3600.0,
        gt=0,
        description="Longest silence of the cluster before or inside an answer, in seconds. A forced merge, a reindex "
        "or a snapshot answers only after its work: set it longer than the longest of these.",
    )
    header_timeout_s: float = Field(10.0, gt=0, description="Longest wait for a request's headers, in seconds.")
    body_idle_timeout_s: float = Field(
        30.0, gt=0, description="Longest silence inside a request's body before it is cut off, in seconds."
    )
    answer_idle_timeout_s: float = Field(
        30.0,
        gt=0,
        description="Longest wait, in seconds, for a client to take the next 64 KB of an answer, before it is cut off.",
    )
    upgrade_memory_bytes: int = Field(
        128 * 1024 * 1024,
        gt=0,
        description="Memory, in bytes, for all searches together: their bodies, and the answers that are read to be "
        "upgraded, until their clients have them; what is beyond half of what is free passes.",
    )
    drain_s: float = Field(
        5.0,
        ge=0,
        description="How long, in seconds, the proxy goes on answering after SIGTERM, no longer ready, until load "
        "balancers have noticed: longer than their checks take.",
    )
    shutdown_timeout_s: float = Field(20.0, ge=0, description="How long running requests may finish, in seconds.")
    log_searches: bool = Field(
        False, description="Write a log line for each search: what was decided and why, and its time; never its words."
    )
    cached_embeddings: int = Field(10_000, gt=0, description="Queries whose embeddings and terms are remembered.")
    ranking_ttl_s: float = Field(
        0.0,
        ge=0,
        description="How long, in seconds, a ranking may serve the same caller again while the cluster's own answer "
        "stays the same; 0 keeps none.",
    )
    ranking_cache_bytes: int = Field(
        32 * 1024 * 1024, gt=0, description="Memory for kept rankings, in bytes: about 25 KB for each 100 documents."
    )
    breaker_failures: int = Field(5, gt=0, description="Failures in a row before the sidecar is left alone.")
    breaker_reset_s: float = Field(5.0, gt=0, description="How long it is left alone, in seconds.")


class SidecarSettings(Section):
    """The rerank sidecar."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(9290, description="Port to listen on; 0 takes a free one.")
    rerank_model: str = Field("rerank-base", description="Cross-encoder: path, built-in or hub name.")
    cascade_model: str | None = Field(
        "rerank-tiny",
        description="Small cross-encoder that reads all passages of a cascade: path, built-in or hub name; empty loads "
        "none.",
    )
    more_rerank_models: list[str] = Field(
        [], description="Further cross-encoders, which a request asks for by `model`; a JSON array in the environment."
    )
    encoder: str = Field("embed-base", description="Encoder for /embed: path, built-in or hub name.")
    more_encoders: list[str] = Field(
        [],
        description="Further encoders, for indices whose vectors they made, as during a change of models; a JSON array "
        "in the environment.",
    )
    sparse_encoders: list[str] = Field(
        [],
        description="Sparse encoders for /embed_sparse, the default one first: paths, built-in or hub names; a JSON "
        "array in the environment.",
    )
    generator: str | None = Field(None, description="Query generator for /expand; none by default.")
    providers: list[str] = Field(
        ["CPUExecutionProvider"],
        description="ONNX Runtime's execution providers, the preferred one first, such as CUDAExecutionProvider before "
        "this one; a JSON array in the environment.",
    )
    threads: int = Field(0, ge=0, description="Compute threads; 0 takes the CPUs that the cgroup allows.")
    max_queued_pairs: int = Field(
        4096, gt=0, description="Query-passage pairs accepted and not yet answered; beyond it 429."
    )
    max_batch_tokens: int = Field(
        256, gt=0, description="Tokens that one request computes before another one has its turn."
    )
    max_documents: int = Field(1000, gt=0, description="Most documents in one request; beyond it 413.")
    max_body_bytes: int = Field(2_000_000, gt=0, description="Largest request body, in bytes; beyond it 413.")
    max_pair_tokens: int = Field(256, gt=0, description="A query and its passage are cut to this many tokens.")
    cached_pairs: int = Field(
        50_000, ge=0, description="Query-passage pairs whose scores are remembered; 0 remembers none."
    )
    request_timeout_s: float = Field(30.0, gt=0, description="Longest stay of a request, in seconds.")
    shutdown_timeout_s: float = Field(20.0, ge=0, description="How long running requests may finish, in seconds.")
    api_key: SecretStr | None = Field(None, description="If set, callers must send it as a bearer token.")
    tls_certificate_file: Path | None = Field(
        None, description="PEM file of the sidecar's certificate and its chain; if set, it speaks HTTPS only."
    )
    tls_key_file: Path | None = Field(
        None, description="PEM file of the certificate's key, unless the certificate's file holds it."
    )


class ModelServerSettings(Section):
    """A model server in place of the sidecar or of this process: the same four settings wherever one is named."""

    api: str = "sidecar"
    url: ServerUrl | None = Field(
        None, description="Address of its endpoint, path included; none asks proxy.sidecar_url."
    )
    model: str | None = Field(None, description="Name of its model, which the APIs cohere and openai need.")
    api_key: SecretStr | None = Field(None, description="Sent to it as a bearer token.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.api != "sidecar" and self.url is None:
            raise ValueError(f"api is {self.api} and url is not set: name both of another server, or neither")
        if self.api in ("cohere", "openai") and self.model is None:
            raise ValueError(f"api {self.api} needs model")
        return self


class _OtherServerSettings(ModelServerSettings):
    """The proxy asks the sidecar at an address of its own setting."""

    @model_validator(mode="after")
    def _is_another(self) -> Self:
        if self.api == "sidecar" and self.url is not None:
            raise ValueError("url is set and api is sidecar: name both of another server, or neither")
        return self


class RerankerSettings(_OtherServerSettings):
    """Another reranker for the proxy, in the sidecar's place."""

    api: Literal["sidecar", "tei", "cohere"] = Field(
        "sidecar", description="Shape of its requests: tei for text-embeddings-inference, cohere also for Jina."
    )
    max_passages: int = Field(
        32, gt=0, description="Most passages in one request to it; 32 is the default limit of TEI."
    )


class EmbedderSettings(_OtherServerSettings):
    """Another embedder of queries for the proxy, in the sidecar's place: it must run the encoder of the indices."""

    api: Literal["sidecar", "tei", "openai"] = Field(
        "sidecar", description="Shape of its requests: tei for text-embeddings-inference, openai for /v1/embeddings."
    )
    prompt: str | None = Field(
        None, description="Put before each query, as the encoder was trained: `query: ` for E5, for example."
    )


class IngestServerSettings(ModelServerSettings):
    """A model server that works in place of the process of an ingest."""

    api: Literal["sidecar", "tei", "openai"] = Field(
        "sidecar",
        description="Shape of its requests: tei for text-embeddings-inference, openai for /v1/embeddings; these embed, "
        "and queries are predicted here.",
    )
    url: ServerUrl | None = Field(
        None,
        description="Model server that works in this process's place: the address of a sidecar (http://HOST:PORT) with "
        "the same encoder, generator and filter, or the whole address of another server's embeddings. The models' "
        "folders are still needed here, for their names and their tokenizers.",
    )


class IngestSettings(Section):
    """The ingest pipeline."""

    encoder: str = Field("embed-base", description="Encoder of the vectors: path, built-in or hub name.")
    generator: str | None = Field("doc2query-small", description="Generator of predicted queries; empty writes none.")
    sparse_encoder: str | None = Field(
        None,
        description="Sparse encoder, which gives documents weighted terms: path, built-in or hub name; none by "
        "default.",
    )
    top_terms: int = Field(128, ge=1, le=128, description="Most weighted terms of a document; the largest stay.")
    sparse_queries: Literal["idf", "model"] = Field(
        "idf",
        description="How searches of a new index weight a query's terms: idf, by how rare its word pieces are, or "
        "model, by the sparse encoder, which costs time and adds terms.",
    )
    image_field: str | None = Field(
        None,
        description="Field that names or holds a document's picture, which gets a vector of its own: a path below "
        "ingest.image_folder, a data URI, base64, or a URL; none by default.",
    )
    image_encoder: str | None = Field(
        None, description="Image encoder, which embeds these pictures: path or hub name (extra: images)."
    )
    image_folder: Path | None = Field(
        None, description="Folder below which the pictures lie that documents name by a path; none reads no file."
    )
    image_hosts: tuple[str, ...] = Field(
        (),
        description="Hosts from which pictures are fetched that documents name by a URL, as HOST or HOST:PORT; none by "
        "default. Private addresses count like others: a host that is listed is trusted.",
    )
    max_image_bytes: int = Field(
        10_000_000, gt=0, description="A document whose picture is a larger file becomes a dead letter, in bytes."
    )
    max_image_pixels: int = Field(
        50_000_000,
        gt=0,
        le=89_000_000,
        description="A document whose picture has more pixels becomes a dead letter; nothing is unpacked.",
    )
    server: IngestServerSettings = IngestServerSettings()
    object_field: str = Field(
        "_neural",
        pattern=r"^[^.\s]+$",
        description="Our one object in each document, in indices that have none yet. Searches that name no fields look "
        "into every field but those that begin with _: another name lets them find predicted queries.",
    )
    queries_per_passage: int = Field(4, ge=0, description="Queries sampled per passage.")
    max_query_tokens: int = Field(20, gt=0, description="Longest predicted query, in tokens.")
    max_expansion_bytes: int = Field(
        2048, gt=0, description="Most predicted text per document, in UTF-8 bytes; the best queries stay."
    )
    filter_model: str | None = Field(
        None, description="Cross-encoder that drops predicted queries which their passage does not answer."
    )
    filter_threshold: float = Field(0.0, description="Lowest score of a predicted query that is kept.")
    filter_percentile: float | None = Field(
        None,
        gt=0,
        lt=100,
        description="Share of all predicted queries that the filter drops, in percent, in place of filter_threshold: "
        "a sample of the documents decides the score, which is kept with the index.",
    )
    new_terms_only: bool = Field(
        False, description="Keep of predicted queries only the words that their document does not have."
    )
    threads: int = Field(0, ge=0, description="Compute threads; 0 takes the CPUs that the cgroup allows.")
    providers: list[str] = Field(
        ["CPUExecutionProvider"],
        description="As sidecar.providers, for the encoder and the filter of predicted queries. With --runner ray, "
        "another one than the CPU's gives each worker a GPU.",
    )
    bulk_bytes: int = Field(5_000_000, gt=0, description="Target size of one bulk request, in bytes.")
    bulk_documents: int = Field(500, gt=0, description="Most documents in one bulk request.")
    max_doc_bytes: int = Field(20_000_000, gt=0, description="A larger document becomes a dead letter, in bytes.")
    max_errors: int = Field(1000, ge=0, description="Dead letters after which the run stops.")
    max_attempts: int = Field(8, gt=0, description="Attempts for one item before its chunk is given up.")
    max_stall_s: float = Field(300.0, gt=0, description="Longest time without progress, in seconds, before exit 5.")
    load_replicas: int | None = Field(
        None,
        ge=0,
        description="Copies of each shard that an empty index has while it is filled; it gets its own number back. "
        "Unset leaves them alone. With 0 a node that dies meanwhile takes acknowledged documents with it.",
    )
    follow_interval_s: float = Field(
        1.0, gt=0, description="How often, in seconds, a follower looks for changes; it refreshes the index then."
    )
    max_search_ms: float = Field(
        0.0,
        ge=0,
        description="Mean time of searches per shard, in milliseconds, beyond which enriching waits; 0 never waits.",
    )
    max_documents_per_s: float = Field(
        0.0, ge=0, description="Most documents that are enriched and written in a second; 0 sets no bound."
    )
    on_duplicate: Literal["last", "error"] = Field(
        "last",
        description="What an id that comes twice in a run means: the last one wins, or it is a dead letter (error).",
    )
    external_versions: Literal["detect", "yes", "no"] = Field(
        "detect",
        description="Whether an application numbers the versions of documents itself, which enriching in place would "
        "raise: detect looks at a sample, yes leads beside, no allows in place.",
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_older_names(cls, values: Any) -> Any:
        """`server_url` and its neighbours, as they were called before there was a section for them."""
        if not isinstance(values, dict):
            return values
        names = {f"server_{name}": name for name in ModelServerSettings.model_fields}
        older = {names[name]: value for name, value in values.items() if name in names}
        rest = {name: value for name, value in values.items() if name not in names}
        return {**rest, "server": {**older, **rest.get("server", {})}} if older else values


class NodeSettings(Section):
    """The embedded OpenSearch node."""

    cache_dir: Path | None = Field(
        None, description="Folder of nodes and their data; the user's cache folder by default."
    )
    java_home: Path | None = Field(None, description="Java to use; by default the best one on this machine.")
    mirror_dir: Path | None = Field(
        None, description="Folder in the layout of a Maven repository that is looked at before the network."
    )
    heap_mb: int = Field(512, ge=256, description="Java heap, in MiB.")
    java_options: str | None = Field(
        None, description="Further options of Java, separated by spaces; they prevail over the node's own."
    )
    port: Port = Field(0, description="HTTP port; 0 takes a free one.")
    start_timeout_s: float = Field(90.0, gt=0, description="Longest wait for the node to be ready, in seconds.")


class Settings(BaseSettings):
    """All settings; `load_settings` makes one."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    cluster: ClusterSettings = ClusterSettings()
    companion: CompanionSettings = CompanionSettings()
    proxy: ProxySettings = ProxySettings()
    sidecar: SidecarSettings = SidecarSettings()
    reranker: RerankerSettings = RerankerSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    ingest: IngestSettings = IngestSettings()
    node: NodeSettings = NodeSettings()


def load_settings(config_file: Path | None = None, **flags: dict[str, Any]) -> Settings:
    """Reads the settings; `flags` holds, per section, the values given on the command line.

    Raises:
        SettingsError: the file is missing or no YAML, a key is unknown, or a value is wrong.
    """
    file = config_file or (Path(named) if (named := os.environ.get("BRIDGE_CONFIG")) else None)
    _refuse_misspelt_variables(os.environ.items())
    if file is not None and not file.is_file():
        raise SettingsError(f"settings file {file} does not exist or is no file: name another with --config")

    class FromFile(Settings):
        """Settings that also read `file`; a class, since pydantic-settings takes its sources from one."""

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            sources = (init_settings, env_settings)
            return (*sources, YamlConfigSettingsSource(settings_cls, yaml_file=file)) if file else sources

    given = {section: {k: v for k, v in values.items() if v is not None} for section, values in flags.items()}
    try:
        return FromFile(**{section: values for section, values in given.items() if values})  # type: ignore[arg-type]
    except ValidationError as error:
        lines = "; ".join(_message(problem) for problem in error.errors())
        raise SettingsError(f"settings: {lines} (docs/reference/configuration.md lists every key)") from error
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise SettingsError(f"settings file {file} cannot be read: {error}") from error


def _message(problem: "ErrorDetails") -> str:
    """One mistake: the key, its value unless that may be a secret, and what was expected."""
    key = ".".join(str(part) for part in problem["loc"])
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        # Under a key that we do not know may stand a password: a slip of the pen is enough.
        known = [".".join(path) for path, _ in _fields(Settings, ())] + list(Settings.model_fields)
        nearest = difflib.get_close_matches(key, known, n=1)
        return f"{key}: there is no such setting" + (f", did you mean {nearest[0]}?" if nearest else "")
    if key.endswith(("password", "api_key")) or not isinstance(value, str | int | float | bool):
        return f"{key}: {problem['msg']}"
    return f"{key} is {masked(str(value))!r}: {problem['msg']}"


def settings_reference() -> str:
    """Every setting as Markdown, a table per section: docs/reference/configuration.md holds this text."""
    parts = []
    for section, section_field in Settings.model_fields.items():
        model = cast(type[Section], section_field.annotation)
        lines = [f"## {section}", "", (model.__doc__ or "").strip(), ""]
        lines += ["| setting | environment | default | meaning |", "|---|---|---|---|"]
        for path, field in _fields(model, (section,)):
            default = "none" if field.default is None else f"`{field.default}`"
            lines.append(f"| `{'.'.join(path)}` | `{_variable(path)}` | {default} | {field.description} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _fields(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], "FieldInfo"]]:
    """Every setting of a section with its path, those of sections within it too."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _fields(field.annotation, (*path, name))
        else:
            yield (*path, name), field


def _variable(path: Sequence[str]) -> str:
    return f"{_PREFIX}{'__'.join(path)}".upper()


def _refuse_misspelt_variables(environment: Iterable[tuple[str, str]]) -> None:
    """Refuses variables that look like settings and are none, which pydantic-settings would ignore.

    Single underscores are common in variables of others (Kubernetes makes BRIDGE_PORT=tcp://… for a service called
    bridge), so only the name of a setting with one in place of two is refused.

    Raises:
        SettingsError: there is one; the nearest name is in the message.
    """
    variables = [_variable(path) for path, _ in _fields(Settings, ())]
    single = {variable.replace("__", "_"): variable for variable in variables}
    for name, value in environment:
        upper = name.upper()
        section, separator, _ = upper.removeprefix(_PREFIX).partition("__")
        if not upper.startswith(_PREFIX) or (separator and section.lower() in Settings.model_fields):
            continue
        if separator:
            meant = difflib.get_close_matches(upper, variables, n=1)
        else:
            meant = [single[upper]] if upper in single and "://" not in value[:6] else []
        if separator or meant:
            raise SettingsError(
                f"the environment variable {name} is no setting"
                + (f": did you mean {meant[0]}?" if meant else "")
                + " (docs/reference/configuration.md lists every one)"
            )
