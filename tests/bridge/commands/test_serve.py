"""`neural-bridge serve`: options become settings; tests/integration starts the processes."""

import pytest

import rerank_server.server
from bridge.proxy.server import process
from bridge.settings import Settings, SidecarSettings
from tests.command_line import run


def test_options_of_the_sidecar_are_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[SidecarSettings] = []
    monkeypatch.setattr(rerank_server.server, "run", started.append)
    assert run("serve", "rerank", "--port", "0", "--model", "mine", "--threads", "2").exit_code == 0
    assert [(each.port, each.rerank_model, each.threads) for each in started] == [(0, "mine", 2)]
    assert started[0].encoder == SidecarSettings().encoder


def test_options_of_the_proxy_are_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Settings] = []
    monkeypatch.setattr(process, "run", started.append)
    options = ("--cluster", "http://search:9200", "--port", "0", "--budget-ms", "70", "--es-compat")
    assert run("serve", "proxy", *options).exit_code == 0
    [settings] = started
    assert settings.cluster.url == "http://search:9200"
    assert (settings.proxy.port, settings.proxy.budget_ms, settings.proxy.es_compat) == (0, 70, True)


def test_a_port_that_is_none_is_refused() -> None:
    assert run("serve", "rerank", "--port", "70000").exit_code == 2
