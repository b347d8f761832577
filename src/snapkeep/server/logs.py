"""Structured logs on standard error: one form for our lines and for those of libraries, and no secrets in either."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import threading
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO, cast

import stamina.instrumentation
import structlog

from snapkeep.operations import metrics

MASK = "***"

_HIDDEN = r"(?:pass(?:word|phrase|wd)|secret|token|authorization|cookie|api[-_ ]?key|private[-_ ]?key|credentials?)"
_HIDDEN_NAME = re.compile(rf"(?i){_HIDDEN}s?$")
_IN_TEXT = (
    # scheme://user:password@host, and what is between the quotes of a URL whose password has an @ of its own
    (re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/'\"<>]*@"), rf"\1{MASK}@"),
    (re.compile(r"\b(?i:(bearer|basic))\s+(?=\S*[A-Z0-9=_])[\w.~+/=-]{6,}"), rf"\1 {MASK}"),
    # password=..., "token": "...", X-Api-Key: ...
    (
        re.compile(rf"(?i)({_HIDDEN}s?['\"]?\s*[=:]\s*)(?!(?:bearer|basic) )(\"[^\"]*\"|'[^']*'|[^\s,;&)}}\]]+)"),
        rf"\1{MASK}",
    ),
)

log = structlog.get_logger(__name__)


def configure(form: str, level: str) -> None:
    """Set up structlog, and the standard library's log, to write text or JSON lines."""
    number = logging.getLevelNamesMapping()[level]
    common: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _mask,
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # the others print local variables: secrets
        )
    )
    structlog.configure(
        processors=[*common, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Patient(sys.stderr))),
    )
    _configure_libraries(common, renderer, max(number, logging.WARNING))  # below, they show headers and parameters
    stamina.instrumentation.set_on_retry_hooks([_repeated])
    threading.excepthook = _thread_died


class _Patient(io.TextIOBase):
    """A stream on which a failure to write is none: no work ends because the disk of the log is full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write; what cannot be written is lost, or comes later."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing more than `write` can."""
        with contextlib.suppress(OSError):
            self._stream.flush()


def _configure_libraries(
    common: list[structlog.types.Processor], renderer: structlog.types.Processor, level: int
) -> None:
    """Bring what libraries log by the standard library into the same form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *common, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]  # a library that was imported before may have put its own there
    root.setLevel(level)
    logging.captureWarnings(True)
    logging.getLogger("dbos").addHandler(logging.NullHandler())  # it makes a handler of its own when there is none
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Say whether uvicorn knows more than we: errors of requests and of the start are told in our own form."""
    text = record.getMessage()
    return not (record.exc_info or text.startswith(("Traceback", "Application startup failed")))


def _repeated(details: stamina.instrumentation.RetryDetails) -> None:
    """Log, and count, a request that is sent again; the log line carries the operation that it is for."""
    metrics.retried("request_repeated")
    log.warning(
        "request repeated", reason=str(details.caused_by), tries=details.retry_num, pause=round(details.wait_for, 1)
    )


def _thread_died(args: threading.ExceptHookArgs) -> None:
    """Log what else would be printed as it is."""
    if args.exc_value is not None:
        log.error("a thread died", thread=args.thread.name if args.thread else "", exc_info=args.exc_value)


def _mask(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask secrets: values whose name says that they are some, and what looks like one inside text."""
    return {key: _masked(key, value) for key, value in event.items()}


def _masked(name: str, value: Any) -> Any:
    if _HIDDEN_NAME.search(name) and value is not None:
        return MASK
    if isinstance(value, str):
        return masked_text(value)
    if isinstance(value, Mapping):
        return {key: _masked(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked("", item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else masked_text(str(value))


def masked_text(text: str) -> str:
    """Return text without passwords in URLs, tokens in headers, and values behind names of secrets."""
    for pattern, put in _IN_TEXT:
        text = pattern.sub(put, text)
    return text
