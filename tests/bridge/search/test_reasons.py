import re
from pathlib import Path

import bridge.proxy
import bridge.search
from bridge.search.reasons import CLAUSES, REASONS, table

ROOT = Path(__file__).parents[3]


def test_every_reason_is_explained_and_no_other() -> None:
    sources = [path for package in (bridge.search, bridge.proxy) for path in Path(package.__path__[0]).rglob("*.py")]
    written = "\n".join(path.read_text() for path in sources if path.name != "reasons.py")
    given = set(re.findall(r'(?:LeaveAlone|NotUnderstood)\(\s*"([a-z_0-9]+)"', written))

    assert given - REASONS.keys() - set(CLAUSES) == set()
    assert {reason for reason in REASONS if f'"{reason}"' not in written} == set()


def test_the_documentation_lists_every_reason() -> None:
    assert "\n".join(table()) in (ROOT / "docs" / "reference" / "http-api.md").read_text()
