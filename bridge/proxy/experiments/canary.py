"""Which callers are served by the bridge while only a part of them is."""

import hashlib

from multidict import CIMultiDict

_TELL_CALLERS_APART = ("Authorization", "Cookie", "X-Forwarded-For")


def chosen(caller: CIMultiDict[str], percent: float) -> bool:
    """Whether this caller is among the `percent`; always the same answer for the same caller.

    `caller` are the forwarded headers: credentials, cookies and addresses tell callers apart. Who is among
    a smaller share is among every larger one too.
    """
    if percent >= 100:
        return True
    given = repr([caller.getall(name, []) for name in _TELL_CALLERS_APART]).encode("utf-8", "surrogateescape")
    place = int.from_bytes(hashlib.sha256(given).digest()[:8], "big") / 2**64
    return place * 100 < percent
