"""The pages of docs/reference that the program itself knows: `python -m tests.docs.reference_pages` writes them anew.

A test compares them with the files, so a changed option, setting, metric or field reaches the documents.
"""

import inspect
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from prometheus_client.metrics import MetricWrapperBase

from bridge import profile
from bridge.proxy.server.metrics import Metrics as ProxyMetrics
from bridge.settings import settings_reference
from ingest.books.ledger import Ledger
from ingest.follow.metrics import _FollowCollector
from ingest.follow.state import FollowStatus
from rerank_server import openapi
from rerank_server.metrics import Metrics as RerankMetrics
from tests.docs.command_reference import reference as commands

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def pages() -> dict[str, str]:
    """File name in docs/reference → its text."""
    return {
        "commands.md": commands(),
        "configuration.md": CONFIGURATION + settings_reference(),
        "metrics.md": metrics(),
        "meta-fields.md": meta_fields(),
        "sidecar-api.md": sidecar(),
    }


CONFIGURATION = """# Configuration

A value comes from the first of these places that has it: the command's option; the environment; the settings file
(`--config FILE` or `BRIDGE_CONFIG`, YAML with one block per section); the default. An unknown key is an error.
`neural-bridge config show` prints the settings in force, secrets masked. `neural-bridge config reference` prints the
tables below.

"""

METRICS = """# Metrics

Every metric that the processes expose in Prometheus' text format. Labels hold words of the program only, never a word
of a request. [Operate](../how-to/operate.md#watch) says what to do about each alert.

"""


def metrics() -> str:
    sources = (
        ("Proxy", "`/_bridge/metrics` on the admin port.", _metrics(ProxyMetrics())),
        ("Sidecar", "`/metrics`.", _metrics(RerankMetrics())),
        ("Follower", "`/metrics` on the port of `--metrics-port`.", _follower_metrics()),
    )
    sections = [f"## {title}\n\n{where}\n\n{_rows('metric', rows)}" for title, where, rows in sources]
    return METRICS + "\n".join(sections)


def _metrics(owner: object) -> list[tuple[str, ...]]:
    known = [metric for metric in vars(owner).values() if isinstance(metric, MetricWrapperBase)]
    rows = [(_exposed(m._name, str(m._type)), str(m._type), ", ".join(m._labelnames), m._documentation) for m in known]
    if "bridge_build_info" not in [row[0] for row in rows]:
        rows.append(("bridge_build_info", "gauge", "version", "Always 1."))
    return [(f"`{name}`", *rest) for name, *rest in rows]


def _follower_metrics() -> list[tuple[str, ...]]:
    families = _FollowCollector(lambda: [FollowStatus("products", 1, "all", 0.0, Ledger())]).collect()
    return [
        (f"`{_exposed(f.name, f.type)}`", f.type, ", ".join(f.samples[0].labels), f.documentation) for f in families
    ]


def _exposed(name: str, kind: str) -> str:
    return f"{name}_total" if kind == "counter" else name


def _rows(first: str, rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {first} | kind | labels | meaning |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]) + "\n"


META_FIELDS = """# What the bridge stores in `_meta`

The *index profile* is everything that a proxy must know about an index. It is stored in the index's own mapping, under
`_meta.neural_bridge`, so proxies hold no state and any number of them agree. While an index changes its models, the
profile of the second generation is stored under `_meta.neural_bridge_beside`; only `neural-bridge generation` reads it.

```sh
neural-bridge index show products
```

prints it. Write it with `neural-bridge gate`, `tune --apply`, `index rules` and `generation`, not by hand.

## Upgrade notes

Version 1 is the first and only version so far. Fields that a program does not know are ignored; fields that are missing
have the defaults below.

- In the oldest profiles each entry of `text_fields` is an object, `{"name": "title"}`. They are still read, and written
  with plain names at the next change. There is nothing to do.
- A proxy that meets a `version` newer than its own passes the index's searches with `reason=profile_unreadable` and
  upgrades none. So upgrade all proxies before you run a newer ingest.
- A newer program reads every older version.
- An index that was enriched under another object name (`neural` instead of `_neural`) keeps it: `object_field` says so.
"""


def meta_fields() -> str:
    """Every structure of the profile, in the order in which they contain each other."""
    return META_FIELDS + "".join(_structure(kind) for kind in dict.fromkeys(_structures(profile.IndexProfile)))


def _structures(kind: type) -> Iterator[type[msgspec.Struct]]:
    yield kind
    for annotation in kind.__annotations__.values():
        for part in (annotation, *typing.get_args(annotation)):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                yield from _structures(part)


def _structure(kind: type[msgspec.Struct]) -> str:
    lines = [f"\n## {kind.__name__}\n", inspect.cleandoc(kind.__doc__ or ""), ""]
    lines += ["| field | type | default |", "|---|---|---|"]
    lines += [f"| `{field.name}` | {_type(field.type)} | {_default(field)} |" for field in msgspec.structs.fields(kind)]
    return "\n".join(lines) + "\n"


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return f"{_type(arguments[0])}{_range(arguments[1])}"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("none" if part is type(None) else _type(part) for part in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"{_type(arguments[0])} → {_type(arguments[1])}"
    if issubclass(annotation, msgspec.Struct):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return {str: "text", int: "whole number", float: "number", bool: "yes or no"}[annotation]


def _range(meta: msgspec.Meta) -> str:
    if meta.min_length is not None:
        return f", at least {meta.min_length}"
    if meta.gt is not None:
        return f" above {meta.gt:g}"
    return f" from {meta.ge:g}" + (f" to {meta.le:,}" if meta.le is not None else "")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None:
        return "none"
    if isinstance(value, msgspec.Struct):
        return "its defaults"
    return _json(value)


SIDECAR = """# Sidecar, path by path

This page is made from the OpenAPI document that the sidecar serves at `/openapi.json`.
[HTTP interfaces](http-api.md#the-rerank-sidecar) explains scores, cascades, limits and errors.

## Paths

| path | what it does | request | answer |
|---|---|---|---|
"""


def sidecar() -> str:
    """Paths, refusals and request shapes of the sidecar's OpenAPI document."""
    document = openapi.document()
    rows: list[str] = []
    refusals: dict[str, str] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            rows.append(_operation(path, method, operation, document))
            refusals |= {code: answer["description"] for code, answer in operation["responses"].items()}
    del refusals["200"]
    lines = ["\n## Refusals\n", "| status | when |", "|---|---|"]
    lines += [f"| {status} | {when} |" for status, when in sorted(refusals.items())]
    schemas = document["components"]["schemas"]
    shapes = [_shape(name, document) for name in schemas if name.endswith("Request")]
    return SIDECAR + "\n".join(rows + lines) + "\n" + "".join(shapes)


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    request, answer = "", ""
    if body := operation.get("requestBody"):
        name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        request = f"[{name}](#{name.lower()})"
    for kind in operation["responses"]["200"]["content"].values():
        answer = _schema(kind["schema"], document) if "schema" in kind else ""
    return f"| `{method.upper()} {path}` | {operation['summary']} | {request} | {answer} |"


def _shape(name: str, document: dict[str, Any]) -> str:
    schema = document["components"]["schemas"][name]
    lines = [f"\n## {name}\n", "| field | type | default | meaning |", "|---|---|---|---|"]
    for field, what in schema["properties"].items():
        default = "required" if field in schema.get("required", []) else _json(what.get("default"))
        meaning = " ".join(str(what.get("description", "")).split())
        lines.append(f"| `{field}` | {_schema(what, document)} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _json(value: object) -> str:
    return "none" if value is None else f"`{msgspec.json.encode(value).decode()}`"


def _resolved(node: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def _schema(node: dict[str, Any], document: dict[str, Any]) -> str:
    node = _resolved(node, document)
    if choices := node.get("anyOf"):
        return " or ".join(shown for choice in choices if (shown := _schema(choice, document)) != "null")
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if node.get("type") == "array":
        inner = _schema(node["items"], document)
        return f"array of ({inner})" if " or " in inner else f"array of {inner}"
    if node.get("properties"):
        return f"object with {', '.join(f'`{name}`' for name in node['properties'])}"
    return str(node["type"])


def main() -> None:
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
        sys.stderr.write(f"docs/reference/{name}\n")


if __name__ == "__main__":
    main()
