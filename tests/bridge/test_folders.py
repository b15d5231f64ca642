"""Where the user's files lie, with and without the environment's word."""

import os
from pathlib import Path

import pytest

from bridge.folders import default_state_folder, user_cache_folder


def test_the_environment_chooses_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert user_cache_folder() == tmp_path / "cache" / "neural-bridge"
    assert default_state_folder("backfill", "products") == tmp_path / "state/neural-bridge/backfill/products"


@pytest.mark.parametrize("unset", [None, ""])
def test_without_it_they_lie_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unset: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
        if unset is not None:
            monkeypatch.setenv(name, unset)
    assert user_cache_folder() == tmp_path / ".cache" / "neural-bridge"
    assert default_state_folder("ingest", "docs") == tmp_path / ".local/state/neural-bridge/ingest/docs"


def test_the_cache_of_root_can_be_entered_by_other_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert user_cache_folder() == Path("/var/cache/neural-bridge")
