"""compose.yaml and the Kubernetes manifests: valid, and in agreement with the images and the settings."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner
from dockerfile_parse import DockerfileParser

from bridge.cli import cli
from bridge.settings import Settings

DOCKER = Path(__file__).parent.parent.parent / "docker"
COMPOSE = DOCKER / "compose.yaml"
KUBERNETES = sorted((DOCKER / "kubernetes").glob("*.yaml"))
PROBES = {"/health", "/ready", "/metrics", "/_bridge/health", "/_bridge/ready", "/_bridge/metrics"}


def images() -> dict[str, set[int]]:
    """Stage of the Dockerfile → ports that it exposes."""
    found: dict[str, set[int]] = {}
    name = ""
    for step in DockerfileParser(path=str(DOCKER / "Dockerfile")).structure:
        if step["instruction"] == "FROM":
            name = step["value"].partition(" AS ")[2]
            found[name] = set()
        elif step["instruction"] == "EXPOSE":
            found[name] |= {int(port) for port in step["value"].split()}
    return found


def manifests() -> list[dict[str, Any]]:
    return [manifest for file in KUBERNETES for manifest in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def inside(tree: Any, key: str) -> Iterator[Any]:
    """Every value under `key`, at any depth."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from inside(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from inside(value, key)


def assert_is_a_setting(variable: str) -> None:
    section, _, key = variable.removeprefix("BRIDGE_").lower().partition("__")
    model: Any = Settings.model_fields[section].annotation
    assert key in model.model_fields, variable


def assert_is_a_command(words: list[str]) -> None:
    shown = CliRunner().invoke(cli, [*words, "--help"])
    assert shown.exit_code == 0, shown.output
    for option in (word for word in words if word.startswith("--")):
        assert option in shown.output, option


def test_compose_follows_the_specification() -> None:
    words = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_builds_and_sets_what_there_is() -> None:
    known = images()
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]

    for service in (service for service in services.values() if "build" in service):
        build = service["build"]
        assert (COMPOSE.parent / build["context"] / build["dockerfile"]).is_file()
        published = {int(port.rpartition(":")[2]) for port in service.get("ports", ())}
        assert published == known[build["target"]]
        assert service["read_only"]
        for variable in service.get("environment", ()):
            assert_is_a_setting(variable)
        if "command" in service:
            assert_is_a_command([re.sub(r"\$\{\w+:-(.*)\}", r"\1", word) for word in service["command"]])


@pytest.mark.parametrize(
    "manifest", manifests(), ids=lambda manifest: f"{manifest['kind']}-{manifest['metadata']['name']}"
)
def test_a_manifest_is_valid_and_agrees_with_its_image(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.33", strict=True)
    known = images()

    for container in (each for containers in inside(manifest, "containers") for each in containers):
        image = container["image"].rpartition("/")[2].partition(":")[0]
        assert {port["containerPort"] for port in container.get("ports", ())} == known[image]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        for variable in container.get("env", ()):
            assert_is_a_setting(variable["name"])
        assert_is_a_command(container.get("args", []))
    for pod in inside(manifest, "template"):
        if "containers" in pod["spec"]:
            assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert {probe["path"] for probe in inside(manifest, "httpGet")} <= PROBES


def test_services_lead_to_pods_that_there_are() -> None:
    labels = [
        found for manifest in manifests() for pod in inside(manifest, "template") for found in inside(pod, "labels")
    ]
    services = [manifest for manifest in manifests() if manifest["kind"] == "Service"]
    assert len(services) == 3
    for service in services:
        assert any(service["spec"]["selector"].items() <= found.items() for found in labels), service["metadata"]
