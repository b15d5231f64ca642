"""The sidecar and the proxy as services to supervise: their commands, and where they say that they are ready."""

import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bridge.settings import Settings
from bridge.supervision import Service

START_TIMEOUT_S = 90.0
"""Models are checked and loaded first; a busy machine takes its time."""

STOP_MARGIN_S = 5.0

_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 it is looked up, not listened on

Overrides = dict[str, dict[str, Any]]
"""Values of settings by section and key."""

MEASURING: Overrides = {
    # A measured ranking must not depend on how busy the machine is: no stage is cut short.
    "proxy": {"port": 0, "admin_port": 0, "budget_ms": 30_000},
    "sidecar": {"port": 0},
}


def sidecar_and_proxy(
    settings: Settings, *, config_file: Path | None, overrides: Overrides, log_folder: Path | None = None
) -> list[Service]:
    """Both servers, each a `neural-bridge serve` of its own.

    `settings` are those of `config_file`, the environment and `overrides`; the servers are given the
    latter in their environment. Logs go to files in `log_folder`, or to our standard error.
    """
    command = neural_bridge(config_file, "serve")
    environment = as_environment(overrides)
    sidecar, proxy = settings.sidecar, settings.proxy
    return [
        Service(
            name,
            [*command, name],
            ready_url=f"http://{_reachable(host)}:{port}{path}",
            environment=environment,
            log_file=log_folder / f"{name}.log" if log_folder else None,
            start_timeout_s=START_TIMEOUT_S,
        )
        for name, host, port, path in (
            ("rerank", sidecar.host, sidecar.port, "/ready"),
            (
                "proxy",
                proxy.admin_host,
                proxy.admin_port,
                "/_bridge/health",
            ),  # it may wait for its cluster: that is no failed start
        )
    ]


def stop_timeout_s(settings: Settings) -> float:
    """How long the servers may take to finish what they are doing."""
    return max(settings.sidecar.shutdown_timeout_s, settings.proxy.shutdown_timeout_s) + STOP_MARGIN_S


def neural_bridge(config_file: Path | None, *arguments: str) -> list[str]:
    """The command line of this very program, run by this very Python."""
    named = ["--config", str(config_file)] if config_file else []
    return [sys.executable, "-m", "bridge.cli", *named, *arguments]


def as_environment(overrides: Overrides) -> dict[str, str]:
    """The environment variables that set these settings."""
    return {
        f"BRIDGE_{section.upper()}__{key.upper()}": str(value)
        for section, values in overrides.items()
        for key, value in values.items()
    }


def with_ports(overrides: Overrides, settings: Settings) -> Overrides:
    """The overrides and, where a port is 0, a free one: both servers must be found, also after a restart."""
    sidecar, proxy = settings.sidecar, settings.proxy
    wanted = [
        ("sidecar", "port", sidecar.host),
        ("proxy", "port", proxy.host),
        ("proxy", "admin_port", proxy.admin_host),
    ]
    chosen: Overrides = {section: dict(values) for section, values in overrides.items()}
    with ExitStack() as stack:
        # Held together until all are chosen, so that no port is given twice.
        for section, key, host in wanted:
            if getattr(getattr(settings, section), key) == 0:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                probe = stack.enter_context(socket.create_server((host, 0), family=family))
                chosen.setdefault(section, {})[key] = probe.getsockname()[1]
    if sidecar.port == 0:
        url = f"http://{_reachable(sidecar.host)}:{chosen['sidecar']['port']}"
        chosen.setdefault("proxy", {})["sidecar_url"] = url
    return chosen


def _reachable(host: str) -> str:
    """Where to find what listens on `host`."""
    return _EVERYWHERE.get(host, f"[{host}]" if ":" in host else host)
