"""The servers' commands, environment and addresses follow from the settings."""

from pathlib import Path
from typing import Any

import pytest

from bridge.errors import SettingsError
from bridge.processes.services import MeasuringServers, as_environment, sidecar_and_proxy, stop_timeout_s, with_ports
from bridge.settings import load_settings


def test_overrides_reach_the_servers_as_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides: dict[str, dict[str, Any]] = {
        "proxy": {"port": 1234, "budget_ms": 99},
        "cluster": {"url": "http://127.0.0.1:1"},
    }
    for name, value in as_environment(overrides).items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.proxy.port, settings.proxy.budget_ms) == (1234, 99)
    assert settings.cluster.url == "http://127.0.0.1:1"


def test_lists_reach_the_servers_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in as_environment({"sidecar": {"more_rerank_models": ["one", "two"]}}).items():
        monkeypatch.setenv(name, value)
    assert load_settings().sidecar.more_rerank_models == ["one", "two"]


def test_servers_that_measure_keep_no_caches(tmp_path: Path) -> None:
    servers = MeasuringServers.before(
        "http://127.0.0.1:1", None, log_folder=tmp_path, more={"sidecar": {"rerank_model": "another"}}
    )
    assert servers.settings.sidecar.cached_pairs == 0
    assert servers.settings.sidecar.rerank_model == "another"
    assert servers.settings.proxy.sidecar_url == servers.sidecar_url
    assert servers.proxy_url.endswith(f":{servers.settings.proxy.port}")
    assert servers.settings.cluster.url == "http://127.0.0.1:1"


def test_servers_that_measure_answer_every_search_however_others_serve(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "proxy: {mode: shadow, canary_percent: 5, path_prefix: /search, host: 0.0.0.0, further_nodes: ['http://x:1']}\n"
    )
    servers = MeasuringServers.before("http://127.0.0.1:1", file, log_folder=tmp_path)
    proxy = servers.settings.proxy
    assert (proxy.mode, proxy.canary_percent, proxy.path_prefix, proxy.host) == ("upgrade", 100, "", "127.0.0.1")
    assert proxy.further_nodes == ()
    assert as_environment(servers.overrides)["BRIDGE_PROXY__FURTHER_NODES"] == "[]"


def test_a_certificate_is_no_part_of_a_measurement(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("proxy: {tls_certificate_file: certificate.pem}\n")
    with pytest.raises(SettingsError, match=r"tls_certificate_file.*--config"):
        MeasuringServers.before("http://127.0.0.1:1", file, log_folder=tmp_path)


def test_port_zero_becomes_a_free_port_that_all_agree_on() -> None:
    free: dict[str, dict[str, Any]] = {"sidecar": {"port": 0}, "proxy": {"port": 0, "admin_port": 0, "budget_ms": 5}}
    chosen = with_ports(free, load_settings(None, **free))
    ports = [chosen["sidecar"]["port"], chosen["proxy"]["port"], chosen["proxy"]["admin_port"]]
    assert len({*ports}) == 3
    assert all(ports)
    assert chosen["proxy"]["sidecar_url"] == f"http://127.0.0.1:{ports[0]}"
    assert chosen["proxy"]["budget_ms"] == 5


def test_ports_that_are_set_stay() -> None:
    assert with_ports({}, load_settings()) == {}


def test_services_are_asked_on_an_address_that_can_be_reached() -> None:
    everywhere: dict[str, dict[str, Any]] = {
        "sidecar": {"host": "0.0.0.0", "port": 1},
        "proxy": {"admin_host": "::", "admin_port": 2},
    }
    sidecar, proxy = sidecar_and_proxy(load_settings(None, **everywhere), config_file=None, overrides=everywhere)
    assert sidecar.ready_url == "http://127.0.0.1:1/ready"
    assert proxy.ready_url == "http://[::1]:2/_bridge/health"


def test_servers_read_the_same_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("proxy: {shutdown_timeout_s: 60, drain_s: 30}\n")
    settings = load_settings(file)
    for service in sidecar_and_proxy(settings, config_file=file, overrides={}, log_folder=tmp_path):
        assert str(file) in service.command
        assert service.log_file == tmp_path / f"{service.name}.log"
    assert stop_timeout_s(settings) > 90
