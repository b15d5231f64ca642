"""Alerts, dashboard and docs/how-to/operate.md speak of metrics that exist, with labels that they have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import requests
import yaml
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from bridge.proxy.server.metrics import Metrics as ProxyMetrics
from ingest.books.ledger import Ledger
from ingest.follow.metrics import metrics_served
from ingest.follow.state import FollowStatus
from rerank_server.metrics import Metrics as RerankMetrics

ROOT = Path(__file__).parent.parent.parent
OPERATIONS = ROOT / "scripts" / "operations"
OF_EVERY_TARGET = {"job", "instance"}
SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}


def series() -> dict[str, set[str]]:
    """Every time series that the services expose, with the names of its labels."""
    found = {"up": OF_EVERY_TARGET}
    for metrics in (ProxyMetrics(), RerankMetrics()):
        for metric in vars(metrics).values():
            if isinstance(metric, MetricWrapperBase):
                for suffix in SUFFIXES[metric._type or "gauge"]:
                    labels = {*metric._labelnames, *OF_EVERY_TARGET} | ({"le"} if suffix == "_bucket" else set())
                    found[metric._name + suffix] = labels
    found["bridge_build_info"] = {"version", "model", *OF_EVERY_TARGET}
    status = FollowStatus("products", 1, "all", 0.0, Ledger())
    with metrics_served(lambda: [status], host="127.0.0.1", port=0) as port:
        exposed = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    for family in text_string_to_metric_families(exposed):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, set()) | {*sample.labels, *OF_EVERY_TARGET}
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((OPERATIONS / "prometheus-rules.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((OPERATIONS / "grafana-dashboard.json").read_text(encoding="utf-8"))[
        "panels"
    ]
    return found


def expressions() -> list[tuple[str, str]]:
    """What alerts and panels ask, each with a name."""
    alerts = [(rule["alert"], rule["expr"]) for rule in rules()]
    return alerts + [
        (f"{panel['title']} {target['refId']}", target["expr"].replace("$__rate_interval", "5m"))
        for panel in panels()
        for target in panel["targets"]
    ]


def selectors(node: object) -> Iterator[Any]:
    """The vector selectors of a parsed expression."""
    match node:
        case promql.VectorSelector():
            yield node
        case promql.MatrixSelector():
            yield node.vector_selector
        case promql.BinaryExpr():
            yield from selectors(node.lhs)
            yield from selectors(node.rhs)
        case promql.Call():
            for argument in node.args:
                yield from selectors(argument)
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from selectors(node.expr)
        case _:
            return


def groupings(text: str) -> set[str]:
    """Label names of every `by (…)`."""
    return {
        name.strip() for names in re.findall(r"\bby \(([^)]*)\)", text) for name in names.split(",") if name.strip()
    }


@pytest.mark.parametrize(("title", "text"), expressions(), ids=[title for title, _ in expressions()])
def test_an_expression_asks_for_what_is_exposed(title: str, text: str) -> None:
    known = series()
    parsed = promql.parse(text)
    asked = list(selectors(parsed))

    assert asked, title
    for selector in asked:
        assert selector.name in known, title
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= known[selector.name], title
    of_all = set.union(*(known[selector.name] for selector in asked))
    assert groupings(text) <= of_all, title


def test_a_name_that_is_not_exposed_would_be_noticed() -> None:
    [selector] = selectors(promql.parse("sum by (reason) (rate(bridge_proxy_degradeds_total[5m]))"))
    assert selector.name not in series()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert {"summary", "remedy"} <= rule["annotations"].keys()
    assert f"`{rule['alert']}`" in (ROOT / "docs" / "how-to" / "operate.md").read_text(encoding="utf-8")


def test_every_metric_is_explained_to_operators() -> None:
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    exposed = {re.sub(r"_(bucket|count|sum)$", "", name) for name in series() if name.startswith("bridge_")}
    assert sorted(name for name in exposed if f"| `{name}` |" not in text) == []


def test_every_line_on_failures_is_held_by_a_test() -> None:
    text = (ROOT / "docs" / "how-to" / "operate.md").read_text(encoding="utf-8")
    named = re.findall(r"\| `(test_\w+)` \|", text)
    written = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in written] == []
