"""What User Behavior Insights 1.3 and its indices say of their fields, and what the Workbench's reader adds.

Sources: the schemas of the standard (o19s/ubi), the mappings of opensearch-project/user-behavior-insights and the
classes that opensearch-project/search-relevance reads events into.
"""

from collections.abc import Mapping
from typing import Any

_NO_LIMIT = 1_000_000
LONGEST = {
    "action_name": 100,
    "application": 100,
    "client_id": 100,
    "query_id": 100,
    "session_id": 100,
    "user_id": 100,
    "message_type": 100,
    "message": 1024,
    "timestamp": 24,
    "user_query": _NO_LIMIT,
    "query_response_id": 100,
    "query_response_hit_ids": _NO_LIMIT,
    "query_attributes": _NO_LIMIT,
    "event_attributes.object.object_id": 256,
    "event_attributes.object.object_id_field": 100,
    "event_attributes.object.internal_id": 256,
    "event_attributes.position.ordinal": 10,
}
"""The fields and how many characters a value of each may have."""

UNKNOWN_TO_THE_WORKBENCH = {"user_id", "event_attributes.object.internal_id"}
"""The standard has these fields. The Workbench leaves events out that have one."""

_KEYWORD = {"type": "keyword"}
_SHORT = {"type": "keyword", "ignore_above": 100}
_DATE = {"type": "date", "format": "strict_date_time"}
MAPPINGS: dict[str, dict[str, Any]] = {
    "ubi_queries": {
        "timestamp": _DATE,
        "query_id": _SHORT,
        "query": {"type": "text"},
        "query_response_id": _SHORT,
        "query_response_hit_ids": _KEYWORD,
        "user_query": _KEYWORD,
        "query_attributes": {"type": "flat_object"},
        "client_id": _SHORT,
        "application": _SHORT,
    },
    "ubi_events": {
        "application": _SHORT,
        "action_name": _SHORT,
        "client_id": _SHORT,
        "query_id": _SHORT,
        "message": _KEYWORD,
        "message_type": _SHORT,
        "user_query": _KEYWORD,
        "timestamp": _DATE,
        "event_attributes": {
            "properties": {
                "position": {"properties": {"ordinal": {"type": "integer"}}},
                "object": {"properties": {"object_id": _KEYWORD, "object_id_field": _SHORT}},
            }
        },
    },
}
"""Fields by index. The plugin's own indices take further fields, too; a test makes them strict."""


def fields(document: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a query or an event by the paths of their fields."""
    found = {name: value for name, value in document.items() if name != "event_attributes"}
    for name, value in document.get("event_attributes", {}).items():
        found |= {f"event_attributes.{name}.{key}": part for key, part in value.items()}
    return found
