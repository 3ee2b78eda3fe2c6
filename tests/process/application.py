"""
What the programs under test start from: a handler for the emulator in the parent process, and a fallback on disk.

Imported by the children only; `programs.py` puts this directory on their path and fills the environment.
"""

import json
import logging
import os
from typing import Any

from dis_logging import DISHandler

OPTIONS: dict[str, Any] = json.loads(os.environ["DIS_TEST_OPTIONS"])


class FileFallback(logging.Handler):
    """Appends one line for each record, and needs neither opening nor closing: it works after a fork and at exit."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the reason, the text, and what else the parent looks at."""
        # Without io's buffers and locks, which are gone or held when the interpreter ends.
        line = json.dumps([vars(record)["dis_error_code"], record.getMessage()]).encode() + b"\n"
        file = os.open(os.environ["DIS_TEST_FALLBACK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, line)
        finally:
            os.close(file)


def make_handler(**options: Any) -> DISHandler:
    """Returns a handler that logs to the parent's emulator, with the test's options and *options* on top."""
    return DISHandler(**{"fallback": FileFallback(), **OPTIONS, **options})


def make_logger(name: str, handler: logging.Handler | None = None) -> logging.Logger:
    """Returns a logger at DEBUG that has *handler*, by default a new one, and nothing else."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler or make_handler())
    return logger


def make_config(**options: Any) -> dict[str, Any]:
    """Returns a configuration for `dictConfig` that makes the same handler and attaches it to the root logger."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "dis": {"class": "dis_logging.DISHandler", **OPTIONS, "fallback": "cfg://handlers.file", **options},
            "file": {"class": "application.FileFallback"},
        },
        "root": {"level": "DEBUG", "handlers": ["dis"]},
    }
