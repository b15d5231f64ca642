"""The documents say what the program does."""

import re
import subprocess
from pathlib import Path

import pytest

from bridge.search.reasons import REASONS
from tests.docs.blocks import check_command
from tests.docs.reference_pages import pages

ROOT = Path(__file__).parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", pages())
def test_a_reference_page_says_what_the_program_knows(name: str) -> None:
    assert read(f"docs/reference/{name}") == pages()[name], (
        "`python -m tests.docs.reference_pages` writes the page anew"
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


def test_every_command_that_a_sentence_names_exists() -> None:
    named = {
        (page.relative_to(ROOT).as_posix(), " ".join(found.split()))
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        if page.name != "commands.md"
        for found in re.findall(r"`neural-bridge( [^`]*)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 50
    for page, words in sorted(named):
        check_command(re.sub(r"[|…\[\]]", " ", words).split(), page)


def test_every_reason_has_a_remedy() -> None:
    text = read("docs/how-to/troubleshoot.md")
    assert [reason for reason in REASONS if f"`{reason}`" not in text] == []


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
