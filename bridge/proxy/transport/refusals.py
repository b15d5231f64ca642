"""Errors of the proxy itself, in the words of OpenSearch, so that its clients raise their usual exceptions."""

import msgspec


class Refused(Exception):
    """A request that the proxy answers itself: HTTP status, error type in OpenSearch's style, and reason."""

    def __init__(self, status: int, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.kind = kind
        self.reason = reason

    def body(self) -> bytes:
        """The error as OpenSearch writes one, JSON in UTF-8."""
        # A reason may quote bytes that are no UTF-8.
        reason = self.reason.encode("utf-8", "backslashreplace").decode()
        cause = {"type": self.kind, "reason": reason}
        return msgspec.json.encode({"error": {"root_cause": [cause], **cause}, "status": self.status})
