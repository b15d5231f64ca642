"""Every error that an operator can meet.

    BridgeError                     message: what, where, what is expected, what to do
    ├── UsageError                  wrong option, setting or file              exit 2
    │   └── SettingsError           unknown key, wrong value
    ├── ModelError                  a model folder that cannot be used         exit 1
    │   └── PictureRefused          a picture that a model cannot read         (ingest: a dead letter)
    ├── NodeError                   the embedded node cannot be made or run    exit 1
    ├── ServiceError                a supervised server does not come up       exit 1
    ├── ClusterError
    │   ├── ClusterUnreachable      connection, TLS                            exit 4
    │   ├── AccessDenied            wrong credentials, missing permission      exit 4
    │   ├── ClusterBlocked          flood stage, read-only, stalled            exit 5
    │   ├── IndexUnsuitable         pre-flight: mapping or settings forbid it  exit 2
    │   └── AnswerNotUnderstood     not an OpenSearch answer                   exit 1
    ├── SidecarError                the rerank sidecar did not give scores     (proxy: degrade)
    │   ├── SidecarUnreachable      no connection, wrong API key               exit 4
    │   └── StageFailed             one stage of one search (proxy: left out)
    │       ├── CascadeMissing      the reranker has no small cross-encoder
    │       └── NotTaken            the server refuses this one request
    └── IngestError
        ├── SourceUnreachable       no connection to a database, or it broke   exit 4
        ├── CheckpointUnusable      damaged, or of another run                 exit 2
        └── LedgerUnbalanced        documents unaccounted for                  exit 1

Foreign exceptions become these in the one module that touches the foreign library (`raise … from`).
`EXIT_CODES` is the only table of exit codes; 3 is returned by commands that finished with dead letters,
130 and 143 by signals.
"""


class BridgeError(Exception):
    """The root. `str(error)` is a whole message: the value, what was expected, the remedy."""


class UsageError(BridgeError):
    """The command line, a file that it names, or a setting is wrong."""


class SettingsError(UsageError):
    """A setting is unknown or has a value that cannot be used."""


class ModelError(BridgeError):
    """A model folder is missing, damaged, of the wrong kind, or unsafe to open."""


class PictureRefused(ModelError):
    """A picture is missing, damaged, too large, or lies where none is read."""


class NodeError(BridgeError):
    """The embedded OpenSearch node cannot be assembled, started or stopped."""


class ServiceError(BridgeError):
    """A server that we start and keep running (sidecar, proxy) ended or was not ready in time."""


class ClusterError(BridgeError):
    """The cluster did not carry out a request."""


class ClusterUnreachable(ClusterError):
    """No connection, or TLS refused."""


class AccessDenied(ClusterError):
    """The cluster refused the credentials, or they lack a permission."""


class ClusterBlocked(ClusterError):
    """The cluster refuses writes (disk flood stage, read-only) or made no progress for too long."""


class IndexUnsuitable(ClusterError):
    """An index cannot take what the run would write; nothing was written."""


class AnswerNotUnderstood(ClusterError):
    """An answer came that is not OpenSearch's: a login page, truncated JSON, too few items."""


class SidecarError(BridgeError):
    """The rerank sidecar is down, slow, overloaded, or answered nonsense."""


class SidecarUnreachable(SidecarError):
    """A model server gives no answer, or refuses our API key."""


class StageFailed(SidecarError):
    """A stage is left out of one search; `reason` is one word of a bounded set, fit for a header."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class CascadeMissing(StageFailed):
    """The reranker has no small cross-encoder beside the large one."""

    def __init__(self, detail: str) -> None:
        super().__init__("cascade_unavailable", detail)


class NotTaken(StageFailed):
    """The model server refuses this one request, which says nothing of its health."""

    def __init__(self, reason: str, detail: str, *, status: int) -> None:
        """`status`: HTTP's, from 400 to 499."""
        super().__init__(reason, detail)
        self.status = status


class IngestError(BridgeError):
    """An ingest run cannot go on."""


class SourceUnreachable(IngestError):
    """The database that holds the rows gives no connection, or the connection was lost."""


class CheckpointUnusable(IngestError):
    """A checkpoint is damaged or belongs to another source, model or index."""


class LedgerUnbalanced(IngestError):
    """What went in does not equal what came out."""


EXIT_CODES: dict[type[BridgeError], int] = {
    UsageError: 2,
    IndexUnsuitable: 2,
    CheckpointUnusable: 2,
    ClusterUnreachable: 4,
    AccessDenied: 4,
    SidecarUnreachable: 4,
    SourceUnreachable: 4,
    ClusterBlocked: 5,
    BridgeError: 1,
}

EXIT_DEAD_LETTERS = 3


def exit_code(error: BridgeError) -> int:
    """The exit code of the nearest class in `EXIT_CODES`."""
    for kind in type(error).__mro__:
        if kind in EXIT_CODES:
            return EXIT_CODES[kind]
    raise AssertionError("EXIT_CODES holds the root")
