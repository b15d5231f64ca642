"""Assembles the home of an embedded node from Maven artifacts, once per machine.

A file is taken from the first place that has it: an earlier download, a folder in Maven's layout on this machine, the
Python package jgo, the `mvn` command. Nothing is resolved, since the list is complete; nothing is trusted before its
digest is right. A home is read-only when it is done, and shared by every node of its version and flavour. It is built
in a temporary folder under a lock and then renamed, so that a home is whole or not there at all.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import structlog

from bridge.errors import NodeError
from bridge.folders import user_cache_folder
from bridge.node.blueprint import Artifact, Blueprint, Part

log = structlog.get_logger(__name__)

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
    log.warning("removed a file with a wrong digest", file=str(file), sha256=found, expected=artifact.sha256)
    file.unlink()
    return False


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(artifacts: Sequence[Artifact], downloads: Path) -> str:
    """Fetches with jgo or mvn; returns what went wrong, empty if nothing did."""
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


NEEDED_BYTES = 1_000_000_000
"""Downloads, home and a small index; less free space ends in a half-written index sooner or later."""

LAYOUT = 1
"""Raised when the code below lays out a home otherwise: homes of an older layout are not used any more."""

DESCRIPTOR = "plugin-descriptor.properties"
POLICY = "plugin-security.policy"


def cache_folder(configured: Path | None) -> Path:
    """The folder of homes, downloads and data: the configured one, else the user's cache folder.

    Raises:
        NodeError: the user has none.
    """
    if configured is not None:
        return configured.expanduser().resolve()
    try:
        return user_cache_folder()
    except RuntimeError as error:
        raise NodeError(
            f"user {os.geteuid()} has no home folder to keep the embedded node in: "
            "name a cache folder with BRIDGE_NODE__CACHE_DIR"
        ) from error


def assemble(blueprint: Blueprint, cache: Path, mirror: Path | None = None) -> Path:
    """The home of a node of `blueprint`; makes it unless it exists.

    Args:
        mirror: a folder in Maven's layout that is looked at before the network; `~/.m2/repository` is too.

    Raises:
        NodeError: too little disk space, a file cannot be fetched, or the cache cannot be written.
    """
    name = f"opensearch-{blueprint.version}-{blueprint.flavour}-{blueprint.identity}-{LAYOUT}"
    home = cache / "homes" / name
    if home.is_dir():
        return home
    try:
        make_folder(home.parent)
        with locked(cache / "assembly.lock"):
            if not home.is_dir():
                require_space(cache)
                downloads = cache / "downloads"
                local = [folder for folder in (mirror, _maven_repository()) if folder is not None]
                fetch(blueprint.artifacts, downloads, local)
                _build(blueprint, downloads, home)
    except (OSError, zipfile.BadZipFile) as error:
        raise NodeError(
            f"the embedded node cannot be assembled in {cache}: {error}; "
            "name a folder that can be written with BRIDGE_NODE__CACHE_DIR"
        ) from error
    return home


def make_folder(folder: Path) -> None:
    """Makes `folder` and its parents; those that are new can be entered by every user, whatever the umask.

    Raises:
        NodeError: one cannot be made.
    """
    try:
        for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
    except OSError as error:
        raise NodeError(
            f"folder {folder} cannot be made: {error}; name another cache folder with BRIDGE_NODE__CACHE_DIR"
        ) from error


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds an exclusive lock on `file` between processes; waits for it. The holder may remove the file.

    Raises:
        NodeError: the file cannot be written.
    """
    with _exclusive(file):
        yield


def _exclusive(file: Path) -> TextIO:
    while True:
        try:
            stream = file.open("w")
        except OSError as error:
            raise NodeError(
                f"{file} cannot be written: {error}; name another cache folder with BRIDGE_NODE__CACHE_DIR"
            ) from error
        fcntl.flock(stream, fcntl.LOCK_EX)
        if os.fstat(stream.fileno()).st_nlink:
            return stream
        # Removed while we waited: others will lock the file that has this name now.
        stream.close()


def require_space(folder: Path) -> None:
    """Raises NodeError if the disk of `folder` has too little space for a node."""
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise NodeError(
            f"{folder} has {free / 1e6:.0f} MB free, an embedded node needs {NEEDED_BYTES / 1e6:.0f} MB: "
            "free some, or name a folder on another disk with BRIDGE_NODE__CACHE_DIR"
        )


def _maven_repository() -> Path | None:
    try:
        repository = Path.home() / ".m2" / "repository"
        return repository if repository.is_dir() else None
    except (RuntimeError, OSError):  # no home folder, or one that we may not enter
        return None


def _build(blueprint: Blueprint, downloads: Path, home: Path) -> None:
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".assembling-") as folder:
        unfinished = Path(folder) / "home"
        # It stays empty, but OpenSearch would make it if it were missing, and may not write here.
        (unfinished / "bin").mkdir(parents=True)
        for part in blueprint.parts:
            _fill(part, unfinished / part.folder, downloads, blueprint)
        _make_readable(unfinished)
        unfinished.rename(home)


def _fill(part: Part, folder: Path, downloads: Path, blueprint: Blueprint) -> None:
    folder.mkdir(parents=True)
    for artifact in part.files:
        source = downloads / artifact.repository_path
        if artifact.packaging == "zip":
            with zipfile.ZipFile(source) as archive:
                archive.extractall(folder)
        else:
            _link_or_copy(source, folder / artifact.filename)
    if part.plugin_class:
        (folder / DESCRIPTOR).write_text(_descriptor(part, blueprint), encoding="utf-8")
    elif part.extends:
        _rewrite_extends(folder / DESCRIPTOR, part.extends)
    if part.permissions:
        (folder / POLICY).write_text(_policy(part.permissions), encoding="utf-8")


def _link_or_copy(source: Path, target: Path) -> None:
    """A hard link costs no space; some file systems have none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _descriptor(part: Part, blueprint: Blueprint) -> str:
    return "".join(
        f"{key}={value}\n"
        for key, value in (
            ("name", part.name),
            ("description", f"OpenSearch module {part.name}"),
            ("version", blueprint.version),
            ("opensearch.version", blueprint.version),
            ("java.version", blueprint.java_minimum),
            ("classname", part.plugin_class),
            ("extended.plugins", ",".join(part.extends)),
        )
    )


def _rewrite_extends(descriptor: Path, extends: Sequence[str]) -> None:
    """Names the extended plugins anew: those of the published plugin that this node does not have go."""
    kept = [
        line for line in descriptor.read_text(encoding="utf-8").splitlines() if not line.startswith("extended.plugins=")
    ]
    descriptor.write_text("\n".join([*kept, f"extended.plugins={','.join(extends)}", ""]), encoding="utf-8")


def _policy(permissions: Sequence[str]) -> str:
    return "grant {\n" + "".join(f"    permission {permission};\n" for permission in permissions) + "};\n"


def _make_readable(folder: Path) -> None:
    """Lets every user read, whatever the umask was: a node started by root runs as another one."""
    for path in (folder, *folder.rglob("*")):
        wanted = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH | stat.S_IWUSR
        if path.is_dir():
            wanted |= stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
        path.chmod(wanted)
