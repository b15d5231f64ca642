"""What an embedded node consists of: Maven artifacts by coordinates and digest, and the folder each goes to.

The lists, `opensearch-VERSION.toml` beside this file, are made by `scripts/lock_node.py`.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, get_args

from bridge.errors import NodeError
from bridge.node.java import Java

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
        plugin_class: where set, a descriptor that names this class is written.
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
