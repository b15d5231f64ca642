"""The wheel: it holds the program and its models and nothing else, and it declares all that it imports."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("bridge", "ingest", "rerank_server")
LARGEST_MB = 85
MODELS = {"doc2query-small", "embed-base", "embed-static", "rerank-base", "rerank-tiny", "sparse-tiny"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git tracks: setuptools leaves a folder beside what it builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.splitlines()):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run([*build, "-q", "-w", str(out)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    [file] = out.glob("*.whl")
    return file


@pytest.mark.slow
def test_the_wheel_holds_the_program_and_its_models_alone(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST_MB * 1_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    in_models = [name.split("/") for name in names if name.startswith("bridge/models/builtin/")]
    assert {parts[3] for parts in in_models} == MODELS
    modules = {name for name in names if name.endswith(".py")}
    assert modules == {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    kinds = {Path(name).suffix for name in names if name.split("/")[0] in PACKAGES}
    assert kinds == {
        ".py",
        ".pyi",
        ".typed",
        ".onnx",
        ".bin",
        ".npy",
        ".json",
        ".jsonl",
        ".txt",
        ".toml",
        ".js",
        ".css",
        ".html",
        ".svg",
    }


@pytest.mark.slow
def test_the_program_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "neural-bridge = bridge.cli:main" in archive.read(entry_points).decode()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def output(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    assert str(tmp_path) in output("-c", "import bridge; print(bridge.__file__)")
    assert "Usage: " in output("-m", "bridge.cli", "--help")
    listed = output("-m", "bridge.cli", "models", "list")
    assert all(name in listed for name in MODELS)


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "test" for line in lines]
    lines = [*project["dependencies"], *extras]
    declared = {_normal(match[0]) for line in lines if (match := re.match(r"[\w.-]+", line))}
    providers = packages_distributions()
    undeclared = {
        name: sorted(files)
        for name, files in _imported().items()
        if name in providers and not {_normal(each) for each in providers[name]} & declared
    }
    assert undeclared == {}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported() -> dict[str, set[str]]:
    """Names of foreign packages that the product imports when it runs, with the files that do."""
    imported: dict[str, set[str]] = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for_types = {inner for node in ast.walk(tree) if _is_for_types(node) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if node in for_types:
                continue
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module]
            for top in {module.split(".")[0] for module in modules} - set(PACKAGES) - sys.stdlib_module_names:
                imported.setdefault(top, set()).add(str(path.relative_to(ROOT)))
    return imported


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
