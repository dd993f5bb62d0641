"""Logging: our JSON lines on standard error, and uvicorn's; neither tells anything that people wrote."""

import logging
import sys
import traceback
from copy import deepcopy
from typing import Any

import structlog
from uvicorn.config import LOGGING_CONFIG


def configure_logging(level: str) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.getLogger("uvicorn.error").addFilter(without_message)
    # PEFT imports it where it is installed, and it warns of kernels that it could fetch.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def uvicorn_logging() -> dict[str, Any]:
    """uvicorn's own configuration, with its access lines on standard error too: standard output is the audit log's."""
    config = deepcopy(LOGGING_CONFIG)
    config["handlers"]["access"]["stream"] = "ext://sys.stderr"
    return config


def trace_of(exc: BaseException) -> str:
    """The type of an exception and the lines that it came through; its message may quote what people wrote."""
    return "".join([*traceback.format_tb(exc.__traceback__), type(exc).__qualname__])


def without_message(record: logging.LogRecord) -> bool:
    """A filter for uvicorn, which logs every exception that an app does not answer, and those that ours answers too."""
    if record.exc_info and record.exc_info[1]:
        record.exc_text = trace_of(record.exc_info[1])
    return True
