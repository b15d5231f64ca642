"""Names of interleaved pages, signed: only pages that were shown can be clicked, and only what was on them.

A name says when the page was made and, in digests, which documents it showed. So any process with the key can judge a
click without a memory of pages; what it does remember is which clicks it has had.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from cachetools import TTLCache

from bridge.errors import SettingsError
from bridge.proxy.transport.refusals import Refused

MAX_AGE_S = 86_400
"""A page is clicked within a day, or no more."""
MAX_CLICKS = 100
"""Of one page, repeated ones included, in one process."""
MAX_DOCUMENTS = 100
"""Of one page that can be clicked: its name stands in a header."""

_KEY_BYTES = 32
_TIME = slice(0, 4)
_DIGESTS = 12  # where they begin: after the time and 8 random bytes
_DIGEST_BYTES = 4
_MAC_BYTES = 16
_REMEMBERED_PAGES = 10_000


class Impressions:
    """Names pages, and takes the clicks on them."""

    def __init__(self, key: bytes, *, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970."""
        self._key = key
        self._clock = clock
        self._clicks: TTLCache[bytes, list[bytes]] = TTLCache(_REMEMBERED_PAGES, MAX_AGE_S, timer=clock)

    @classmethod
    def beside(cls, event_log: Path) -> Self:
        """With the key in the file beside the event log, which is made if it is not there.

        Raises:
            SettingsError: the file cannot be made or read, or holds no key.
        """
        file = event_log.with_name(event_log.name + ".key")
        try:
            if not file.exists():
                _make_key(file)
            key = file.read_bytes()
        except OSError as error:
            raise SettingsError(
                f"the key of impressions, {file} beside proxy.event_log, cannot be made or read: {error.strerror}"
            ) from error
        if len(key) != _KEY_BYTES:
            raise SettingsError(f"{file} holds no key of {_KEY_BYTES} bytes: delete it, and a new one is made")
        return cls(key)

    def name(self, documents: Sequence[str]) -> str:
        """A name for a page that shows these documents, by their ids."""
        digests = b"".join(map(_digest, documents[:MAX_DOCUMENTS]))
        content = int(self._clock()).to_bytes(4) + secrets.token_bytes(_DIGESTS - 4) + digests
        return base64.urlsafe_b64encode(content + self._mac(content)).decode().rstrip("=")

    def clicked(self, impression: str, document: str) -> bool:
        """Takes a click; whether it is the first one on this document of the page.

        Raises:
            Refused: 400; no such page was shown, or not with this document, or not within a day. 429; the page has
                had too many clicks.
        """
        content = self._content(impression)
        if self._clock() - int.from_bytes(content[_TIME]) > MAX_AGE_S:
            raise _refused("impression: the page is older than a day")
        chosen = _digest(document)
        shown = content[_DIGESTS:]
        if chosen not in (shown[at : at + _DIGEST_BYTES] for at in range(0, len(shown), _DIGEST_BYTES)):
            raise _refused(f"document: it is not among the first {MAX_DOCUMENTS} of this impression's page")
        clicks = self._clicks.get(content, [])
        if len(clicks) >= MAX_CLICKS:
            raise Refused(429, "rejected_execution_exception", f"impression: it has had {MAX_CLICKS} clicks already")
        self._clicks[content] = [*clicks, chosen]
        return chosen not in clicks

    def _content(self, impression: str) -> bytes:
        """What a name says.

        Raises:
            Refused: 400; it was not made with this key.
        """
        with suppress(binascii.Error, ValueError):
            made = base64.b64decode(impression + "=" * (-len(impression) % 4), altchars=b"-_", validate=True)
            content, mac = made[:-_MAC_BYTES], made[-_MAC_BYTES:]
            if hmac.compare_digest(mac, self._mac(content)):
                return content
        raise _refused("impression: expected the value of the header X-Bridge-Impression of an answer, as it came")

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")[:_MAC_BYTES]


def _digest(document: str) -> bytes:
    return hashlib.sha256(document.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]


def _make_key(file: Path) -> None:
    """Makes the file whole at once, with mode 0600; of several processes that try, the first one does."""
    descriptor, unnamed = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    try:
        os.write(descriptor, secrets.token_bytes(_KEY_BYTES))
        with suppress(FileExistsError):
            os.link(unnamed, file)
    finally:
        os.close(descriptor)
        os.unlink(unnamed)


def _refused(reason: str) -> Refused:
    return Refused(400, "illegal_argument_exception", f"click: {reason}")
