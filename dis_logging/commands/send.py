"""
The command ``dis-logging send``: ships the lines of files, or of stdin, through the handler.

Everything it says goes to stderr; stdout stays empty.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import shlex
import signal
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count

from dis_logging.commands.console import Console, size
from dis_logging.commands.exits import DONE, EPILOG, FAILED, INTERRUPTED, WRONG_USAGE
from dis_logging.commands.handler_options import how_to_give
from dis_logging.commands.lines import STDIN, Feeder, Input, Interruption, text_of_argument
from dis_logging.commands.undelivered import Undelivered
from dis_logging.errors import ConfigurationError, MissingOptionError
from dis_logging.handler import DISHandler
from dis_logging.pipeline.buffer import OverflowPolicy
from dis_logging.pipeline.stats import HandlerStats

_MIB = 1024 * 1024
_DEFAULT_TIMEOUT = 120.0
_LONGEST_TIMEOUT = 86_400.0
# Enough to keep the sender busy, and little enough to be handed over in a moment when the end is near.
_BUFFER_RECORDS = 5_000
_BUFFER_BYTES = 8 * _MIB
# Somebody may be waiting for the lines that trickle through a pipe.
_FLUSH_INTERVAL = 0.25
# How long Ctrl-C leaves for delivering what was read.
_LAST_SECONDS = 5.0
_LOOK_INTERVAL = 0.1
# How long the reading thread may hand over what it has read before that, while DIS takes some at least so often. Together
# less than the 10 seconds after which supervisors kill.
_HANDOVER_SECONDS = 3.0
_STANDSTILL = 1.0
# What is left for the reading thread once the handler is closed: a chunk of lines to put away.
_READER_PATIENCE = 5.0
# DIS has some forty codes; nobody would read that many lines.
_MOST_REASONS = 5

_DESCRIPTION = """\
Sends each line of the files, or of stdin, as one record, and says what became of them. Where to and as whom is looked
up in the environment, as for DISHandler. A slow DIS slows the reading down.

A record is the bytes between two newlines, whatever their encoding. An empty line is sent as a newline, since DIS takes no
empty record. A line of more than 1 MiB cannot be sent.

Lines that were not delivered go to the file of --failed, byte for byte; without it they are shown on stderr. 'send'
takes that file again, with --key and a new file for --failed; when lines fail it prints the command.

Ctrl-C or SIGTERM stops the reading, leaves 5 to 8 seconds for delivering what was read, and says how to go on.
"""
_EXAMPLES = """\
examples:
  dis-logging send access.log
  dis-logging send --stream app-logs --key web-1 --failed undelivered.log access.log
  journalctl --output json | dis-logging send --stream journal --failed undelivered.log
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``send`` to the *commands* of the command line."""
    parser = commands.add_parser(
        "send",
        help="send the lines of files or of stdin, and keep those that fail",
        description=_DESCRIPTION,
        epilog=f"{_EXAMPLES}\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="what to read, '-' for stdin; default: stdin")
    parser.add_argument("--stream", metavar="NAME", help="an existing stream; default: DIS_LOGGING_STREAM_NAME")
    parser.add_argument(
        "--key",
        type=text_of_argument,
        metavar="KEY",
        help="partition key of all lines; '' spreads them evenly, without order; default: the file's name, or 'stdin'",
    )
    parser.add_argument(
        "--failed", metavar="FILE", help="a new file for the lines that were not delivered, without their keys"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=_DEFAULT_TIMEOUT,
        metavar="S",
        help="how many seconds to keep trying, counted for each request from its first attempt; default: %(default)g",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """
    Sends everything and returns the exit code: 0, 1 when a line failed, 2 when nothing could be begun, or 130.

    Args:
        arguments: what the parser of `add_command` has read.

    Raises:
        ConfigurationError: the environment does not say where to send as whom.
    """
    inputs = [Input(path, arguments.key) for path in arguments.files or [STDIN]]
    console = Console(sys.stderr)
    mistake = _mistake(inputs, arguments.failed)
    if not mistake:
        try:
            undelivered = Undelivered(arguments.failed, console)
        except FileExistsError:
            mistake = f"--failed: {arguments.failed!r} exists already; name a new file, or remove it"
        except OSError as error:
            mistake = f"--failed: cannot make {arguments.failed!r}: {error.strerror or error}"
    if mistake:
        console.say(f"{mistake}. Nothing was sent")
        return WRONG_USAGE
    with undelivered:
        try:
            shipment = _Shipment(arguments, inputs, undelivered, console)
        except MissingOptionError as error:
            raise ConfigurationError(how_to_give(error, {"stream_name": "--stream"})) from None
        return shipment.ship()


def _mistake(inputs: Sequence[Input], failed: str | None) -> str:
    """Returns what is wrong with the arguments, empty when nothing is; nothing is opened or made by then."""
    if failed is not None and len({source.key for source in inputs}) > 1:
        return (
            "--failed keeps lines without their keys, and these files have several: give one --key, "
            "or send the files one by one"
        )
    if sum(source.is_stdin for source in inputs) > 1:
        return "'-' may be given once"
    for source in inputs:
        try:
            source.check()
        except OSError as error:
            return f"cannot read {source}: {error.strerror or error}"
    return ""


def _total(inputs: Sequence[Input]) -> int | None:
    """Returns how many bytes there are to read, None when one of the inputs has no end that is known."""
    found = [source.check() for source in inputs]
    return sum(each.st_size for each in found) if all(stat.S_ISREG(each.st_mode) for each in found) else None


class _Shipment:
    """One run of the command: the handler, the thread that feeds it, and what is said about them."""

    def __init__(
        self, arguments: argparse.Namespace, inputs: list[Input], undelivered: Undelivered, console: Console
    ) -> None:
        self._arguments = arguments
        self._inputs = inputs
        self._undelivered = undelivered
        self._console = console
        self._named: set[str] = set()  # files of further commands
        console.total = _total(inputs)
        self._interruption = Interruption()
        self._handler = DISHandler(
            arguments.stream,
            fallback=undelivered,
            overflow=OverflowPolicy.BLOCK,
            flush_interval=_FLUSH_INTERVAL,
            block_timeout=_LONGEST_TIMEOUT,
            max_buffer_records=_BUFFER_RECORDS,
            max_buffer_bytes=_BUFFER_BYTES,
            delivery_timeout=arguments.timeout,
            shutdown_timeout=min(_LAST_SECONDS, arguments.timeout),
        )
        self._handler.setFormatter(_Untouched())
        self._feeder = Feeder(inputs, self._handler, undelivered, self._interruption)

    def ship(self) -> int:
        """Sends everything and returns the exit code."""
        if any(source.is_stdin for source in self._inputs) and os.isatty(0):
            self._console.say("reading from the terminal, Ctrl-D ends it")
        began = time.monotonic()
        with _ended_by_signals(self._interruption):
            try:
                self._feeder.start()
                while self._feeder.is_alive() and not self._interruption.is_requested:
                    self._feeder.join(_LOOK_INTERVAL)
                    self._show_progress()
                if self._interruption.is_requested:
                    self._undelivered.hold()
                    self._console.say("interrupted, delivering what was read")
                    self._hand_over_rest()
            finally:
                self._feeder.give_up()
                self._handler.close()  # by now it has nothing left, unless this is an early end
                self._feeder.join(_READER_PATIENCE)
                self._undelivered.release()
        return self._conclude(time.monotonic() - began)

    def _hand_over_rest(self) -> None:
        """Lets the reading thread hand over what it has read while DIS takes lines."""
        now = moved_at = time.monotonic()
        end = now + min(_HANDOVER_SECONDS, self._arguments.timeout)
        before = self._handler.stats().delivered
        while self._feeder.is_alive() and now < min(end, moved_at + _STANDSTILL):
            self._feeder.join(_LOOK_INTERVAL)
            now = time.monotonic()
            delivered = self._handler.stats().delivered
            if delivered != before:
                before, moved_at = delivered, now

    def _show_progress(self) -> None:
        stats = self._handler.stats()
        self._console.show_progress(self._feeder.bytes_read, stats.delivered, stats.retried, self._undelivered.count)

    def _conclude(self, seconds: float) -> int:
        """Says what became of the lines and returns the exit code."""
        stats = self._handler.stats()
        read = sum(source.lines for source in self._inputs)
        failed = read - stats.delivered
        self._console.say(self._balance(stats, read, failed, seconds))
        for source in self._inputs:
            if source.error is not None:
                self._console.say(
                    f"cannot read {source} after line {source.lines}: {source.error.strerror or source.error}"
                )
        self._tell_about_failed(failed)
        if self._interruption.is_requested:
            self._tell_how_to_go_on()
            return INTERRUPTED
        has_error = any(source.error for source in self._inputs) or not self._feeder.is_complete
        return FAILED if failed or has_error else DONE

    def _balance(self, stats: HandlerStats, read: int, failed: int, seconds: float) -> str:
        reasons = ", ".join(f"{count} x {code}" for code, count in self._undelivered.reasons.most_common())
        return (
            f"{read} lines read ({size(self._feeder.bytes_read)}), {stats.delivered} delivered, {failed} failed"
            + (f" ({reasons})" if reasons else "")
            + f", {stats.retried} sent again, in {seconds:.1f} s"
        )

    def _tell_about_failed(self, failed: int) -> None:
        undelivered = self._undelivered
        if undelivered.outcome_unknown:
            self._console.say(f"{undelivered.outcome_unknown} of the failed lines may be stored: DIS did not answer")
        path = undelivered.path
        if path is None or not failed:
            return
        for code, _ in undelivered.reasons.most_common(_MOST_REASONS):
            self._console.say(f"{code}: {undelivered.messages[code]}")
        elsewhere = undelivered.unwritable + failed - undelivered.count
        if elsewhere:
            self._console.say(f"{elsewhere} of the failed lines did not go to {path}, they are on stderr")
        if failed > elsewhere:
            again = self._command(self._free_name("again"), self._inputs[0].key)
            self._console.say(f"to send the failed lines again: {again} {_quoted_path(path)}")

    def _tell_how_to_go_on(self) -> None:
        for source in self._inputs:
            if source.is_read or source.error is not None:
                continue
            if source.is_stdin:
                self._console.say(f"stdin was read up to line {source.lines}; what followed that was not sent")
                continue
            command = self._command(self._free_name("rest"), source.key)
            path = _quoted_path(source.path)
            if source.lines:
                go_on = f"tail -n +{source.lines + 1} {path} | {command}"
                self._console.say(f"{source} was read up to line {source.lines}; to go on: {go_on}")
            else:
                self._console.say(f"{source} was not read; to send it: {command} {path}")

    def _command(self, failed: str | None, key: str) -> str:
        """Returns the command that sends to the same stream as patiently."""
        words = ["dis-logging", "send"]
        if self._arguments.stream is not None:
            words.append(f"--stream={self._arguments.stream}")
        words.append(f"--key={key}")
        if self._arguments.timeout != _DEFAULT_TIMEOUT:
            words.append(f"--timeout={self._arguments.timeout:g}")
        if failed is not None:
            words.append(f"--failed={failed}")
        return shlex.join(words)

    def _free_name(self, ending: str) -> str | None:
        """Returns a name for the file of a further command that no file has, and none of the other commands makes."""
        if self._undelivered.path is None:
            return None
        names = (f"{self._undelivered.path}.{ending}{number or ''}" for number in count())
        name = next(name for name in names if name not in self._named and not os.path.lexists(name))
        self._named.add(name)
        return name


class _Untouched(logging.Formatter):
    """Leaves a line as it is: bytes, which the handler sends as they are."""

    def format(self, record: logging.LogRecord) -> str:
        return record.msg


@contextmanager
def _ended_by_signals(interruption: Interruption) -> Iterator[None]:
    """Makes the signals that end a program request an end instead, except those that somebody chose to ignore."""
    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, lambda *_: interruption.request())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _quoted_path(path: str) -> str:
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds from more than 0 to 86400")
    return seconds
