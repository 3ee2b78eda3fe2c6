"""Makes the handler that log_config.json asks for."""

import signal
import sys
from typing import Any

from dis_logging import DISHandler


def make_handler(**options: Any) -> DISHandler:
    """
    Returns a handler, and lets SIGTERM end the process properly.

    When uvicorn has shut down on SIGTERM, it puts back what SIGTERM did before and sends it to itself. By default that
    ends the process on the spot, with the latest records unsent. uvicorn configures logging in each of its processes
    before it looks at signals, so this is early enough for all of them, also with --workers and --reload.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    return DISHandler(**options)
