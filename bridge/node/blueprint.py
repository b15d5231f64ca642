"""What an embedded node consists of: Maven artifacts by coordinates and digest, and a Java that can run them.

The lists, `opensearch-VERSION.toml` beside this file, are made by `scripts/lock_node.py`.
"""

import hashlib
import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from bridge.errors import NodeError

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
    """The Java in `home`, by its `release` file; None if there is none."""
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
        java_home: if set, the only place to look.
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


VERSIONS = ("3.6.0", "2.19.1")
"""Versions that can be embedded, the preferred one first."""

Flavour = Literal["plain", "security"]
"""`security` adds the security plugin; only 2.19.1 is published with it."""


@dataclass(frozen=True)
class Artifact:
    """One file of a Maven repository."""

    group: str
    name: str
    version: str
    packaging: str
    sha256: str

    @property
    def filename(self) -> str:
        return f"{self.name}-{self.version}.{self.packaging}"

    @property
    def repository_path(self) -> str:
        """The path in a repository of Maven's layout, remote or local."""
        return f"{self.group.replace('.', '/')}/{self.name}/{self.version}/{self.filename}"

    def __str__(self) -> str:
        return f"{self.group}:{self.name}:{self.version}:{self.packaging}"


@dataclass(frozen=True)
class Part:
    """One folder of a node's home.

    Attributes:
        folder: relative to the home, for example `modules/reindex`.
        files: jars are copied, zips are unpacked.
        plugin_class: if set, a descriptor that names this class is written.
        extends: plugins whose classes this one sees.
        permissions: what the plugin's code may do, in Java's policy syntax.
    """

    folder: str
    files: tuple[Artifact, ...]
    plugin_class: str
    extends: tuple[str, ...]
    permissions: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.folder.rpartition("/")[2]


@dataclass(frozen=True)
class Blueprint:
    """A node that can be assembled; `identity` changes with any file or rule of it."""

    version: str
    flavour: Flavour
    java_minimum: int
    java_before: int | None
    parts: tuple[Part, ...]
    identity: str

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Every file once, though two parts may hold it."""
        return tuple(dict.fromkeys(file for part in self.parts for file in part.files))

    @property
    def java_range(self) -> str:
        """For messages: `Java 21 or newer`, `Java 11 to 23`."""
        if self.java_before is None:
            return f"Java {self.java_minimum} or newer"
        return f"Java {self.java_minimum} to {self.java_before - 1}"

    def runs_on(self, java: Java) -> bool:
        return (
            java.complete
            and java.major >= self.java_minimum
            and (self.java_before is None or java.major < self.java_before)
        )


def read_blueprint(version: str, flavour: Flavour = "plain") -> Blueprint:
    """The blueprint of one version.

    Raises:
        NodeError: no such version, or it is not published in that flavour.
    """
    if version not in VERSIONS:
        raise NodeError(f"no embedded node of OpenSearch {version}: choose {' or '.join(VERSIONS)}")
    text = resources.files("bridge.node").joinpath(f"opensearch-{version}.toml").read_text("utf-8")
    content = tomllib.loads(text)
    flavours = {"plain"} | {part["flavour"] for part in content["parts"] if "flavour" in part}
    if flavour not in flavours:
        allowed = ", ".join(sorted(flavours))
        known = ", ".join(get_args(Flavour))
        raise NodeError(f"OpenSearch {version} has no flavour {flavour!r} (of {known}): choose {allowed}")
    return Blueprint(
        version=version,
        flavour=flavour,
        java_minimum=content["java_minimum"],
        java_before=content.get("java_before"),
        parts=tuple(_part(part) for part in content["parts"] if part.get("flavour", flavour) == flavour),
        identity=hashlib.sha256(f"{flavour}\n{text}".encode()).hexdigest()[:12],
    )


def _part(content: Mapping[str, Any]) -> Part:
    return Part(
        folder=content["folder"],
        files=tuple(_artifact(line) for line in content["files"]),
        plugin_class=content.get("plugin_class", ""),
        extends=tuple(content.get("extends", ())),
        permissions=tuple(content.get("permissions", ())),
    )


def _artifact(line: str) -> Artifact:
    """Reads `group:name:version[:packaging] sha256`."""
    coordinates, sha256 = line.split()
    group, name, version, *packaging = coordinates.split(":")
    return Artifact(group, name, version, packaging[0] if packaging else "jar", sha256)
