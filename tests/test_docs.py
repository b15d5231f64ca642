"""The documents say what the program does."""

import re
import subprocess
from pathlib import Path

import pytest

from bridge.settings import settings_reference
from tests.command_reference import reference

ROOT = Path(__file__).parent.parent


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_configuration_lists_every_setting_as_it_is() -> None:
    assert read("docs/reference/configuration.md").endswith(settings_reference()), (
        "docs/reference/configuration.md is stale: replace its tables by the output of `neural-bridge config reference`"
    )


def test_commands_lists_every_option_as_it_is() -> None:
    assert read("docs/reference/commands.md") == reference(), (
        "docs/reference/commands.md is stale: `python -m tests.command_reference > docs/reference/commands.md`"
    )


def test_relative_links_lead_somewhere() -> None:
    missing = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                missing.append(f"{page.relative_to(ROOT)} → {target}")
    assert missing == []


PATHS = re.compile(r"`((?:bridge|ingest|rerank_server|benchmarks|tests|scripts|docker|docs|examples)/[\w./@-]+)`")


def test_every_path_that_the_documents_name_exists() -> None:
    named = {
        (page.relative_to(ROOT).as_posix(), path)
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        if page.name != "CHANGELOG.md"
        for path in PATHS.findall(page.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert sorted(f"{page}: {path}" for page, path in named if not (ROOT / path).exists()) == []


def test_nothing_committed_names_this_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    if listed.returncode != 0:
        pytest.skip("no git checkout")
    hosts = ["pypi" + ".org", "repo1.maven" + ".org", "registry.npmjs" + ".org", "files.python" + "hosted.org"]
    paths = ["/ro" + "ot/", "/ho" + "me/", "/wo" + "rk/"]
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" in content[:8192]:
            continue
        found += [f"{name}: {word}" for word in hosts + paths if word.encode() in content]
    assert found == []
