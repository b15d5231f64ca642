"""How a follower stands, as it tells of itself."""

from collections.abc import Callable

import msgspec

from ingest.books.ledger import Ledger
from ingest.follow.fields import Fields


class FollowStatus(msgspec.Struct, frozen=True):
    """How a follower stands: what was written more than `lag_s` ago has the fields that it makes. `ledger` counts
    what it read since it started; `waiting` says what it waits for, None where it works or has nothing to do."""

    index: str
    generation: int
    fields: Fields
    lag_s: float
    ledger: Ledger
    waiting: str | None = None


OnStatus = Callable[[FollowStatus], None]
