"""
The command ``dis-logging``: argparse over the public API.

Data goes to stdout, diagnosis to stderr. Each subcommand is a function of the parsed arguments that returns an exit code.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

from dis_logging import ConfigurationError, DISError, __version__
from dis_logging.demo import run_demo
from dis_logging.emulator import command

_DONE = 0
_FAILED = 1
_WRONG_USAGE = 2  # what argparse uses
_INTERRUPTED = 130  # what shells report for Ctrl-C

_EXIT_CODES = """\
exit codes:
  0    done
  1    something failed; stderr says what
  2    wrong usage or configuration
  130  interrupted with Ctrl-C
"""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Runs the command line and returns its exit code: 0 done, 1 failed, 2 wrong usage or configuration, 130 Ctrl-C.

    Args:
        argv: the arguments without the program's name; None takes those of the process.

    Raises:
        SystemExit: from argparse, with 0 after ``--help`` and ``--version`` and with 2 after a usage error.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.run is None:
        parser.print_help(sys.stderr)
        return _WRONG_USAGE
    _never_fail_to_encode(sys.stdout)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except ConfigurationError as error:
        return _complain(error, _WRONG_USAGE)
    except DISError as error:
        return _complain(error, _FAILED)
    except OSError as error:  # such as a full disk, or a reader of our output that has gone
        _discard_unwritable_output()
        return _complain(error, _FAILED)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dis-logging",
        description="Ships Python log records to Huawei Cloud DIS.",
        epilog=f"examples:\n  dis-logging demo\n  dis-logging emulator --stream app-logs:3\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_demo(commands)
    _add_emulator(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="watch records on their way, without an account or a network",
        description="Starts a local DIS on loopback, lets a small application log to it, and shows where each record\n"
        "went, what was sent again, and what the fallback received.",
        epilog=f"example:\n  dis-logging demo\n\nSet NO_COLOR to get no colours on a terminal.\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=lambda _: run_demo(sys.stdout, sys.stderr))


def _add_emulator(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "emulator",
        help="run a local DIS by hand, and print the settings to copy",
        description="Runs a local DIS on loopback until Ctrl-C or SIGTERM, and prints the settings for programs that shall\n"
        "use it, as environment variables and as a LOGGING snippet.",
        epilog=f"{command.EPILOG}\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def _complain(error: BaseException, code: int) -> int:
    print(f"dis-logging: {error}", file=sys.stderr)
    return code


def _never_fail_to_encode(stream: TextIO) -> None:
    """Makes *stream* show what its encoding lacks as backslash escapes; log records hold any text."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _discard_unwritable_output() -> None:
    """Sends what stdout cannot take nowhere, or the interpreter would try to write it once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
