"""Finds a Java that can run a node: which ones are here, which is the best fit?"""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

USUAL_PLACES = (
    "/usr/lib/jvm/*",
    "/usr/local/lib/jvm/*",
    "/opt/java/*",
    "/opt/jdk*",
    "/opt/*jdk*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
)
SDKMAN = ".sdkman/candidates/java/*"
VECTOR_MODULE = "jdk.incubator.vector"
"""Lucene's vector scoring needs it; trimmed-down Java packages leave it out."""


@dataclass(frozen=True)
class Java:
    """A Java installation; `major` is its feature release, 17 or 25."""

    home: Path
    major: int
    complete: bool

    @property
    def executable(self) -> Path:
        return self.home / "bin" / "java"

    def __str__(self) -> str:
        return f"Java {self.major} at {self.home}" + ("" if self.complete else f" (without {VECTOR_MODULE})")


def read_java(home: Path) -> Java | None:
    """The Java in `home`, by its `release` file; None where there is none."""
    try:
        release = (home / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    version = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', release, re.MULTILINE)
    if version is None or not (home / "bin" / "java").is_file():
        return None
    modules = re.search(r'^MODULES="([^"]*)"', release, re.MULTILINE)
    complete = modules is None or VECTOR_MODULE in modules.group(1).split()
    return Java(home.resolve(), int(version.group(1)), complete)


def find_javas(java_home: Path | None = None) -> list[Java]:
    """Every Java on this machine, best first: JAVA_HOME, then newest first.

    Args:
        java_home: where given, the only place that is looked at.
    """
    if java_home is not None:
        java = read_java(java_home)
        return [java] if java else []
    found = {java.home: java for home in _candidate_homes() if (java := read_java(home))}
    named = read_java(Path(os.environ["JAVA_HOME"])) if os.environ.get("JAVA_HOME") else None
    return sorted(found.values(), key=lambda java: (java != named, -java.major, str(java.home)))


def _candidate_homes() -> Iterator[Path]:
    if named := os.environ.get("JAVA_HOME"):
        yield Path(named)
    if on_path := shutil.which("java"):
        yield Path(on_path).resolve().parent.parent
    for pattern in USUAL_PLACES:
        yield from Path("/").glob(pattern.lstrip("/"))
    if home := os.environ.get("HOME"):
        yield from Path(home).glob(SDKMAN)
