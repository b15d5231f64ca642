"""Writes `bridge/cluster/opensearch-VERSION.toml`: which Maven artifacts make an embedded node, and their digests.

Run by hand when a version is added or a recipe changes; needs `mvn` and a network:

    python scripts/lock_node.py 3.6.0 2.19.1

Maven resolves each root alone, as OpenSearch's own build does for a module; what `lib/` holds already is
left out of the module. The files are checked at assembly, so that nothing is resolved on users' machines.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CORE = "org.opensearch"
PLUGIN = "org.opensearch.plugin"
TARGET = Path(__file__).parent.parent / "bridge" / "node"


@dataclass(frozen=True)
class Part:
    """One folder of a node's home; `roots` are `group:artifact[:version[:packaging]]`."""

    folder: str
    roots: tuple[str, ...]
    plugin_class: str = ""
    extends: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    flavour: str = ""
    transitive: bool = True


def module(name: str, plugin_class: str, *permissions: str, client: bool = False, extends: str = "") -> Part:
    """A module of OpenSearch; some are published as `NAME-client`."""
    return Part(
        f"modules/{name}",
        (f"{PLUGIN}:{name}{'-client' if client else ''}",),
        f"org.opensearch.{plugin_class}",
        (extends,) if extends else (),
        permissions,
    )


SOCKETS = 'java.net.SocketPermission "*", "accept,connect,resolve"'
DECLARED_MEMBERS = 'java.lang.RuntimePermission "accessDeclaredMembers"'
REFLECTION = 'java.lang.reflect.ReflectPermission "suppressAccessChecks"'
CLASS_LOADERS = ('java.lang.RuntimePermission "createClassLoader"', 'java.lang.RuntimePermission "getClassLoader"')
EXPRESSION_CLASSES = tuple(
    f'org.opensearch.script.ClassPermission "{name}"'
    for name in (
        "java.lang.String",
        "java.lang.Math",
        "java.lang.Object",
        "java.lang.Double",
        "org.apache.lucene.expressions.Expression",
        "org.apache.lucene.expressions.js.ExpressionMath",
        "org.apache.lucene.expressions.js.VariableContext",
        "org.apache.lucene.search.DoubleValues",
        "org.apache.lucene.util.MathUtil",
        "org.apache.lucene.util.SloppyMath",
    )
)

RECIPES: dict[str, tuple[Part, ...]] = {
    "3.6.0": (
        Part("lib", (f"{CORE}:opensearch", f"{CORE}:opensearch-plugin-classloader")),
        Part("agent", (f"{CORE}:opensearch-agent", f"{CORE}:opensearch-agent-bootstrap")),
        module("lang-painless", "painless.PainlessModulePlugin"),
        module("analysis-common", "analysis.common.CommonAnalysisModulePlugin", extends="lang-painless"),
        module("aggs-matrix-stats", "search.aggregations.matrix.MatrixAggregationModulePlugin", client=True),
        module("lang-mustache", "script.mustache.MustacheModulePlugin", client=True),
        module("parent-join", "join.ParentJoinModulePlugin", client=True),
        module("mapper-extras", "index.mapper.MapperExtrasModulePlugin", client=True),
        module("ingest-common", "ingest.common.IngestCommonModulePlugin", extends="lang-painless"),
        module("reindex", "index.reindex.ReindexModulePlugin", SOCKETS, client=True),
        module("search-pipeline-common", "search.pipeline.common.SearchPipelineCommonModulePlugin"),
        # Without this permission several nodes never find each other; a single node does not notice.
        module("transport-netty4", "transport.Netty4ModulePlugin", SOCKETS, client=True),
        Part(
            "plugins/opensearch-knn",
            (
                f"{PLUGIN}:opensearch-knn:3.6.0.0:zip",
                f"{PLUGIN}:transport-grpc-spi",
                # k-NN takes these from the gRPC transport, which is no part of this node.
                "com.google.guava:guava:33.4.8-jre",
            ),
            extends=("lang-painless",),
        ),
    ),
    "2.19.1": (
        Part("lib", (f"{CORE}:opensearch", f"{CORE}:opensearch-plugin-classloader")),
        module("lang-painless", "painless.PainlessPlugin", *CLASS_LOADERS),
        module("lang-expression", "script.expression.ExpressionPlugin", *CLASS_LOADERS, *EXPRESSION_CLASSES),
        module("analysis-common", "analysis.common.CommonAnalysisPlugin", extends="lang-painless"),
        module("aggs-matrix-stats", "search.aggregations.matrix.MatrixAggregationPlugin", client=True),
        module("lang-mustache", "script.mustache.MustachePlugin", DECLARED_MEMBERS, REFLECTION, client=True),
        module("parent-join", "join.ParentJoinPlugin", client=True),
        module("percolator", "percolator.PercolatorPlugin", client=True),
        module("mapper-extras", "index.mapper.MapperExtrasPlugin", client=True),
        module("rank-eval", "index.rankeval.RankEvalPlugin", client=True),
        module("ingest-common", "ingest.common.IngestCommonPlugin", extends="lang-painless"),
        module("reindex", "index.reindex.ReindexPlugin", SOCKETS, client=True),
        module(
            "transport-netty4",
            "transport.Netty4Plugin",
            SOCKETS,
            DECLARED_MEMBERS,
            REFLECTION,
            'java.io.FilePermission "/proc/sys/net/core/somaxconn", "read"',
            'java.lang.RuntimePermission "accessClassInPackage.sun.nio.ch"',
            'java.lang.RuntimePermission "getClassLoader"',
            'java.lang.RuntimePermission "setContextClassLoader"',
            client=True,
        ),
        Part(
            "plugins/opensearch-knn",
            (f"{PLUGIN}:opensearch-knn:2.19.1.0:zip",),
            extends=("lang-painless",),
            transitive=False,
        ),
        Part(
            "plugins/opensearch-security",
            (f"{PLUGIN}:opensearch-security:2.19.1.0:zip",),
            flavour="security",
            transitive=False,
        ),
    ),
}

JAVA_MINIMUM = {"3.6.0": 21, "2.19.1": 11}
JAVA_BEFORE = {"2.19.1": 24}
"""The first Java that cannot run the version; 24 dropped the security manager that 2.x installs."""

LEFT_OUT = re.compile(r"netty-codec-native-quic")
"""Native libraries for HTTP/3, 12 MB, which the node does not offer."""


def pom(artifact: str, body: str) -> str:
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>lock</groupId>"
        f"<artifactId>{artifact}</artifactId><version>1</version>{body}</project>"
    )


def dependency(root: str, version: str, transitive: bool) -> str:
    group, artifact, *rest = root.split(":")
    named_version, packaging = [*rest, *["", ""][len(rest) :]]
    exclusions = (
        ""
        if transitive and packaging != "zip"
        else ("<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>")
    )
    return (
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{named_version or version}</version><type>{packaging or 'jar'}</type>{exclusions}</dependency>"
    )


def resolve(parts: tuple[Part, ...], version: str, workspace: Path) -> dict[str, dict[str, Path]]:
    """Runs Maven once over all parts.

    Returns: folder → coordinates → file.
    """
    for number, part in enumerate(parts):
        roots = "".join(dependency(root, version, part.transitive) for root in part.roots)
        (workspace / f"p{number}").mkdir()
        (workspace / f"p{number}" / "pom.xml").write_text(pom(f"p{number}", f"<dependencies>{roots}</dependencies>"))
    modules = "".join(f"<module>p{number}</module>" for number in range(len(parts)))
    (workspace / "pom.xml").write_text(pom("all", f"<packaging>pom</packaging><modules>{modules}</modules>"))
    subprocess.run(
        ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime",  # noqa: S607
         "-DoutputDirectory=out", "-Dmdep.useRepositoryLayout=true"],
        cwd=workspace,
        check=True,
    )  # fmt: skip
    found: dict[str, dict[str, Path]] = {}
    for number, part in enumerate(parts):
        files: dict[str, Path] = {}
        repository = workspace / f"p{number}" / "out"
        for file in sorted(repository.rglob("*")):
            if file.suffix not in {".jar", ".zip"} or LEFT_OUT.search(file.name):
                continue
            *group, artifact, file_version = file.relative_to(repository).parent.parts
            packaging = "" if file.suffix == ".jar" else f":{file.suffix[1:]}"
            files[f"{'.'.join(group)}:{artifact}:{file_version}{packaging}"] = file
        found[part.folder] = files
    return found


def with_logging(parts: tuple[Part, ...], version: str) -> tuple[Part, ...]:
    """`parts` with log4j-core, in the version of the log4j-api that OpenSearch resolves to, in `lib`."""
    with tempfile.TemporaryDirectory() as workspace:
        library = resolve(parts[:1], version, Path(workspace))["lib"]
    api = next(name for name in library if ":log4j-api:" in name)
    core = api.replace("log4j-api", "log4j-core")
    return (Part("lib", (*parts[0].roots, core)), *parts[1:])


def project(coordinates: str) -> str:
    """`group:artifact`: a module brings no other version of what `lib` holds, the node refuses that."""
    return ":".join(coordinates.split(":")[:2])


def quoted(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def lock(version: str) -> str:
    """The text of the version's TOML file."""
    parts = with_logging(RECIPES[version], version)
    lines = [
        "# Made by scripts/lock_node.py; the files are checked against these SHA-256 digests at assembly.",
        f"version = '{version}'",
        f"java_minimum = {JAVA_MINIMUM[version]}",
    ]
    if version in JAVA_BEFORE:
        lines.append(f"java_before = {JAVA_BEFORE[version]}")
    with tempfile.TemporaryDirectory() as workspace:
        found = resolve(parts, version, Path(workspace))
        in_library = {project(coordinates) for coordinates in found["lib"]}
        for part in parts:
            lines += ["", "[[parts]]", f"folder = '{part.folder}'"]
            if part.flavour:
                lines.append(f"flavour = '{part.flavour}'")
            if part.plugin_class:
                lines.append(f"plugin_class = '{part.plugin_class}'")
            if part.extends:
                lines.append(f"extends = {quoted(part.extends)}")
            if part.permissions:
                lines += ["permissions = [", *(f"    '{permission}'," for permission in part.permissions), "]"]
            lines.append("files = [")
            for coordinates, file in found[part.folder].items():
                if part.folder != "lib" and project(coordinates) in in_library:
                    continue
                digest = hashlib.sha256(file.read_bytes()).hexdigest()
                lines.append(f"    '{coordinates} {digest}',")
            lines.append("]")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for wanted in sys.argv[1:] or RECIPES:
        (TARGET / f"opensearch-{wanted}.toml").write_text(lock(wanted))
