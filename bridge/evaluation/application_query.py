"""The search body that an application sends for what its user typed."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bridge.errors import UsageError

PLACEHOLDER = "%SearchText%"
"""What stands for the user's words in a template, as in the Search Relevance Workbench."""

DEPTH = 100
"""Hits asked for: recall@100 needs as many."""

BodyOf = Callable[[str], dict[str, Any]]
"""The user's words → search body, `size` included."""


def multi_match(fields: Sequence[str]) -> BodyOf:
    """One `multi_match` over some fields; boosts may be written as `title^3`."""
    return lambda text: {"size": DEPTH, "query": {"multi_match": {"query": text, "fields": list(fields)}}}


def from_template(file: Path) -> BodyOf:
    """The application's own search body, with `%SearchText%` where the user's words go; its page is replaced by
    the first `DEPTH` hits.

    Raises:
        UsageError: the file is no JSON object, or the words have no place in it.
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
