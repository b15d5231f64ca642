"""Starts the Java process of an embedded node: which version on which Java, with which configuration, as whom."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bridge.cluster import node_guard
from bridge.cluster.java import Java, find_javas
from bridge.cluster.node_assembly import assemble, cache_folder, require_space
from bridge.cluster.node_blueprint import VERSIONS, Blueprint, Flavour, read_blueprint
from bridge.errors import NodeError
from bridge.settings import NodeSettings

HOST = "127.0.0.1"
UNPRIVILEGED_USER = "nobody"
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


def choose(settings: NodeSettings, version: str | None, flavour: Flavour = "plain") -> tuple[Blueprint, Java]:
    """The preferred version for which a Java is here, or the named one.

    Raises:
        NodeError: no Java fits; the message lists what was found.
    """
    javas = find_javas(settings.java_home)
    blueprints = [read_blueprint(wanted, flavour) for wanted in ([version] if version else VERSIONS)]
    for blueprint in blueprints:
        for java in javas:
            if blueprint.runs_on(java):
                return blueprint, java
    needs = "; ".join(f"OpenSearch {blueprint.version} needs {blueprint.java_range}" for blueprint in blueprints)
    found = ", ".join(str(java) for java in javas) or "none"
    place = f"in {settings.java_home}" if settings.java_home else "on this machine"
    raise NodeError(
        f"no Java {place} can run the embedded node: {needs}; found: {found}. Install a JDK of 21 or newer "
        "(Debian: apt-get install openjdk-21-jdk-headless), or name one with BRIDGE_NODE__JAVA_HOME"
    )


def prepare(
    folder: Path,
    blueprint: Blueprint,
    java: Java,
    settings: NodeSettings,
    configuration: Mapping[str, Any],
) -> list[str]:
    """Assembles the home, writes the instance's configuration, and returns the command that runs it.

    Args:
        folder: of the instance; its name becomes the name of the cluster.
        configuration: entries of opensearch.yml that replace or join ours.

    Raises:
        NodeError: the home cannot be assembled, no space is left, or the port is taken.
    """
    home = assemble(blueprint, cache_folder(settings.cache_dir), settings.mirror_dir)
    require_space(folder)
    if settings.port:
        _require_free_port(settings.port)
    for name in ("config", "data", "logs", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    for stale in (folder / "logs").glob("*.ports"):
        stale.unlink()
    entries = {
        "cluster.name": folder.name,
        "node.name": folder.name,
        "path.data": str(folder / "data"),
        "path.logs": str(folder / "logs"),
        "network.host": HOST,
        # The node takes free ports itself and writes them down: no moment in which another may take them.
        "http.port": settings.port,
        "transport.port": 0,
        "node.portsfile": True,
        "discovery.type": "single-node",
        # A demo must run on a disk that is 90 % full; `require_space` looks at what is left.
        "cluster.routing.allocation.disk.threshold_enabled": False,
    } | dict(configuration)
    (folder / "config" / "opensearch.yml").write_text(yaml.safe_dump(entries), encoding="utf-8")
    (folder / "config" / "log4j2.properties").write_text(LOG4J, encoding="utf-8")
    return _command(folder, home, blueprint, java, settings.heap_mb)


def http_url(folder: Path) -> str | None:
    """The address on which the instance listens; None until it does."""
    try:
        first = (folder / "logs" / "http.ports").read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError):
        return None
    return f"http://{first}"


def log_file(folder: Path) -> Path:
    """What the instance prints."""
    return folder / "logs" / "node.log"


def launch(
    command: Sequence[str], folder: Path, *, owned: bool, remove: bool = True
) -> tuple[int, subprocess.Popen[str]]:
    """Runs the command under the guard; see `node_guard` for what that is worth.

    Args:
        remove: the folder of an owned node whose owner is gone.

    Returns: the Java process's id, and the guard, which has left already unless the node is owned.

    Raises:
        NodeError: the process could not be started.
    """
    guard = [sys.executable, "-I", "-S", node_guard.__file__, "--log", str(log_file(folder))]
    guard += _as_another_user(folder, Path(command[0]))
    guard += ["--owner", str(os.getpid())] if owned else ["--detach"]
    if owned and remove:
        guard += ["--remove", str(folder)]
    process = subprocess.Popen(
        [*guard, "--", *command],
        # Nothing of ours, secrets least of all, is passed on to the node.
        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Ctrl-C goes to this process; the guard and the node are ended in order.
        start_new_session=True,
    )
    answer = process.stdout.read().strip() if process.stdout else ""
    if process.stdout:
        process.stdout.close()
    if not answer.isdigit():
        process.wait()
        raise NodeError(f"the node's Java process could not be started: {answer or 'the guard ended'}")
    if not owned:
        process.wait()
    return int(answer), process


def _command(folder: Path, home: Path, blueprint: Blueprint, java: Java, heap_mb: int) -> list[str]:
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
        f"-Dopensearch.path.conf={folder / 'config'}",
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
