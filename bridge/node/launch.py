"""Starts the Java process of an embedded node: which version on which Java, with which configuration, as whom."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bridge.errors import NodeError
from bridge.node import guard as node_guard
from bridge.node.assembly import assemble, cache_folder, make_folder, require_space
from bridge.node.blueprint import VERSIONS, Blueprint, Flavour, Java, find_javas, read_blueprint
from bridge.node.process import VECTOR_ENGINES_ATTRIBUTE, NodeProcess, configuration_folder, log_file
from bridge.settings import NodeSettings

HOST = "127.0.0.1"
UNPRIVILEGED_USER = "nobody"
GUARD_EXTRA_S = 10
FIRST_HEAP_MB = 128
SECURITY_MANAGER_DEPRECATED = 18
"""From this Java on, a program that installs a security manager must be allowed to."""

LOG4J = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1.} [%node_name]%marker %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


@dataclass(frozen=True)
class NodePlan:
    """What to start, before anything is fetched or written.

    Attributes:
        configuration: entries of opensearch.yml that join ours or replace them; None takes one of ours away.
        files: further files of the configuration folder, path → text; nobody else may read them.
    """

    blueprint: Blueprint
    java: Java
    settings: NodeSettings
    configuration: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def plan_node(settings: NodeSettings, version: str | None = None, flavour: Flavour = "plain") -> NodePlan:
    """Plans for the named version, or for the first of `VERSIONS` for which a Java is here.

    Raises:
        NodeError: no Java fits; the message lists what was found.
    """
    javas = find_javas(settings.java_home)
    blueprints = [read_blueprint(wanted, flavour) for wanted in ([version] if version else VERSIONS)]
    for blueprint in blueprints:
        for java in javas:
            if blueprint.runs_on(java):
                return NodePlan(blueprint, java, settings)
    needs = "; ".join(f"OpenSearch {blueprint.version} needs {blueprint.java_range}" for blueprint in blueprints)
    found = ", ".join(str(java) for java in javas) or "none"
    place = f"in {settings.java_home}" if settings.java_home else "on this machine"
    raise NodeError(
        f"no Java {place} can run the embedded node: {needs}; found: {found}. Install a JDK of 21 or newer "
        "(Debian: apt-get install openjdk-21-jdk-headless), or name one with BRIDGE_NODE__JAVA_HOME"
    )


def launch_detached(folder: Path, plan: NodePlan) -> NodeProcess:
    """Starts a node that lives on by itself, and records it in `folder`.

    Raises:
        NodeError: it cannot be assembled, configured or started.
    """
    process, guard = _launch(folder, plan, ["--detach"])
    guard.wait()
    process.write()
    return process


@contextlib.contextmanager
def launch_owned(folder: Path, plan: NodePlan, *, remove: bool) -> Iterator[NodeProcess]:
    """Starts a node that ends with the block, or with this process (see `node_guard`).

    Args:
        remove: whether the guard removes `folder` if this process cannot any more.

    Raises:
        NodeError: as for `launch_detached`.
    """
    ownership = ["--owner", str(os.getpid()), *(["--remove", str(folder)] if remove else [])]
    process, guard = _launch(folder, plan, ownership)
    try:
        process.write()
        yield process
    finally:
        guard.terminate()
        guard.wait(node_guard.GRACE_S + GUARD_EXTRA_S)


def _launch(folder: Path, plan: NodePlan, guard_options: Sequence[str]) -> tuple[NodeProcess, "subprocess.Popen[str]"]:
    """Writes the instance's folder and runs its Java under the guard."""
    home = assemble(plan.blueprint, cache_folder(plan.settings.cache_dir), plan.settings.mirror_dir)
    if plan.settings.port:
        _require_free_port(plan.settings.port)
    command = _command(folder, home, plan)
    guarded = [sys.executable, "-I", "-S", node_guard.__file__, "--log", str(log_file(folder))]
    try:
        _write_folder(folder, plan)
        guarded += [*_as_another_user(folder, plan.java.executable), *guard_options, "--", *command]
        guard = subprocess.Popen(
            guarded,
            # Nothing of ours, secrets least of all, is passed on to the node.
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # Ctrl-C goes to this process alone; the guard and the node are ended in order.
            start_new_session=True,
        )
    except OSError as error:
        raise NodeError(
            f"the node's folder {folder} cannot be written or used: {error}; "
            "name a cache folder on another place with BRIDGE_NODE__CACHE_DIR"
        ) from error
    answer = _answer(guard)
    if not answer.isdigit():
        guard.wait()
        raise NodeError(f"{plan.java} could not be started: {answer or 'the guard ended without a word'}")
    return NodeProcess(folder, int(answer), plan.blueprint.version), guard


def _answer(guard: "subprocess.Popen[str]") -> str:
    """What the guard says: the node's process id, or why there is none."""
    assert guard.stdout is not None  # noqa: S101 it was opened with a pipe
    try:
        with guard.stdout as output:
            return output.read().strip()
    except BaseException:
        # Interrupted before anybody knows the node: it must not stay. It is in the guard's group.
        os.killpg(guard.pid, signal.SIGKILL)
        raise


def _write_folder(folder: Path, plan: NodePlan) -> None:
    make_folder(folder)
    require_space(folder)
    settings_folder = configuration_folder(folder)
    for subfolder in (settings_folder, folder / "data", folder / "logs", folder / "tmp"):
        subfolder.mkdir(exist_ok=True)
    for stale in (folder / "logs").glob("*.ports"):
        stale.unlink()
    entries = {
        "cluster.name": folder.name,
        "node.name": folder.name,
        "path.data": str(folder / "data"),
        "path.logs": str(folder / "logs"),
        "network.host": HOST,
        # The node takes free ports itself and writes them down: no moment in which another may take them.
        "http.port": plan.settings.port,
        "transport.port": 0,
        "node.portsfile": True,
        "discovery.type": "single-node",
        # What `neural-bridge doctor` reads: the native libraries of the other engines are in no registry.
        f"node.attr.{VECTOR_ENGINES_ATTRIBUTE}": "lucene",
        # A demo must run on a disk that is 90 % full; `require_space` looks at what is left.
        "cluster.routing.allocation.disk.threshold_enabled": False,
    } | dict(plan.configuration)
    kept = {name: value for name, value in entries.items() if value is not None}
    (settings_folder / "opensearch.yml").write_text(yaml.safe_dump(kept), encoding="utf-8")
    (settings_folder / "log4j2.properties").write_text(LOG4J, encoding="utf-8")
    for name, text in plan.files.items():
        file = settings_folder / name
        file.parent.mkdir(mode=0o700, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(text, encoding="utf-8")


def _command(folder: Path, home: Path, plan: NodePlan) -> list[str]:
    blueprint, java, heap_mb = plan.blueprint, plan.java, plan.settings.heap_mb
    flags = [
        f"-Xms{FIRST_HEAP_MB}m",
        f"-Xmx{heap_mb}m",
        f"-XX:MaxDirectMemorySize={heap_mb // 2}m",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-OmitStackTraceInFastThrow",
        f"-XX:ErrorFile={folder / 'logs' / 'hs_err.log'}",
        "-Xss1m",
        "-Djava.awt.headless=true",
        "-Dfile.encoding=UTF-8",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        f"-Djna.tmpdir={folder / 'tmp'}",
        "-Djna.nosys=true",
        "-Dio.netty.noUnsafe=true",
        "-Dio.netty.noKeySetOptimization=true",
        "-Dio.netty.allocator.numDirectArenas=0",
        "-Dlog4j.shutdownHookEnabled=false",
        "-Dlog4j2.disable.jmx=true",
        f"-Dopensearch.path.home={home}",
        f"-Dopensearch.path.conf={configuration_folder(folder)}",
    ]
    if blueprint.java_before is None:
        agent = home / "agent" / f"opensearch-agent-{blueprint.version}.jar"
        flags += [
            f"-javaagent:{agent}",
            "--add-modules=jdk.incubator.vector",
            "--enable-native-access=ALL-UNNAMED",
        ]
    else:
        flags.append("-Djava.locale.providers=SPI,COMPAT")
        if java.major >= SECURITY_MANAGER_DEPRECATED:
            flags.append("-Djava.security.manager=allow")
    flags += (plan.settings.java_options or "").split()
    return [str(java.executable), *flags, "-cp", f"{home / 'lib'}/*", "org.opensearch.bootstrap.OpenSearch"]


def _as_another_user(folder: Path, java: Path) -> list[str]:
    """The guard's options for a node started by root, which OpenSearch refuses to run as.

    Raises:
        NodeError: that user cannot enter a folder on the way to the instance or to Java.
    """
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    for target in (folder, java):
        for parent in target.resolve().parents:
            if not parent.stat().st_mode & 0o001:
                raise NodeError(
                    f"started by root, the node runs as the user {UNPRIVILEGED_USER}, who cannot enter {parent} "
                    f"on the way to {target}: run as another user than root, or name places that anybody "
                    "can enter with BRIDGE_NODE__CACHE_DIR and BRIDGE_NODE__JAVA_HOME"
                )
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, user.pw_uid, user.pw_gid)
    return ["--user", str(user.pw_uid), "--group", str(user.pw_gid)]


def _require_free_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise NodeError(
                f"port {port} on {HOST} cannot be used ({error.strerror}): stop what listens there, "
                "or name another port with --port (0 takes a free one)"
            ) from error
