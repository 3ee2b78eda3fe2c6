"""The exit codes of ``dis-logging``, and the words for them at the end of every ``--help``."""

from __future__ import annotations

DONE = 0
FAILED = 1
WRONG_USAGE = 2  # what argparse uses
INTERRUPTED = 130  # what shells report for Ctrl-C

EPILOG = """\
exit codes:
  0    done
  1    something failed; stderr says what
  2    wrong usage or configuration
  130  interrupted with Ctrl-C
"""
