"""A stack that nobody kept; tests/integration keeps one."""

from pathlib import Path

from bridge.demo.stack import folder_of, is_kept, stop
from bridge.settings import NodeSettings, Settings


def test_nothing_is_kept_in_a_fresh_folder(tmp_path: Path) -> None:
    settings = Settings(node=NodeSettings(cache_dir=tmp_path))
    assert folder_of(settings.node).is_dir()
    assert not is_kept(settings.node)
    assert stop(settings) is False
