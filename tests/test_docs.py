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
    assert read("docs/configuration.md").endswith(settings_reference()), (
        "docs/configuration.md is stale: replace its tables with the output of `neural-bridge config reference`"
    )


def test_commands_lists_every_option_as_it_is() -> None:
    assert read("docs/commands.md") == reference(), (
        "docs/commands.md is stale: `python -m tests.command_reference > docs/commands.md`"
    )


def test_relative_links_lead_somewhere() -> None:
    missing = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                missing.append(f"{page.relative_to(ROOT)} → {target}")
    assert missing == []


def test_architecture_names_every_module() -> None:
    text = read("docs/architecture.md")
    modules = [
        path.relative_to(ROOT).as_posix()
        for package in ("bridge", "ingest", "rerank_server")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    ]
    assert [module for module in modules if f"`{module}`" not in text] == []


def test_architecture_names_no_module_that_is_gone() -> None:
    named = re.findall(r"`((?:bridge|ingest|rerank_server)/[\w/]+\.py)`", read("docs/architecture.md"))
    assert [module for module in named if not (ROOT / module).is_file()] == []


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
