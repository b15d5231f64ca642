"""Why a stage is left out of a search: exceptions with a reason that fits into a header."""

from bridge.errors import SidecarError


class StageFailed(SidecarError):
    """A stage is left out of this search; `reason` is one word of a bounded set."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class CascadeMissing(StageFailed):
    """The reranker has no small cross-encoder beside the large one."""

    def __init__(self, detail: str) -> None:
        super().__init__("cascade_unavailable", detail)


class NotTaken(StageFailed):
    """The model server is well, and does not take such a request."""
