"""How ``dis-logging`` ends: its exit codes, the words for them in every ``--help``, and a stdout that has gone."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

DONE = 0
FAILED = 1
WRONG_USAGE = 2  # what argparse uses
INTERRUPTED = 130  # what shells report for Ctrl-C

#: Of a command that Ctrl-C is the right end of.
ENDLESS_EPILOG = """\
exit codes:
  0    done
  1    something failed; stderr says what
  2    wrong usage or configuration
"""
EPILOG = f"""{ENDLESS_EPILOG}\
  130  interrupted with Ctrl-C
"""


def discard_unwritable_output() -> None:
    """Sends what stdout cannot take nowhere, or the interpreter would try to write it once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
