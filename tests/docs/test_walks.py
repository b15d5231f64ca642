"""The walks of docs/explanation/architecture.md: their files exist, and the proxy's walk misses no file of a search."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import DOCS
from tests.house import files_of_a_search

ROOT = DOCS.parent
PAGE_LINES = 50
"""A walk is at most one printed page."""


def walks() -> dict[str, str]:
    """Heading → text of each walk."""
    sections = (DOCS / "explanation" / "architecture.md").read_text(encoding="utf-8").split("\n## ")
    return {
        heading: text for section in sections for heading, _, text in [section.partition("\n")] if "Walk" in heading
    }


def files_in(text: str) -> list[str]:
    """The files that a walk names, in reading order."""
    return re.findall(r"`([\w./-]+\.(?:py|md))`", text)


def test_there_is_a_walk_to_a_first_search_and_one_to_the_answer() -> None:
    assert {"Walk: from README to a first search of your own", "Walk: from the proxy to the answer"} <= walks().keys()


@pytest.mark.parametrize("heading", walks())
def test_a_walk_fits_one_page_and_its_files_exist(heading: str) -> None:
    text = walks()[heading]
    assert len(text.splitlines()) <= PAGE_LINES
    named = files_in(text)
    assert len(named) > 5
    assert [file for file in named if not Path(ROOT, file).is_file()] == []
    assert len(named) == len(set(named))


async def test_the_walk_to_the_answer_names_every_file_that_a_search_enters() -> None:
    rooms = ("bridge/proxy/", "bridge/search/")
    entered = {file for file in await files_of_a_search() if file.startswith(rooms)}
    named = {file for file in files_in(walks()["Walk: from the proxy to the answer"]) if file.startswith(rooms)}
    assert len(entered) > 10
    assert sorted(entered - named) == [], "name these files in docs/explanation/architecture.md"
