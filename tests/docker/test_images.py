"""The images: built by their own steps in plain folders, and what is in them started as it would be."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.docker.plain_folder import PlainFolderBuild, Stage

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = ROOT / "docker" / "Dockerfile"
SERVED = {"proxy": (9280, 9281), "rerank-server": (9290,)}
PORT_SETTINGS = {9280: "BRIDGE_PROXY__PORT", 9281: "BRIDGE_PROXY__ADMIN_PORT", 9290: "BRIDGE_SIDECAR__PORT"}
READY = {"proxy": (9281, "/_bridge/health"), "rerank-server": (9290, "/ready")}


def test_the_dockerfile_is_as_linters_want_it() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> PlainFolderBuild:
    return PlainFolderBuild(DOCKERFILE, ROOT, tmp_path_factory.mktemp("images"))


@pytest.fixture(params=["proxy", "rerank-server", "ingest"])
def image(images: PlainFolderBuild, request: pytest.FixtureRequest) -> tuple[PlainFolderBuild, str, Stage]:
    stage = images.build(request.param)
    images.enter(stage)
    return images, request.param, stage


def environment(stage: Stage, **more: str) -> dict[str, str]:
    """What a container would have, and nothing of this machine's."""
    return {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", **stage.environment, **more}


def run(build: PlainFolderBuild, stage: Stage, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [build.outside(word) for word in (*stage.entrypoint, *arguments)]
    return subprocess.run(words, env=environment(stage), capture_output=True, text=True, check=True, timeout=300)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_an_image_starts_as_it_says_and_changes_none_of_its_files(
    image: tuple[PlainFolderBuild, str, Stage],
) -> None:
    build, name, stage = image
    assert stage.user.split(":")[0].isdigit()
    assert stage.user != "0"
    before = state_of(stage.folder)

    if name not in SERVED:
        assert "Usage: neural-bridge ingest" in run(build, stage, *stage.command).stdout
        models = json.loads(run(build, stage, "models", "list", "--json").stdout)
        assert {"encoder", "query_generator"} <= {model["kind"] for model in models}
    else:
        assert stage.ports == SERVED[name]
        start_and_check(build, name, stage)

    assert state_of(stage.folder) == before


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_image_of_the_proxy_holds_no_model_and_no_inference_engine(images: PlainFolderBuild) -> None:
    folder = images.build("proxy").folder

    names = {path.name for path in folder.rglob("*")}
    assert not {"onnxruntime", "tokenizers", "ctranslate2", "builtin", "opensearchpy", "pip"} & names
    assert {"aiohttp", "static"} <= names


def state_of(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*") if not path.is_dir()}


def start_and_check(build: PlainFolderBuild, name: str, stage: Stage) -> None:
    """Starts the image's command on free ports, and asks its own health check."""
    ports = {port: free_port() for port in stage.ports}
    given = {PORT_SETTINGS[port]: str(free) for port, free in ports.items()}
    words = [build.outside(word) for word in (*stage.entrypoint, *stage.command)]
    with subprocess.Popen(words, env=environment(stage, **given), stderr=subprocess.PIPE) as server:
        try:
            port, path = READY[name]
            wait_until_answered(server, f"http://127.0.0.1:{ports[port]}{path}")
            assert stage.health_check is not None
            check = [moved(build.outside(word), ports) for word in stage.health_check]
            assert any(str(ports[port]) in word for word in check)
            subprocess.run(check, env=environment(stage), check=True, timeout=60)
        finally:
            server.terminate()
            server.communicate(timeout=60)
    assert server.returncode == 0
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(check, env=environment(stage), check=True, timeout=60, stderr=subprocess.DEVNULL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def moved(text: str, ports: dict[int, int]) -> str:
    for port, free in ports.items():
        text = text.replace(f":{port}/", f":{free}/")
    return text


def wait_until_answered(server: "subprocess.Popen[Any]", url: str) -> None:
    ends = time.monotonic() + 300
    while time.monotonic() < ends and server.poll() is None:
        try:
            if requests.get(url, timeout=5).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    raise AssertionError(f"{url} was never answered; exit code {server.poll()}")
