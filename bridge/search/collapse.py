"""Collapsed searches: which group a document belongs to, and the first document of each group.

Documents with the same value of a field are one group, and so are all that have no value, as in the cluster. Values are
those that the cluster returns as doc values of the field, to the caller: it groups by the same.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias, TypeVar

from bridge.records import Hit, Key, RankedHit
from bridge.search.json_tree import Json
from bridge.search.text_clause import NotUnderstood

Group: TypeAlias = Hashable
"""A value of the field; None for the documents without one."""

_MEMBERS = frozenset({"field", "inner_hits", "max_concurrent_group_searches"})

_AnyHit = TypeVar("_AnyHit", Hit, RankedHit)


@dataclass(frozen=True, slots=True)
class Collapse:
    """The `collapse` of a search: its `field`, the names of its `inner_hits`, and the `body` as it came."""

    field: str
    inner_hits: Sequence[str]
    body: Json

    @classmethod
    def of(cls, body: Json) -> Self:
        """
        Raises:
            NotUnderstood: a member is not known, or the cluster has to say what it means.
        """
        if not isinstance(body, dict) or not body.keys() <= _MEMBERS:
            raise NotUnderstood("collapse")
        field, inner = body.get("field"), body.get("inner_hits", [])
        # A pattern names several fields, and fields of the cluster's own have no doc values.
        if not isinstance(field, str) or field[:1] in ("", "_") or "*" in field:
            raise NotUnderstood("collapse")
        each = inner if isinstance(inner, list) else [inner]
        named = [options.get("name") if isinstance(options, dict) else None for options in each]
        names = [name for name in named if isinstance(name, str)]
        if len(set(names)) < len(each):
            raise NotUnderstood("collapse")
        return cls(field, names, body)

    def group(self, fields: Mapping[str, Sequence[object]]) -> Group:
        """The group of a document with these doc values.

        Raises:
            ValueError: it has several values, or one that is neither text nor a number: the cluster groups no such
                document.
        """
        match [value for value in fields.get(self.field, ()) if value is not None]:
            case []:
                return None
            case [str() | int() | float() as value]:
                return value
            case values:
                raise ValueError(f"{self.field} has the values {values}, expected one text or number")

    def clause(self, groups: Iterable[Group]) -> Json:
        """Finds the documents of these groups, one at least."""
        values = list(groups)
        either: list[Json] = []
        if named := [value for value in values if value is not None]:
            either.append({"terms": {self.field: named}})
        if len(named) < len(values):
            either.append({"bool": {"must_not": [{"exists": {"field": self.field}}]}})
        return {"bool": {"should": either}}


def groups_of(hits: Iterable[Hit], collapse: Collapse | None) -> dict[Key, Group]:
    """The group of each document that can be in one; each document is its own if the search is not collapsed."""
    if collapse is None:
        return {hit.key: hit.key for hit in hits}
    groups: dict[Key, Group] = {}
    for hit in hits:
        try:
            groups[hit.key] = collapse.group(hit.fields)
        except ValueError:
            continue
    return groups


def first_of_each(hits: Iterable[_AnyHit], groups: Mapping[Key, Group]) -> list[_AnyHit]:
    """The first hit of each group, in their order; hits without a group are left out."""
    firsts: dict[Group, _AnyHit] = {}
    for hit in hits:
        if hit.key in groups:
            firsts.setdefault(groups[hit.key], hit)
    return list(firsts.values())
