"""
The command ``dis-logging emulator``: runs the emulator by hand and prints what to tell programs that shall use it.

The settings go to stdout and the rest to stderr, so that ``dis-logging emulator > settings.txt`` is of use.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import time

from dis_logging.client import wire
from dis_logging.commands.exits import DONE, ENDLESS_EPILOG, WRONG_USAGE
from dis_logging.commands.termination import terminable
from dis_logging.emulator.emulator import DISEmulator
from dis_logging.emulator.store import DEFAULT_RETENTION

_DEFAULT_STREAM = ("app-logs", 1)
_MOST_PARTITIONS = 1000

_EXAMPLES = """\
examples:
  dis-logging emulator
  dis-logging emulator --port 8080 --stream app-logs:3 --stream audit --file dis.sqlite
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``emulator`` to the *commands* of the command line."""
    parser = commands.add_parser(
        "emulator",
        help="run a local DIS by hand, and print the settings to copy",
        description="Runs a local DIS on loopback until Ctrl-C or SIGTERM, and prints the settings for programs that shall\n"
        "use it, as environment variables and as a LOGGING snippet.\n\n"
        f"Of each partition it holds the newest {DEFAULT_RETENTION:,} records.",
        epilog=f"{_EXAMPLES}\n{ENDLESS_EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `run` reads to *parser*."""
    parser.add_argument(
        "--port", type=_port, default=0, metavar="N", help="TCP port on 127.0.0.1; default: any free one"
    )
    parser.add_argument(
        "--stream",
        type=_stream,
        action="append",
        metavar="NAME[:PARTITIONS]",
        help="a stream to begin with, of 1 partition unless it says more; may be repeated; "
        f"default: {_DEFAULT_STREAM[0]}, or what is in the file",
    )
    parser.add_argument(
        "--file", metavar="F", help="SQLite file that keeps streams and records for the next time; default: memory only"
    )
    parser.add_argument(
        "--throttle",
        action="store_true",
        help="refuse what is beyond DIS's rates: 1000 records and 1 MiB a second for each partition",
    )


def run(arguments: argparse.Namespace) -> int:
    """
    Serves until Ctrl-C or SIGTERM and returns the exit code: 0, or 2 when the streams do not fit the file.

    Args:
        arguments: what a parser with `add_arguments` has read.

    Raises:
        OSError: when the port is taken, or the file cannot be used.
    """
    try:
        emulator = DISEmulator(
            dict(arguments.stream or ()), port=arguments.port, file=arguments.file, throttle=arguments.throttle
        )
        if not emulator.stream_names:
            emulator.create_stream(*_DEFAULT_STREAM)
    except ValueError as error:
        sys.stderr.write(f"dis-logging emulator: {error}\n")
        return WRONG_USAGE
    try:
        with terminable(), emulator:
            sys.stderr.write(f"{_state(emulator)}. Ctrl-C ends it.\n")
            sys.stdout.write(f"{_settings(emulator)}\n")
            sys.stdout.flush()
            while True:
                # Short, because a signal may reach the thread of a connection, which does not wake this one.
                time.sleep(0.2)
    except KeyboardInterrupt:
        sys.stderr.write(f"{_balance(emulator)}\n")
        return DONE


def _settings(emulator: DISEmulator) -> str:
    """Returns the handler's options for the first stream, as commands of a shell and as Python."""
    options = emulator.handler_options(emulator.stream_names[0])
    exports = [f"export DIS_LOGGING_{name.upper()}={shlex.quote(value)}" for name, value in options.items()]
    lines = [f'            "{name}": "{value}",' for name, value in options.items()]
    return "\n".join(
        (
            "# environment variables",
            *exports,
            "",
            "# Django settings, or logging.config.dictConfig",
            *_HEAD,
            *lines,
            *_TAIL,
        )
    )


_HEAD = (
    "LOGGING = {",
    '    "version": 1,',
    '    "disable_existing_loggers": False,',
    '    "handlers": {',
    '        "dis": {',
    '            "class": "dis_logging.DISHandler",',
)
_TAIL = (
    "        },",
    "    },",
    '    "root": {"handlers": ["dis"], "level": "INFO"},',
    "}",
)


def _state(emulator: DISEmulator) -> str:
    names = ", ".join(emulator.stream_names)
    what = "stream" if len(emulator.stream_names) == 1 else "streams"
    return f"A local DIS serves at {emulator.endpoint} the {what} {names}"


def _balance(emulator: DISEmulator) -> str:
    counts = {name: emulator.record_count(name) for name in emulator.stream_names}
    stored = ", ".join(f"{name} holds {count} record{'' if count == 1 else 's'}" for name, count in counts.items())
    refused = ", ".join(f"{count} x {code}" for code, count in sorted(emulator.refused.items()))
    return f"{stored or 'no streams'}; refused: {refused or 'nothing'}"


def _port(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", value) or int(value) > 65535:
        raise argparse.ArgumentTypeError(f"{value!r} is not a port from 0 to 65535")
    return int(value)


def _stream(value: str) -> tuple[str, int]:
    name, colon, count = value.partition(":")
    if not wire.is_stream_name(name):
        raise argparse.ArgumentTypeError(f"{name!r} is not 1 to 64 letters, digits, '_' or '-'")
    partitions = count if colon else "1"
    if not re.fullmatch(r"[0-9]{1,4}", partitions) or not 1 <= int(partitions) <= _MOST_PARTITIONS:
        raise argparse.ArgumentTypeError(f"{value!r} does not have 1 to {_MOST_PARTITIONS} partitions")
    return name, int(partitions)
