"""The sidecar and the proxy as services to supervise: their commands, ports and readiness."""

import json
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.errors import ModelError, SettingsError
from bridge.model_servers.client import SidecarClient
from bridge.models.artifact import resolve
from bridge.processes.lifecycle import start_log_afresh
from bridge.processes.supervisor import Service, Supervisor
from bridge.settings import Settings, SidecarSettings, load_settings

START_TIMEOUT_S = 300.0
"""Models are checked and loaded first; a busy machine takes its time."""

STOP_MARGIN_S = 5.0

_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 it is looked up, not listened on

Overrides = dict[str, dict[str, Any]]
"""Values of settings by section and key."""

_MEASURING: Overrides = {
    "proxy": {
        "host": "127.0.0.1",
        "port": 0,
        "admin_host": "127.0.0.1",
        "admin_port": 0,
        # A measured ranking must not depend on how busy the machine is: no stage is cut short. And a measured time
        # must not depend on what an earlier stage has left in a cache.
        "budget_ms": 30_000,
        "cached_embeddings": 1,
        "ranking_ttl_s": 0,
        # Nor on whether the index's profile was read again in time.
        "profile_ttl_s": 3600,
        # However searches are served elsewhere: here each is answered, in full, and by the cluster that is measured.
        "mode": "upgrade",
        "canary_percent": 100,
        "workers": 1,
        "drain_s": 0,
        "path_prefix": "",
        "further_nodes": [],
    },
    "sidecar": {"host": "127.0.0.1", "port": 0, "cached_pairs": 0},
}


@dataclass(frozen=True, slots=True)
class MeasuringServers:
    """A sidecar and a proxy of our own on free ports, settled but not started: `overrides` of the settings in
    their environment, and `services` to supervise."""

    settings: Settings
    overrides: Overrides
    services: list[Service]

    @classmethod
    def before(
        cls, cluster_url: str, config_file: Path | None, *, log_folder: Path, more: Overrides | None = None
    ) -> "MeasuringServers":
        """Servers before a cluster; `more` overrides further settings.

        Raises:
            SettingsError: the settings give the proxy a certificate.
        """
        wanted = {section: {**values, **(more or {}).get(section, {})} for section, values in _MEASURING.items()}
        overrides = with_ports({**wanted, "cluster": {"url": cluster_url}}, load_settings(config_file, **wanted))
        settings = load_settings(config_file, **overrides)
        if settings.proxy.tls_certificate_file is not None:
            raise SettingsError(
                "proxy.tls_certificate_file is set, but a proxy that measures speaks plain HTTP on loopback: give "
                "settings without it (--config)"
            )
        services = sidecar_and_proxy(settings, config_file=config_file, overrides=overrides, log_folder=log_folder)
        return cls(settings, overrides, services)

    @property
    def sidecar_url(self) -> str:
        """Address that embeds and reranks."""
        return f"http://{_reachable(self.settings.sidecar.host)}:{self.settings.sidecar.port}"

    @property
    def proxy_url(self) -> str:
        """Address for searches."""
        return f"http://{_reachable(self.settings.proxy.host)}:{self.settings.proxy.port}"

    def sidecar_client(self) -> SidecarClient:
        """A client of the running sidecar, with its key."""
        key = self.settings.sidecar.api_key
        return SidecarClient(self.sidecar_url, api_key=key.get_secret_value() if key else None)

    def supervised(self) -> Supervisor:
        """Runs them for the length of a `with` block, their logs begun afresh."""
        for service in self.services:
            if service.log_file is not None:
                start_log_afresh(service.log_file)
        return Supervisor(self.services, stop_timeout_s=stop_timeout_s(self.settings))


def small_model_by_name(sidecar: SidecarSettings) -> Overrides:
    """Settings that let the sidecar score by the cascade's small model alone; none if it is not installed."""
    if not sidecar.cascade_model:
        return {}
    try:
        resolve(sidecar.cascade_model)
    except ModelError:
        return {}
    return {"sidecar": {"more_rerank_models": [*sidecar.more_rerank_models, sidecar.cascade_model]}}


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


def proxy_workers(settings: Settings, *, config_file: Path | None, overrides: Overrides) -> list[Service]:
    """Proxies that share one port, each with an admin port of its own: `proxy.admin_port` and those after it,
    or any free ones if that is 0.

    `settings` and `overrides` as for `sidecar_and_proxy`.
    """
    settled = with_ports(overrides, settings)
    shared = {**settled.get("proxy", {}), "workers": 1, "share_port": True}
    first, host = settings.proxy.admin_port, settings.proxy.admin_host
    admin_ports = (
        range(first, first + settings.proxy.workers) if first else _free_ports([host] * settings.proxy.workers)
    )
    services = []
    for number, admin_port in enumerate(admin_ports):
        own = {**settled, "proxy": {**shared, "admin_port": admin_port}}
        services.append(
            Service(
                f"proxy {number + 1}",
                [*neural_bridge(config_file, "serve"), "proxy"],
                ready_url=f"http://{_reachable(host)}:{admin_port}/_bridge/health",
                environment=as_environment(own),
                start_timeout_s=START_TIMEOUT_S,
            )
        )
    return services


def stop_timeout_s(settings: Settings) -> float:
    """How long the servers may take to finish what they are doing."""
    proxy = settings.proxy
    return max(settings.sidecar.shutdown_timeout_s, proxy.drain_s + proxy.shutdown_timeout_s) + STOP_MARGIN_S


def neural_bridge(config_file: Path | None, *arguments: str) -> list[str]:
    """The command line of this very program, run by this very Python."""
    named = ["--config", str(config_file)] if config_file else []
    return [sys.executable, "-m", "bridge.cli", *named, *arguments]


def as_environment(overrides: Overrides) -> dict[str, str]:
    """The environment variables that set these settings."""
    return {
        # Lists are read as JSON; paths and numbers as they print.
        f"BRIDGE_{section.upper()}__{key.upper()}": json.dumps(value) if isinstance(value, list) else str(value)
        for section, values in overrides.items()
        for key, value in values.items()
    }


def with_ports(overrides: Overrides, settings: Settings) -> Overrides:
    """The overrides with a free port in place of 0: both servers must be found, also after a restart."""
    sidecar, proxy = settings.sidecar, settings.proxy
    wanted = [
        ("sidecar", "port", sidecar.host),
        ("proxy", "port", proxy.host),
        ("proxy", "admin_port", proxy.admin_host),
    ]
    chosen: Overrides = {section: dict(values) for section, values in overrides.items()}
    free = [(section, key, host) for section, key, host in wanted if getattr(getattr(settings, section), key) == 0]
    for (section, key, _), port in zip(free, _free_ports([host for *_, host in free]), strict=True):
        chosen.setdefault(section, {})[key] = port
    if sidecar.port == 0:
        url = f"http://{_reachable(sidecar.host)}:{chosen['sidecar']['port']}"
        chosen.setdefault("proxy", {})["sidecar_url"] = url
    return chosen


def _free_ports(hosts: Sequence[str]) -> list[int]:
    """A port per host that nothing listens on; all are held until the last is chosen, so that none is given twice."""
    with ExitStack() as stack:
        probes = [
            stack.enter_context(
                socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
            )
            for host in hosts
        ]
        return [int(probe.getsockname()[1]) for probe in probes]


def _reachable(host: str) -> str:
    """The host to connect to for a server that listens on `host`."""
    return _EVERYWHERE.get(host, f"[{host}]" if ":" in host else host)
