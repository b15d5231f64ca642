"""An address travels to other machines, its password does not."""

import pickle
from pathlib import Path

import pytest
from pydantic import SecretStr

from bridge.settings import ClusterSettings
from ingest.ray.cluster_address import ClusterAddress


def test_the_password_comes_from_the_machine_and_does_not_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_CLUSTER__PASSWORD", "s3cret")
    cluster = ClusterSettings(url="https://search:9200", username="ops", password=SecretStr("not for others"))
    address = ClusterAddress.of(cluster, None)
    assert not [secret for secret in (b"s3cret", b"not for others") if secret in pickle.dumps(address)]
    found = address.settings()
    assert (found.url, found.username, found.password) == (cluster.url, "ops", SecretStr("s3cret"))


def test_each_machine_reads_its_own_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRIDGE_CLUSTER__PASSWORD", raising=False)
    file = tmp_path / "bridge.yaml"
    file.write_text("cluster:\n  password: of this machine\n")
    address = ClusterAddress.of(ClusterSettings(url="https://search:9200"), file)
    assert address.settings().password == SecretStr("of this machine")
