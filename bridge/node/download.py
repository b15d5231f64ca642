"""Fetches Maven artifacts by exact coordinates, and trusts none before its digest is right.

A file is taken from the first place that has it: what was fetched before, a folder in Maven's layout on
this machine, the Python package jgo, the `mvn` command. Nothing is resolved: the list is complete.
"""

import hashlib
import importlib.util
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bridge.errors import NodeError
from bridge.node.blueprint import Artifact

log = logging.getLogger(__name__)

PARALLEL_DOWNLOADS = 12
DOWNLOAD_TIMEOUT_S = 60
MVN_TIMEOUT_S = 600
ATTEMPTS = 2

POM = """<project><modelVersion>4.0.0</modelVersion>
<groupId>bridge</groupId><artifactId>node</artifactId><version>1</version>
<dependencies>{dependencies}</dependencies></project>
"""
DEPENDENCY = """<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>
<version>{version}</version><type>{packaging}</type>
<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>
"""


def fetch(artifacts: Sequence[Artifact], downloads: Path, local_repositories: Sequence[Path]) -> None:
    """Puts every artifact under `downloads`, at its `repository_path`, with the right digest.

    Args:
        local_repositories: folders in Maven's layout that are looked at before the network.

    Raises:
        NodeError: neither jgo nor mvn is here, a download failed, or a digest is wrong twice.
    """
    missing = _take_local(artifacts, downloads, local_repositories)
    problem = ""
    for _ in range(ATTEMPTS):
        if not missing:
            return
        problem = _download(missing, downloads)
        missing = [artifact for artifact in missing if not _verified(artifact, downloads)]
    if missing:
        raise NodeError(
            f"{len(missing)} of {len(artifacts)} files of the embedded node could not be fetched, first "
            f"{missing[0]}: {problem or 'its SHA-256 digest is not the expected one, so it was removed'}. "
            "Check the network (mvn follows a mirror or proxy in Maven's settings.xml) and run the command "
            "again, which goes on where it stopped; without a network set BRIDGE_NODE__MIRROR_DIR to a "
            "folder in the layout of a Maven repository"
        )


def _take_local(artifacts: Sequence[Artifact], downloads: Path, local_repositories: Sequence[Path]) -> list[Artifact]:
    """Copies what local folders hold; returns the rest."""
    missing = []
    for artifact in artifacts:
        if _verified(artifact, downloads):
            continue
        target = downloads / artifact.repository_path
        for repository in local_repositories:
            source = repository / artifact.repository_path
            if source.is_file() and _sha256(source) == artifact.sha256:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
                break
        else:
            missing.append(artifact)
    return missing


def _verified(artifact: Artifact, downloads: Path) -> bool:
    """Whether the file is here and right; a wrong one is removed, so that the next attempt fetches it."""
    file = downloads / artifact.repository_path
    if not file.is_file():
        return False
    if (found := _sha256(file)) == artifact.sha256:
        return True
    log.warning("removed %s: SHA-256 %s, expected %s", file, found, artifact.sha256)
    file.unlink()
    return False


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(artifacts: Sequence[Artifact], downloads: Path) -> str:
    """Fetches with what is installed; returns what went wrong, empty where nothing did."""
    has_jgo = importlib.util.find_spec("jgo") is not None
    mvn = shutil.which("mvn")
    if not has_jgo and mvn is None:
        raise NodeError(
            f"{len(artifacts)} files of the embedded node must be fetched, but neither jgo nor mvn is "
            "installed: pip install 'opensearch-neural-bridge[node]', or install Maven"
        )
    problem = _download_by_jgo(artifacts, downloads) if has_jgo else ""
    # Maven may know a mirror or proxy that jgo does not.
    if mvn is not None and (problem or not has_jgo):
        problem = _download_by_mvn(artifacts, downloads, mvn)
    return problem


def _download_by_jgo(artifacts: Sequence[Artifact], downloads: Path) -> str:
    from jgo.maven import MavenContext  # an extra

    context = MavenContext(repo_cache=downloads, local_repos=[], timeout=DOWNLOAD_TIMEOUT_S)

    def download(artifact: Artifact) -> str:
        component = context.project(artifact.group, artifact.name).at_version(artifact.version)
        try:
            component.artifact(packaging=artifact.packaging).resolve()
        # jgo raises RuntimeError, AssertionError and whatever requests, urllib3 and the disk raise.
        except Exception as error:  # noqa: BLE001
            return f"jgo: {type(error).__name__}: {error}"
        return ""

    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        problems = [problem for problem in pool.map(download, artifacts) if problem]
    return problems[0] if problems else ""


def _download_by_mvn(artifacts: Sequence[Artifact], downloads: Path, mvn: str) -> str:
    dependencies = "".join(
        DEPENDENCY.format(group=a.group, name=a.name, version=a.version, packaging=a.packaging) for a in artifacts
    )
    with tempfile.TemporaryDirectory() as workspace:
        Path(workspace, "pom.xml").write_text(POM.format(dependencies=dependencies), encoding="utf-8")
        command = [mvn, "-q", "-B", "dependency:copy-dependencies"]
        command += [f"-DoutputDirectory={downloads}", "-Dmdep.useRepositoryLayout=true"]
        try:
            done = subprocess.run(
                command, cwd=workspace, capture_output=True, text=True, timeout=MVN_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"mvn: {error}"
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
    return f"mvn: exit {done.returncode}: {errors[0] if errors else done.stderr[-500:]}"
