"""What the cluster's answer to a bulk request means for each action: pure.

Status alone does not tell: a full disk is a 429 like an overload is, and a 409 can be good news.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

import msgspec

from bridge.cluster.connection import Answer
from bridge.errors import AccessDenied, BridgeError, IndexUnsuitable
from ingest.books.ledger import Failure, Outcome
from ingest.writing.actions import BulkAction, BulkOp

_OVERLOADED = 429
_AWAY = (502, 503, 504)
_BLOCK = "cluster_block_exception"
_WRITTEN = Outcome("written")


@dataclass(frozen=True, slots=True)
class Again:
    """Not carried out, or not known to be: to be sent again.

    `cause` overloaded: the cluster asks for less; away: it does not answer, or lacks the shard or the manager,
    as while nodes restart; blocked: it refuses writes until an operator acts; unknown: the answer does not say
    what became of the action.
    """

    failure: Failure
    cause: Literal["overloaded", "away", "blocked", "unknown"]
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TooMuch:
    """The request as a whole was refused for its size or for one action in it: to be sent in parts."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing that is sent to this index will be written: the run ends."""

    error: BridgeError


Verdict = Outcome | Again | Stop


class _Error(msgspec.Struct):
    type: str = "unknown"
    reason: str | None = None
    caused_by: "_Error | None" = None

    def failure(self, status: int) -> Failure:
        causes, cause = [self.reason or self.type], self.caused_by
        while cause is not None:
            causes.append(cause.reason or cause.type)
            cause = cause.caused_by
        return Failure(self.type, ": ".join(causes), status)


class _Item(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    status: int
    result: str | None = None
    error: _Error | None = None


class _BulkAnswer(msgspec.Struct):
    items: list[dict[str, _Item]]


class _WholeError(msgspec.Struct):
    error: _Error | str | None = None


def verdicts(answer: Answer, actions: Sequence[BulkAction]) -> list[Verdict] | TooMuch | Again | Stop:
    """One verdict per action, in their order; or one for the request as a whole."""
    if answer.status == 200:
        return _of_items(answer, actions)
    failure = _whole_failure(answer)
    match answer.status:
        case 400 | 413:
            return TooMuch(failure)
        case 429 | 403 if failure.kind == _BLOCK:
            return Again(failure, "blocked")
        case status if status == _OVERLOADED:
            return Again(failure, "overloaded", retry_after_s(answer))
        case status if status in _AWAY:
            return Again(failure, "away", retry_after_s(answer))
        case 401 | 403 | 404:
            return Stop(_systemic(failure))
    return Again(failure, "unknown")


def retry_after_s(answer: Answer) -> float:
    """Seconds that the answer asks to wait; 0 where it does not. A date counts from the answer's own."""
    asked = answer.headers.get("retry-after", "")
    try:
        return max(float(asked), 0.0)
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(asked)
        return max((until - parsedate_to_datetime(answer.headers.get("date", ""))).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _of_items(answer: Answer, actions: Sequence[BulkAction]) -> list[Verdict] | Again:
    try:
        items = [item for entry in msgspec.json.decode(answer.body, type=_BulkAnswer).items for item in entry.values()]
    except msgspec.DecodeError as error:
        content = answer.headers.get("content-type", "no content type")
        return _unknown(f"the answer ({content}, {len(answer.body):,} bytes) is not a bulk answer: {error}")
    if [item.id for item in items] != [action.doc_id for action in actions]:
        return _unknown(f"{len(actions)} actions were sent, the answer speaks of {len(items)} or of others")
    return [_of_item(item, action.op) for item, action in zip(items, actions, strict=True)]


def _of_item(item: _Item, op: BulkOp) -> Verdict:
    if item.error is None:
        if item.result in ("created", "updated"):
            return _WRITTEN
        if item.result == "noop":
            return Outcome("unchanged" if op == "update" else "dropped_by_pipeline")
        return _unknown(f"an item has neither an error nor a known result: status {item.status}, {item.result!r}")
    failure = item.error.failure(item.status)
    match item.status:
        case 409:
            return Outcome("superseded", failure)
        case 404 if failure.kind == "document_missing_exception":
            return Outcome("superseded", failure)
        case 429 | 403 if failure.kind == _BLOCK:
            return Again(failure, "blocked")
        case status if status == _OVERLOADED:
            return Again(failure, "overloaded")
        case status if status in _AWAY:
            return Again(failure, "away")
        case 401 | 403 | 404:
            return Stop(_systemic(failure))
        case 400 | 413:
            return Outcome("dead_lettered", failure)
    return Again(failure, "unknown")


def _systemic(failure: Failure) -> BridgeError:
    if failure.status in (401, 403):
        return AccessDenied(
            f"the cluster refuses to write ({failure.status} {failure.kind}: {failure.reason}): give the user of "
            f"cluster.username the permission to write to this index"
        )
    return IndexUnsuitable(
        f"the cluster refuses to write ({failure.status} {failure.kind}: {failure.reason}): create the index first "
        f"with `neural-bridge index create`"
    )


def _whole_failure(answer: Answer) -> Failure:
    try:
        error = msgspec.json.decode(answer.body, type=_WholeError).error
    except msgspec.DecodeError:
        error = None
    if isinstance(error, _Error):
        return error.failure(answer.status)
    return Failure(f"http_{answer.status}", error or f"the whole request was answered {answer.status}", answer.status)


def _unknown(reason: str) -> Again:
    return Again(Failure("answer_not_understood", reason), "unknown")
