"""Figures of the house, in short what a newcomer has to walk through: `python -m tests.house [--json]`.

Modules and lines of the product, the widest folder, circles among files, modules without a test file of their own,
and the files that a reranked search, a document and a `/rerank` request enter, traced on real calls.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import grimp

from tests.bridge.proxy.conftest import stack_of
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex
from tests.fake_bulk import fake_cluster
from tests.fake_cluster import kind_sidecar
from tests.ingest.runs.test_ingest import Setting
from tests.rerank_server.running import running, toy_models

ROOT = Path(__file__).parent.parent
PACKAGES = ("bridge", "ingest", "rerank_server")
LIMITS = {"search": 25, "document": 25, "rerank": 11, "widest_folder": 24, "circles": 0, "untested": 0}
"""What `tests/test_house.py` holds."""


def modules() -> list[Path]:
    """The product's modules, relative to the root; packages' own files are none."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return sorted(path.relative_to(ROOT) for path in found if path.name != "__init__.py")


def lines_by_package() -> dict[str, int]:
    """Lines of code, docstrings and blanks, packages' own files included."""
    return {
        package: sum(len(path.read_text("utf-8").splitlines()) for path in (ROOT / package).rglob("*.py"))
        for package in PACKAGES
    }


def widest_folder() -> tuple[str, int]:
    """The folder with the most modules, and how many they are."""
    folders = [path.parent.as_posix() for path in modules()]
    widest = max(sorted(set(folders)), key=folders.count)
    return widest, folders.count(widest)


def untested() -> list[str]:
    """Modules without a test file of their own: `bridge/a/b.py` is tested by `tests/bridge/a/test_b.py`."""
    return [
        path.as_posix()
        for path in modules()
        if path.name != "__main__.py" and not (ROOT / "tests" / path.parent / f"test_{path.name}").is_file()
    ]


def circles() -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others, at whatever depth the import stands."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    reachable = {module: graph.find_upstream_modules(module) for module in graph.modules}
    groups = {
        tuple(sorted({module, *(other for other in above if module in reachable[other])}))
        for module, above in reachable.items()
    }
    return sorted(list(group) for group in groups if len(group) > 1)


@contextmanager
def traced() -> Iterator[set[str]]:
    """The product's files whose functions are called while the block runs, also in threads that it starts.

    Clear the set to begin anew, when what is to be traced is ready.
    """
    prefix = f"{ROOT}/"
    product = tuple(f"{prefix}{package}/" for package in PACKAGES)
    entered: set[str] = set()

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(product) and code.co_name != "<module>":
            entered.add(code.co_filename.removeprefix(prefix))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield entered
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


async def files_of_a_search() -> list[str]:
    """Of a reranked search through the proxy that has served one like it: its profile is known, its ranking is not."""
    with traced() as entered:
        async with stack_of(ScriptedIndex(), kind_sidecar) as stack:
            url = f"{stack.proxy.url}/docs/_search"

            async def search(text: str) -> None:
                body = json.dumps(QUERY).replace("red shoe", text)
                headers = {"Content-Type": "application/json"}
                async with stack.client.post(url, data=body, headers=headers) as answer:
                    await answer.read()
                    if not answer.headers.get("X-Bridge", "").startswith("hybrid+rerank"):
                        raise RuntimeError(f"the search was not reranked: {answer.headers}")

            await search("blue shoe")
            entered.clear()
            await search("red shoe")
            return sorted(entered)


def files_of_a_document() -> list[str]:
    """Of one document on its way from a file through generator and encoder to the cluster and the ledger."""
    with tempfile.TemporaryDirectory() as folder, fake_cluster() as cluster:
        run = Setting(cluster, Path(folder))
        run.write_corpus(1)
        with traced() as entered:
            run.run()
    return sorted(entered)


async def files_of_a_rerank_request() -> list[str]:
    """Of a `/rerank` request to a sidecar that has answered one."""
    with tempfile.TemporaryDirectory() as folder, traced() as entered:
        async with running(toy_models(Path(folder))) as client:
            for fish in ("blue fish", "red fish"):
                entered.clear()
                answer = await client.post("/rerank", {"query": fish, "documents": ["red fish", "blue fish"]})
                if answer.status != 200:
                    raise RuntimeError(f"the sidecar refused: {answer.body}")
            return sorted(entered)


def figures() -> dict[str, Any]:
    """All of them, by name."""
    lines = lines_by_package()
    folder, width = widest_folder()
    return {
        "modules": len(modules()),
        "lines": {**lines, "all": sum(lines.values())},
        "widest_folder": {"folder": folder, "modules": width},
        "circles": circles(),
        "untested": untested(),
        "entered": {
            "search": asyncio.run(files_of_a_search()),
            "document": files_of_a_document(),
            "rerank": asyncio.run(files_of_a_rerank_request()),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="everything, with the files by name")
    arguments = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):  # the sidecar logs its requests there
        report = figures()
    if arguments.json:
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
        return
    for name, value in report.items():
        shown = {key: len(files) for key, files in value.items()} if name == "entered" else value
        sys.stdout.write(f"{name}: {len(shown) if isinstance(shown, list) else shown}\n")


if __name__ == "__main__":
    main()
