"""The guard with a toy in the node's place: nothing outlives its owner, and what is detached lives on."""

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.node import guard as node_guard

pytestmark = pytest.mark.usefixtures("hangups_count")

NODE = ["/bin/sh", "-c", "echo node speaks; exec sleep 120"]
STUBBORN_NODE = ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]
PATIENCE_S = 10.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")

OWNER = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been started with interrupts ignored
guard = subprocess.Popen([*sys.argv[1:3], "--owner", str(os.getpid()), *sys.argv[3:]], stdout=subprocess.PIPE)
print(guard.pid, guard.stdout.readline().decode().strip(), flush=True)
time.sleep(120)
"""


def lives(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], bool]) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def guard_command(folder: Path, *options: str, command: list[str] = NODE) -> list[str]:
    return [sys.executable, node_guard.__file__, "--log", str(folder / "node.log"), *options, "--", *command]


class OwnedNode:
    """An owner in a process of its own, its guard and its node."""

    def __init__(self, folder: Path, *options: str) -> None:
        python, program, *rest = guard_command(folder, *options)
        self.owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, python, program, *rest], stdout=subprocess.PIPE, text=True
        )
        assert self.owner.stdout is not None
        with self.owner.stdout:
            self.guard, self.node = (int(pid) for pid in self.owner.stdout.readline().split())

    def close(self) -> None:
        for pid in (self.owner.pid, self.guard, self.node):
            if lives(pid):
                os.kill(pid, signal.SIGKILL)
        self.owner.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The instance's folder; every user may enter it."""
    instance = tmp_path / "instance"
    instance.mkdir()
    return instance


@needs_linux
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_node_ends_with_its_owner_however_the_owner_ends(folder: Path, kind: signal.Signals) -> None:
    owned = OwnedNode(folder, "--remove", str(folder))
    try:
        assert lives(owned.node)

        owned.owner.send_signal(kind)
        owned.owner.wait()

        assert until(lambda: not lives(owned.node))
        assert until(lambda: not folder.exists())
        assert until(lambda: not lives(owned.guard))
    finally:
        owned.close()


@needs_linux
def test_how_a_node_ended_stands_in_its_log(folder: Path) -> None:
    owned = OwnedNode(folder)
    try:
        os.kill(owned.node, signal.SIGKILL)

        assert until(lambda: not lives(owned.guard))
        assert (folder / "node.log").read_text().endswith("the node's process ended: killed by signal 9\n")
    finally:
        owned.close()


@needs_linux
def test_a_folder_that_is_to_stay_stays(folder: Path) -> None:
    owned = OwnedNode(folder)
    log = folder / "node.log"
    try:
        assert until(lambda: log.exists() and log.read_text() == "node speaks\n")

        owned.owner.kill()
        owned.owner.wait()

        assert until(lambda: not lives(owned.guard))
        assert not lives(owned.node)
        assert log.read_text() == "node speaks\n"
    finally:
        owned.close()


@needs_linux
def test_the_node_ends_with_its_guard(folder: Path) -> None:
    owned = OwnedNode(folder)
    try:
        os.kill(owned.guard, signal.SIGKILL)

        assert until(lambda: not lives(owned.node))
    finally:
        owned.close()


@needs_linux
@needs_root
@pytest.mark.parametrize("victim", ["owner", "guard"])
def test_a_node_of_another_user_ends_too(folder: Path, victim: str) -> None:
    nobody = pwd.getpwnam("nobody")
    owned = OwnedNode(folder, "--user", str(nobody.pw_uid), "--group", str(nobody.pw_gid))
    try:
        assert Path(f"/proc/{owned.node}").stat().st_uid == nobody.pw_uid
        assert "Groups:\t \n" in Path(f"/proc/{owned.node}/status").read_text()

        os.kill(owned.owner.pid if victim == "owner" else owned.guard, signal.SIGKILL)

        assert until(lambda: not lives(owned.node))
    finally:
        owned.close()


@needs_linux
def test_sigterm_to_the_guard_stops_the_node_and_leaves_its_folder(folder: Path) -> None:
    owned = OwnedNode(folder, "--remove", str(folder))
    try:
        os.kill(owned.guard, signal.SIGTERM)

        assert until(lambda: not lives(owned.node))
        assert until(lambda: not lives(owned.guard))
        assert folder.exists()
    finally:
        owned.close()


@needs_linux
def test_a_detached_node_outlives_whoever_started_it(folder: Path) -> None:
    started = subprocess.run(guard_command(folder, "--detach"), capture_output=True, text=True, check=True)
    node = int(started.stdout)
    try:
        assert lives(node)
    finally:
        os.kill(node, signal.SIGKILL)


def test_a_node_that_ignores_sigterm_is_killed_after_the_grace(folder: Path) -> None:
    node = subprocess.Popen(STUBBORN_NODE, stdout=subprocess.PIPE)
    assert node.stdout is not None
    with node.stdout:
        node.stdout.readline()
    before = signal.getsignal(signal.SIGTERM)
    try:
        node_guard.stop(node, grace_s=0.3)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert node.returncode == -signal.SIGKILL


def test_a_command_that_cannot_be_started_is_told(folder: Path) -> None:
    command = guard_command(folder, "--detach", command=[str(folder / "no-java")])
    refused = subprocess.run(command, capture_output=True, text=True, check=False)

    assert "no-java" in refused.stdout
    assert not refused.stdout.strip().isdigit()
