"""Where log events go: servers write JSON lines for machines, commands write warnings for people; both to stderr."""

import sys
from contextlib import suppress

import structlog
from structlog.typing import EventDict, WrappedLogger


def write_json_lines() -> None:
    """For servers: every event from `info` on, one JSON object a line."""
    structlog.configure(
        processors=[
            _drop_debug,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=_to_stderr,
    )


def write_warnings() -> None:
    """For commands, whose progress is shown otherwise: `warning: EVENT (KEY=VALUE, …)`."""
    structlog.configure(
        processors=[_drop_progress, structlog.processors.format_exc_info, _line], logger_factory=_to_stderr
    )


class _Stderr(structlog.PrintLogger):
    """A full disk, or a reader that is gone, costs the line, and not what the line is about."""

    def msg(self, message: str) -> None:
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = fatal = failure = err = error = critical = exception = msg


def _to_stderr(*_: object) -> structlog.PrintLogger:
    return _Stderr(sys.stderr)


def _drop_debug(_: WrappedLogger, level: str, event: EventDict) -> EventDict:
    if level == "debug":
        raise structlog.DropEvent
    return event


def _drop_progress(_: WrappedLogger, level: str, event: EventDict) -> EventDict:
    if level in ("debug", "info"):
        raise structlog.DropEvent
    return event


def _line(_: WrappedLogger, level: str, event: EventDict) -> str:
    from bridge.console import safe_text  # rich, which servers have no use for

    message, exception = event.pop("event"), event.pop("exception", None)
    fields = ", ".join(f"{name}={value}" for name, value in event.items())
    line = safe_text(f"{level}: {message} ({fields})" if fields else f"{level}: {message}")
    return f"{line}\n{safe_text(exception, lines=True)}" if exception else line
