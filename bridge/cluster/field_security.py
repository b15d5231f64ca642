"""Field-level and document-level security: which roles show what the bridge made of a hidden field, and does the
cluster hide part of an index from this user?

Predicted queries and vectors reveal the text that they were made from, so a rule that hides the text must hide them
too.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote

from opensearchpy import OpenSearch

from bridge.cluster.connection import Answer, exchange
from bridge.errors import AccessDenied
from bridge.profile import IndexProfile

OPENSEARCH_ROLES = "/_plugins/_security/api/roles"
ELASTICSEARCH_ROLES = "/_security/role"


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What a role shows of some indices: fields `granted`, except those `hidden`; `masked` ones are unreadable.

    All are patterns with `*`.
    """

    role: str
    indices: Sequence[str]
    granted: Sequence[str]
    hidden: Sequence[str]
    masked: Sequence[str]

    def shows(self, field: str) -> bool:
        """Whether the field can be read or searched. OpenSearch searches by the field's full name: a rule that hides
        the object around the field only removes it from documents."""
        return _matches(field, self.granted) and not any(fnmatchcase(field, pattern) for pattern in self.hidden)

    def protects(self, field: str) -> bool:
        """Whether the rule is meant to keep the field from being read."""
        return not _matches(field, self.granted) or _matches(field, [*self.hidden, *self.masked])


def field_rules(roles: Mapping[str, Any]) -> Iterator[FieldRule]:
    """The rules in the answer of `OPENSEARCH_ROLES` or of `ELASTICSEARCH_ROLES`."""
    for role, of in roles.items():
        for permission in of.get("index_permissions", ()):
            fields = permission.get("fls") or []
            hidden = [name[1:] for name in fields if name.startswith("~")]
            granted = [name for name in fields if not name.startswith("~")]
            # "name", or "name::how it is masked".
            masked = [name.split("::")[0] for name in permission.get("masked_fields") or ()]
            yield FieldRule(role, permission["index_patterns"], granted or ["*"], hidden, masked)
        for permission in of.get("indices", ()):
            fields = permission.get("field_security") or {}
            yield FieldRule(role, permission["names"], fields.get("grant") or ["*"], fields.get("except") or [], [])


def uncovered(rules: Iterator[FieldRule], index: str, profile: IndexProfile) -> Iterator[str]:
    """A sentence for each rule that protects a text field of the index but not what was made of it."""
    made = [profile.predicted_queries_field, *profile.encoded_fields]
    for rule in rules:
        if not any(fnmatchcase(index, pattern) for pattern in rule.indices):
            continue
        names = profile.text_fields
        protected = [name for name in names if rule.protects(name)]
        shown = [name for name in made if rule.shows(name)]
        if protected and shown:
            difference = f"protects {', '.join(protected)}, and shows {', '.join(shown)}, made of the same text"
            yield f"role {rule.role} {difference}"


def _matches(field: str, patterns: Sequence[str]) -> bool:
    """Whether the field or an object around it is among them."""
    parts = field.split(".")
    names = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


_NO_DOCUMENT = "neural-bridge-asks-for-what-is-not-there"
_UPDATE = b'{"doc":{}}'
_BULK_UPDATE = b'{"update":{"_id":"%s"}}\n%s\n' % (_NO_DOCUMENT.encode(), _UPDATE)
_NO_MAPPING = b'{"properties":{"%s":{"type":"%s"}}}' % (_NO_DOCUMENT.encode(), _NO_DOCUMENT.encode())
"""No cluster knows this type of field: it refuses that, unless it refuses the user first."""
_SAID = re.compile(rb"FLS or DLS|field or document level security", re.IGNORECASE)
"""OpenSearch's words, and Elasticsearch's."""


def refuse_restricted(client: OpenSearch, index: str) -> None:
    """Makes sure, before the first write, that the cluster hides nothing of an index from this user.

    Clusters refuse updates by users who are subject to such rules, and say why: so this asks to update a document that
    does not exist.

    Raises:
        AccessDenied: some documents or fields are hidden from this user, or masked.
    """
    answer = exchange(client, "POST", f"/{index}/_update/{_NO_DOCUMENT}", body=_UPDATE)
    if answer.status == 403 and not _says_so(answer):
        # The node checks a read-only user's permission first; of a bulk request it checks only the cluster's.
        answer = exchange(client, "POST", f"/{index}/_bulk", body=_BULK_UPDATE, content_type="application/x-ndjson")
    if _says_so(answer):
        raise AccessDenied(
            f"index {index}: a role of this user hides documents or fields, or masks them (document-level or "
            f"field-level security), so what is read is not what is stored; nothing was changed: use a "
            f"cluster.username whose roles have no such rule for {index}"
        )


def write_denials(client: OpenSearch, index: str) -> list[str]:
    """What this user lacks to enrich an index in place, one sentence at most. Nothing is written: the requests name a
    document and a type of field that do not exist."""
    path = quote(index, safe="")
    for what, answer in (
        ("documents", exchange(client, "POST", f"/{path}/_update/{_NO_DOCUMENT}", body=_UPDATE)),
        ("mapping", exchange(client, "PUT", f"/{path}/_mapping", body=_NO_MAPPING)),
    ):
        if answer.status in (401, 403) and b"cluster_block_exception" not in answer.body:
            return [f"this user may not write its {what}"]
    return []


def _says_so(answer: Answer) -> bool:
    return _SAID.search(answer.body) is not None
