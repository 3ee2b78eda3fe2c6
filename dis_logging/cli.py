"""
The command ``dis-logging``: argparse over the public API.

Data goes to stdout, diagnosis to stderr. Each subcommand is a module of `dis_logging.commands`, whose `add_command` adds its
parser and the function that runs it and returns an exit code.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from typing import TextIO

from dis_logging import ConfigurationError, DISError, __version__
from dis_logging.commands import check, demo, emulator, send, tail
from dis_logging.commands.exits import EPILOG, FAILED, INTERRUPTED, WRONG_USAGE, discard_unwritable_output


def main(argv: Sequence[str] | None = None) -> int:
    """
    Runs the command line and returns its exit code: 0 done, 1 failed, 2 wrong usage or configuration, 130 Ctrl-C.

    Args:
        argv: the arguments without the program's name; None takes those of the process.

    Raises:
        SystemExit: from argparse, with 0 after ``--help`` and ``--version`` and with 2 after a usage error.
    """
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:  # with the usage of the command, of which argparse itself does not think
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if arguments.run is None:
        parser.print_help(sys.stderr)
        return WRONG_USAGE
    _never_fail_to_encode(sys.stdout)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except ConfigurationError as error:
        return _complain(error, WRONG_USAGE)
    except DISError as error:
        return _complain(error, FAILED)
    except OSError as error:  # such as a full disk, or a reader of our output that has gone
        discard_unwritable_output()
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dis-logging",
        description="Ships Python log records to Huawei Cloud DIS.",
        epilog=f"examples:\n  dis-logging demo\n  dis-logging emulator --stream app-logs:3\n  dis-logging send --stream app-logs --failed undelivered.log access.log\n  dis-logging check\n  dis-logging tail --from 10m\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.set_defaults(run=None, parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (demo, emulator, send, check, tail):
        command.add_command(commands)
    for each in commands.choices.values():
        each.set_defaults(parser=each)
    return parser


def _complain(error: BaseException, code: int) -> int:
    print(f"dis-logging: {error}", file=sys.stderr)
    return code


def _never_fail_to_encode(stream: TextIO) -> None:
    """Makes *stream* show what its encoding lacks as backslash escapes; log records hold any text."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
