"""The documents are in plain English: none of the phrases that readers stumbled over.

Subject, verb, object; `if`, `when`, `unless` for conditions. `where` is for places and for formulae.
"""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import DOCS, README

ROOT = README.parent
WRITTEN = [
    README,
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md")),
    *sorted(page for page in DOCS.rglob("*.md") if page.name not in ("commands.md", "configuration.md")),
]
PUZZLING = {
    "as far as": "if, or how far",
    "it is told": "say who tells whom",
    "is told": "say who tells whom",
    "are told": "say who tells whom",
    "tells of": "says, or shows",
    "tell of": "say, or show",
    "was not foreseen": "unexpected",
    "come what may": "even after a crash",
    "just so": "unchanged",
    "of its own accord": "by itself",
    "for one's own": "for your",
    "of one's own": "of your own",
    "had the say": "the weight",
    "put to the same tests": "tested alike",
    "what there is": "what exists",
    "that there are": "that exist",
    "asked straight": "measured alone",
    "but for": "except",
    "is simply run again": "run it again",
    "makes no difference to": "does not matter for",
    "at the median": "median",
}
"""Phrase → what to write."""
CONDITION = re.compile(r"(?:^|[.;] )[Ww]here (?:it|they|the|a|an|no|there|that|this|we|you|all|its|those|nothing)\b")


def prose(text: str) -> list[tuple[int, str]]:
    """Lines outside code blocks, with their numbers."""
    lines, is_code = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code:
            lines.append((number, line))
    return lines


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_is_in_plain_english(page: Path) -> None:
    found = []
    for number, line in prose(page.read_text(encoding="utf-8")):
        found += [
            f"{number}: “{phrase}”: write {instead}" for phrase, instead in PUZZLING.items() if phrase in line.lower()
        ]
        if CONDITION.search(line):
            found.append(f"{number}: “where” as a condition: write if, when or unless: {line}")
    assert found == []


def test_a_puzzling_phrase_would_be_noticed() -> None:
    assert CONDITION.search("A stage passes. Where it harms, it stays off.")
    assert not CONDITION.search("Say where it is.")
