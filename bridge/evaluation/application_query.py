"""The search body that an application sends for the words that its user typed."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bridge.errors import UsageError

PLACEHOLDER = "%SearchText%"
"""Stands for the user's words in a template, as in the Search Relevance Workbench."""

DEPTH = 100
"""Hits per search, enough for recall@100."""

BodyOf = Callable[[str], dict[str, Any]]
"""The user's words → search body, `size` included."""


def multi_match(fields: Sequence[str]) -> BodyOf:
    """A body with one `multi_match` over `fields`; a field may have a boost, as in `title^3`."""
    return lambda text: {"size": DEPTH, "query": {"multi_match": {"query": text, "fields": list(fields)}}}


def from_template(file: Path) -> BodyOf:
    """Reads the application's own search body, with `%SearchText%` in place of the user's words. The page is replaced
    by the first `DEPTH` hits.

    Raises:
        UsageError: the file is not a JSON object, or lacks the placeholder.
    """
    try:
        template = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"search body {file} cannot be read as JSON: {error}") from error
    if not isinstance(template, dict) or PLACEHOLDER not in json.dumps(template):
        raise UsageError(f"search body {file}: expected a JSON object that holds {PLACEHOLDER} where the words go")
    template.pop("from", None)
    return lambda text: {**_filled(template, text), "size": DEPTH}


def _filled(template: Any, text: str) -> Any:
    if isinstance(template, str):
        return template.replace(PLACEHOLDER, text)
    if isinstance(template, list):
        return [_filled(entry, text) for entry in template]
    if isinstance(template, dict):
        return {key: _filled(value, text) for key, value in template.items()}
    return template
