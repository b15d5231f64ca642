"""`neural-bridge connector`: the requests that let OpenSearch's ML Commons rerank or embed with the sidecar."""

import ipaddress
import json
import re
from typing import Any
from urllib.parse import urlsplit

import click

from bridge.commands import settings_of
from bridge.commands.options.signature import argument, cli_command, option

KEY_PLACEHOLDER = "put the value of sidecar.api_key here"

_BODIES = {
    "rerank": '"query": "${parameters.query}", "documents": ${parameters.documents}, "top_n": ${parameters.top_n}',
    "embedding": '"input": ${parameters.input}, "role": "passage"',
}
_PATHS = {"rerank": "/v2/rerank", "embedding": "/v1/embeddings"}
_PROCESSORS = {"rerank": "cohere.rerank", "embedding": "openai.embedding"}


@cli_command("connector")
def command(
    ctx: click.Context,
    *,
    kind: str = argument(type=click.Choice(["rerank", "embedding"]), default="rerank"),
    url: str | None = option(
        "--url", help="Address of the sidecar as seen from the cluster. Defaults to the setting proxy.sidecar_url."
    ),
    cascade_depth: int | None = option(
        "--cascade-depth",
        type=click.IntRange(min=1),
        help="Rerank in a cascade; the number of documents that the large model reads.",
    ),
    private: bool | None = option(
        "--private/--public", default=None, help="Whether the address is in a private network. Guessed by default."
    ),
) -> None:
    """Print the ML Commons connector for the sidecar, and the cluster settings that allow it.

    Prints one JSON object: requests to the cluster and their bodies. The last one returns the `connector_id` for
    `POST /_plugins/_ml/models/_register?deploy=true`.
    """
    settings = settings_of(ctx)
    from bridge.settings import masked

    url = (url or settings.proxy.sidecar_url).rstrip("/")
    if not re.fullmatch(r"https?://[^/?#@]+[^?#@]*", url):
        raise click.UsageError(f"--url is {masked(url)}: expected http://HOST:PORT, without credentials or parameters")
    if cascade_depth and kind != "rerank":
        raise click.UsageError("--cascade-depth is for reranking: leave it out, or run `connector rerank`")
    is_private = looks_private(url) if private is None else private
    has_key = settings.sidecar.api_key is not None
    click.echo(json.dumps(requests(kind, url, cascade_depth, is_private=is_private, has_key=has_key), indent=2))


def requests(kind: str, url: str, cascade_depth: int | None, *, is_private: bool, has_key: bool) -> dict[str, Any]:
    """Bodies by request line, in the order to send them."""
    trusted = [f"^{re.escape(url)}/.*$"]
    allowed: dict[str, Any] = {"plugins.ml_commons.trusted_connector_endpoints_regex": trusted}
    if is_private:
        allowed["plugins.ml_commons.connector.private_ip_enabled"] = True
    lines: dict[str, Any] = {"PUT /_cluster/settings": {"persistent": allowed}}
    if is_private:
        # An older cluster refuses the whole request because of a setting that it does not know.
        later = {"plugins.ml_commons.trusted_connector_private_endpoints_regex": trusted}
        lines["PUT /_cluster/settings, OpenSearch 3.7 and later"] = {"persistent": later}
    lines["POST /_plugins/_ml/connectors/_create"] = connector(kind, url, cascade_depth, has_key=has_key)
    return lines


def connector(kind: str, url: str, cascade_depth: int | None, *, has_key: bool) -> dict[str, Any]:
    """The connector's definition."""
    depth = f', "cascade_depth": {cascade_depth}' if cascade_depth else ""
    key = {"Authorization": "Bearer ${credential.key}"} if has_key else {}
    action = {
        "action_type": "predict",
        "method": "POST",
        "url": url + _PATHS[kind],
        "headers": {"Content-Type": "application/json", **key},
        "request_body": f"{{ {_BODIES[kind]}{depth} }}",
        "pre_process_function": f"connector.pre_process.{_PROCESSORS[kind]}",
        "post_process_function": f"connector.post_process.{_PROCESSORS[kind]}",
    }
    return {
        "name": f"neural-bridge {kind}",
        "description": "The rerank sidecar of opensearch-neural-bridge",
        "version": "1",
        "protocol": "http",
        **({"credential": {"key": KEY_PLACEHOLDER}} if has_key else {}),
        "parameters": {},
        "actions": [action],
    }


def looks_private(url: str) -> bool:
    """Whether the host is a private address, or a name that only a private network resolves."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))
