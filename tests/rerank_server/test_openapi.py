"""The published document, beside the routes that there are."""

from pathlib import Path

from rerank_server.errors import STATUSES
from rerank_server.openapi import document
from tests.rerank_server.running import running, toy_models


async def test_every_route_is_described_and_no_other(tmp_path: Path) -> None:
    async with running(toy_models(tmp_path)) as client:
        router = client.sidecar.application().router
    served = {
        (route.resource.canonical, route.method.lower())
        for route in router.routes()
        if route.resource is not None and route.method in ("GET", "POST")
    }
    described = {(path, method) for path, methods in document()["paths"].items() for method in methods}

    assert described - served == set()
    assert {path for path, _ in served - described} <= {"/"}


def test_every_refusal_has_its_status_in_the_document() -> None:
    responses = document()["paths"]["/rerank"]["post"]["responses"]

    assert {str(status) for status, _ in STATUSES.values()} <= set(responses)


def test_every_reference_leads_to_a_schema() -> None:
    whole = document()

    def references(part: object) -> set[str]:
        if isinstance(part, dict):
            own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
            return own.union(*map(references, part.values()))
        return set().union(*map(references, part)) if isinstance(part, list) else set()

    schemas = {f"#/components/schemas/{name}" for name in whole["components"]["schemas"]}
    assert references(whole) - schemas == set()
