"""Settings: flag over environment over file over default; unknown keys are errors; secrets are masked."""

from pathlib import Path

import pytest

from bridge.cluster.connection import connect
from bridge.errors import SettingsError
from bridge.proxy.transport.upstream import Upstream
from bridge.settings import (
    ClusterSettings,
    Settings,
    http_address,
    load_settings,
    masked,
    settings_reference,
    without_secrets,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bridge.yaml"
    path.write_text("proxy:\n  port: 1111\n  budget_ms: 250\n", encoding="utf-8")
    return path


def test_a_flag_wins_over_environment_file_and_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().proxy.port == 9280
    assert load_settings(file).proxy.port == 1111
    monkeypatch.setenv("BRIDGE_PROXY__PORT", "2222")
    assert load_settings(file).proxy.port == 2222
    assert load_settings(file, proxy={"port": 3333}).proxy.port == 3333
    assert load_settings(file, proxy={"port": None}).proxy.port == 2222
    assert load_settings(file).proxy.budget_ms == 250


def test_the_environment_can_name_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_CONFIG", str(file))
    assert load_settings().proxy.budget_ms == 250


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("proxy:\n  prot: 1\n", "proxy.prot"),
        ("proxi:\n  port: 1\n", "proxi"),
        ("proxy:\n  port: 70000\n", "proxy.port"),
        ("proxy:\n  port: many\n", "proxy.port"),
        ("ingest:\n  bulk_documents: 0\n", "ingest.bulk_documents"),
        ("proxy: [\n", "bridge.yaml"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_the_key(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "bridge.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=named):
        load_settings(path)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("BRIDGE_PROXY__PORT", "many", "proxy.port is 'many': "),
        ("BRIDGE_INGEST__SERVER_API", "http://u:hunter2@h/", "ingest.server.api is 'http://…@h/': "),
        (
            "BRIDGE_CLUSTER__PASWORD",
            "hunter2",
            "cluster.pasword: there is no such setting, did you mean cluster.password?",
        ),
    ],
)
def test_a_wrong_value_is_named_and_what_may_be_secret_is_not(
    monkeypatch: pytest.MonkeyPatch, key: str, value: str, told: str
) -> None:
    monkeypatch.setenv(key, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert told in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://u:p@h:1", "http://…@h:1"),
        ("http:/u:p/q@h", "http:/…@h"),
        ("u:p@x@h", "u:…@h"),
        ("h:9200", "h:9200"),
        ("https://h/v1?key=s3cret&model=m", "https://h/v1?key=…&model=…"),
        ("https://h/?s3cret", "https://h/?…"),
        ("h?", "h?"),
        ("http://h#s3cret", "http://h#…"),
    ],
)
def test_an_address_is_shown_without_credentials(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_CLUSTER__PASSWORD", "hunter2")
    settings = load_settings()
    assert settings.cluster.password is not None
    assert settings.cluster.password.get_secret_value() == "hunter2"
    assert "hunter2" not in settings.model_dump_json() + repr(settings)


def test_every_setting_has_a_sentence_and_a_unit_where_it_is_a_time_or_a_size() -> None:
    for line in settings_reference().splitlines():
        if line.startswith("| `"):
            name, _, _, meaning = (cell.strip() for cell in line.strip("|").split(" | "))
            assert meaning.endswith("."), name
            if name.endswith("_s`") and not name.endswith("_per_s`"):
                assert "seconds" in meaning, name
    assert len(Settings.model_fields) == settings_reference().count("\n## ") + 1


@pytest.mark.parametrize(
    "key", ["PROXY__SIDECAR_URL", "RERANKER__URL", "EMBEDDER__URL", "INGEST__SERVER_URL", "INGEST__SERVER__URL"]
)
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("models:8080", "is 'models:8080': .*expected http://HOST:PORT or https://HOST:PORT"),
        ("https://", "is 'https://': .*expected http://HOST:PORT"),
        ("https://me:hunter2@models:8080/rerank", "is 'https://…@models:8080/rerank': .*may not hold credentials"),
    ],
)
def test_the_address_of_a_model_server_is_checked(
    monkeypatch: pytest.MonkeyPatch, key: str, url: str, message: str
) -> None:
    monkeypatch.setenv(f"BRIDGE_{key}", url)
    shown = key.replace("__", ".").lower().replace("server_url", "server.url")
    with pytest.raises(SettingsError, match=f"{shown} {message}") as refused:
        load_settings()
    assert "hunter2" not in str(refused.value)


@pytest.mark.case("S14")
def test_a_key_in_the_address_of_a_model_server_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_EMBEDDER__URL", "https://models/v1?key=s3cret")
    monkeypatch.setenv("BRIDGE_EMBEDDER__API", "tei")
    monkeypatch.setenv("BRIDGE_INGEST__SERVER__URL", "https://models?key=s3cret")
    monkeypatch.setenv("BRIDGE_PROXY__FURTHER_NODES", '["https://u:s3cret@h:9200"]')
    monkeypatch.setenv("BRIDGE_CLUSTER__URL", "https://u:s3cret@h:9200")
    settings = load_settings()
    assert settings.embedder.url == "https://models/v1?key=s3cret"
    shown = settings.model_dump_json() + str(settings.model_dump(mode="json"))
    assert "s3cret" not in shown
    assert "https://models/v1?key=…" in shown
    message = without_secrets("HTTPSConnectionPool: retries exceeded with url: /v1?key=s3cret", settings.embedder.url)
    assert message.endswith("with url: /v1?key=…")


@pytest.mark.case("M7")
@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("BRIDGE_CLUSTR__URL", "BRIDGE_CLUSTER__URL"),
        ("bridge_ingst__encoder", "BRIDGE_INGEST__ENCODER"),
        ("BRIDGE__PROXY__PORT", "BRIDGE_PROXY__PORT"),
        ("BRIDGE_SIDECAR_MAX_DOCUMENTS", "BRIDGE_SIDECAR__MAX_DOCUMENTS"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, "hunter2")
    with pytest.raises(SettingsError, match=f"{variable} is no setting: did you mean {meant}\\?") as refused:
        load_settings()
    assert "hunter2" not in str(refused.value)


@pytest.mark.case("M7")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clustr: {url: 'http://h:9200'}", r"clustr: there is no such setting, did you mean cluster\?"),
        ("ingest: {sever: {url: 'http://h'}}", r"ingest\.sever: .*did you mean ingest\.server"),
        ("zzz: 1", r"zzz: there is no such setting \(docs"),
    ],
)
def test_a_misspelt_section_of_the_file_is_refused_with_the_nearest_name(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bridge.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=message):
        load_settings(path)


def test_variables_that_kubernetes_makes_for_a_service_are_nobodys_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_PROXY_PORT", "tcp://10.0.0.1:9280")
    monkeypatch.setenv("BRIDGE_PROXY_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("BRIDGE_URL", "http://h")
    assert load_settings().proxy.port == 9280


def test_the_server_of_ingest_has_a_section_and_its_older_names_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    older = {"server_url": "http://h/e", "server_api": "openai", "server_model": "m", "server_api_key": "k"}
    settings = load_settings(None, ingest=older)
    assert (settings.ingest.server.url, settings.ingest.server.api, settings.ingest.server.model) == (
        *("http://h/e", "openai", "m"),
    )
    monkeypatch.setenv("BRIDGE_INGEST__SERVER__URL", "http://new")
    assert load_settings(None, ingest=older).ingest.server.url == "http://new"
    with pytest.raises(SettingsError, match=r"ingest\.server: .*api tei and url is not set|api is tei"):
        load_settings(None, ingest={"server_api": "tei", "server": {"url": None}})


NO_ADDRESSES = [
    "http://u:s3cret@[::1",
    "http://u:s3cret@h:99999",
    "http://u:s3cret@h:x",
    "http://u:s3cret@h:0",
    "http://u:s3cret@[zz]:9200",
    "http://u:s3cret@a b:9200",
    "http://u:s3cret@h:9200#s3cret",
    "http://u:s3cret@h\n:9200",
    "http://u:s3cret@h\\x:9200",
    "http://u:s3cret@:9200",
    "//u:s3cret@h:9200",
    "u:s3cret@h:9200",
    "",
]


@pytest.mark.case("S19")
@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_what_is_no_address_is_one_error_wherever_it_is_used_and_shows_no_secret(url: str) -> None:
    for use in (lambda: connect(ClusterSettings(url=url)), lambda: Upstream(ClusterSettings(url=url))):
        with pytest.raises(SettingsError, match=r"cluster\.url is .*: expected http://HOST:PORT") as refused:
            use()
        assert "s3cret" not in str(refused.value)
    with pytest.raises(SettingsError, match=r"proxy\.sidecar_url is .*expected http://HOST:PORT") as refused:
        load_settings(proxy={"sidecar_url": url})
    assert "s3cret" not in str(refused.value)


@pytest.mark.case("S19")
@pytest.mark.parametrize(
    "url", ["http://h", "https://h:9200/x?y=1", "http://[::1]:9200", "http://[fe80::1%25lo]:1", "HTTP://bücher:1"]
)
def test_addresses_of_servers_are_taken(url: str) -> None:
    assert http_address(url).hostname


@pytest.mark.case("S19")
@pytest.mark.parametrize(
    "url",
    [
        "s3://AK:s3cret@bucket/docs.jsonl",
        "s3://bucket/d?access_key=AK&secret_key=s3cret",
        "https://h/d.jsonl?sig=s3cret#s3cret",
    ],
)
def test_a_message_about_an_address_shows_none_of_its_secrets(url: str) -> None:
    message = without_secrets(f"cannot resolve {url}: no such host in '{url.partition('?')[0]}'", url)
    assert "s3cret" not in message
    assert message.startswith("cannot resolve ")
