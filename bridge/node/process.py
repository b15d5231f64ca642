"""The Java process of an embedded node, as its instance's folder remembers it: does it live, is it ready?"""

import http.client
import json
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bridge.errors import NodeError
from bridge.processes.lifecycle import POLL_S, answers, end_process, last_words

STATE_FILE = "node.json"
VECTOR_ENGINES_ATTRIBUTE = "bridge_vector_engines"
"""Attribute of an embedded node: the k-NN engines that it can load, separated by commas."""

ENGINES_TEMPLATE = "neural-bridge-node"
"""Index template of an embedded node."""

MISSING_ENGINE = re.compile(r"UnsatisfiedLinkError|NoClassDefFoundError: .*knn.jni|opensearchknn_(faiss|nmslib)")
"""In the log of a node that ended because an index uses an engine without libraries."""

READY_PATH = "/_cluster/health?wait_for_status=yellow&timeout=1s&cluster_manager_timeout=1s"
"""Answered with 200 if every index has its primaries. Without the second time limit a poll waits 30 s while no
manager is elected."""

READY_STATUSES = (http.client.OK, http.client.UNAUTHORIZED)
"""With the security plugin: 503 until its users are loaded, then 401."""

STOP_GRACE_S = 20.0
ANSWER_TIMEOUT_S = 5.0
EXEC_PATIENCE_S = 2.0
EXEC_POLL_S = 0.01
GONE_STATES = {"Z", "X"}
"""Of proc(5): a zombie, and dead."""


@dataclass(frozen=True)
class NodeProcess:
    """What was started last in `folder`; it may be gone.

    Attributes:
        folder: of the instance.
        pid: of the Java process.
        version: of OpenSearch; the data in the folder are its data.
    """

    folder: Path
    pid: int
    version: str

    @classmethod
    def read(cls, folder: Path) -> "NodeProcess | None":
        """Reads the state file of `folder`; None if nothing was started or the file is damaged."""
        try:
            state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
            return cls(folder, int(state["pid"]), str(state["version"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self) -> None:
        """Replaces the state file whole: a reader never sees half of it."""
        unfinished = self.folder / f"{STATE_FILE}.new"
        unfinished.write_text(json.dumps({"pid": self.pid, "version": self.version}), encoding="utf-8")
        unfinished.replace(self.folder / STATE_FILE)

    @property
    def log_file(self) -> Path:
        return log_file(self.folder)

    def is_alive(self) -> bool:
        """Whether the id still names this instance's Java: ids are used again, and a zombie has no command."""
        return str(configuration_folder(self.folder)) in _command_line(self.pid)

    def ready_url(self) -> str | None:
        """The address; None unless the node answers there and its indices can be searched."""
        try:
            address = (self.folder / "logs" / "http.ports").read_text(encoding="utf-8").split()[0]
        except (OSError, IndexError):
            return None
        url = f"http://{address}"
        return url if answers(f"{url}{READY_PATH}", statuses=READY_STATUSES, timeout_s=ANSWER_TIMEOUT_S) else None

    def wait_until_ready(self, timeout_s: float) -> str:
        """The address, as soon as the node is ready there.

        Raises:
            NodeError: the process ended, or was not ready in time; its last log lines follow.
        """
        deadline = time.monotonic() + timeout_s
        while (url := self.ready_url()) is None:
            if not self.is_alive():
                # Its guard says in the log how it ended; that comes a moment later.
                time.sleep(2 * POLL_S)
                raise NodeError(
                    f"the node in {self.folder} ended while it started{self._why()}; {last_words(self.log_file)}"
                )
            if time.monotonic() > deadline:
                raise NodeError(
                    f"the node in {self.folder} was not ready in {timeout_s:g} s; wait longer with "
                    f"BRIDGE_NODE__START_TIMEOUT_S; {last_words(self.log_file)}"
                )
            time.sleep(POLL_S)
        return url

    def compare_vectors_without_graphs(self, url: str, timeout_s: float) -> None:
        """Makes indices of the k-NN engines faiss and nmslib compare every vector instead of building graphs.

        Those need native libraries, and a node that does not find them ends. Lucene's graphs are built as ever. A
        node without the plugin, or with security, refuses the template. It is of the older kind, which an index
        template of a user's own replaces as a whole: that one is applied as it is written, and has to say this itself
        if it makes indices of those engines.
        """
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
        settings = {"index.knn.advanced.approximate_threshold": -1}
        template = {"index_patterns": ["*"], "order": -1, "settings": settings}
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("PUT", f"/_template/{ENGINES_TEMPLATE}", json.dumps(template), headers)
            connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise NodeError(
                f"the node in {self.folder} stopped answering: {error}; {last_words(self.log_file)}"
            ) from error
        finally:
            connection.close()

    def _why(self) -> str:
        try:
            log = self.log_file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        if MISSING_ENGINE.search(log) is None:
            return ""
        return (
            ": an index in its data uses the k-NN engine faiss or nmslib, whose libraries this node does not have. "
            f"Remove the node's data (neural-bridge node clean --name {self.folder.name}), and make such indices with "
            '"engine": "lucene" in the field\'s method, or by an index template with '
            '"index.knn.advanced.approximate_threshold": -1'
        )

    def end(self) -> bool:
        """SIGTERM, and SIGKILL after a grace; returns whether it was alive.

        Raises:
            NodeError: it belongs to another user, or does not end.
        """
        if not self.is_alive():
            return False
        try:
            if end_process(self.pid, self.is_alive, grace_s=STOP_GRACE_S):
                return True
        except PermissionError as error:
            raise NodeError(
                f"process {self.pid} of {self.folder} belongs to another user: stop it as that user or as root"
            ) from error
        raise NodeError(f"process {self.pid} of {self.folder} does not end, not even by SIGKILL")


def log_file(folder: Path) -> Path:
    """What the node of an instance prints."""
    return folder / "logs" / "node.log"


def configuration_folder(folder: Path) -> Path:
    """What tells an instance's Java from all others: it is on the command line."""
    return folder / "config"


def _command_line(pid: int, proc: Path = Path("/proc")) -> str:
    """The command of a process; empty if there is none, or only a zombie.

    Between leaving its old program and having its new one's arguments, a process has no command for a moment; on a
    busy machine that moment is long enough to be seen (Linux). It is waited for.
    """
    if not (proc / "self").exists():
        command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    folder = proc / str(pid)
    deadline = time.monotonic() + EXEC_PATIENCE_S
    while True:
        try:
            command_line = (folder / "cmdline").read_bytes()
            state = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return ""
        if command_line or state in GONE_STATES or time.monotonic() > deadline:
            return command_line.replace(b"\0", b" ").decode(errors="replace")
        time.sleep(EXEC_POLL_S)
