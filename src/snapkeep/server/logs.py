"""Structured logs on standard error."""

from __future__ import annotations

import logging
import sys

import stamina.instrumentation
import structlog


def configure(form: str, level: str) -> None:
    """Set up structlog, and the standard library's log, to write text or JSON lines."""
    number = logging.getLevelNamesMapping()[level]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # the others print local variables: secrets
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([structlog.processors.format_exc_info] if form == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    # An operation tells of its outages itself; stamina's lines would name neither operation nor system.
    stamina.instrumentation.set_on_retry_hooks([])
    # Uvicorn logs with a traceback what is answered, or raised, in our own form.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    logging.basicConfig(
        stream=sys.stderr, level=max(number, logging.WARNING), format="%(levelname)s %(name)s %(message)s"
    )
