"""
The command ``dis-logging tail``: shows the records of a stream, as they come or from an earlier time on.

Records go to stdout and everything else to stderr, so that ``dis-logging tail > records.txt`` is of use.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from typing import NamedTuple

from dis_logging.client import wire
from dis_logging.client.client import DISClient
from dis_logging.client.read_models import CursorType, GetRecordsResultEntry
from dis_logging.client.target import find_stream_name
from dis_logging.commands import handler_options
from dis_logging.commands.advice import advice_for
from dis_logging.commands.exits import DONE, EPILOG, FAILED, discard_unwritable_output
from dis_logging.commands.following import FROM_BEGINNING, FROM_NOW, Arrival, Follower, Start
from dis_logging.commands.paint import Paint
from dis_logging.commands.termination import terminable
from dis_logging.errors import ConfigurationError, DeliveryError, MissingOptionError
from dis_logging.escaping import escape
from dis_logging.pipeline.aggregation import Aggregation, split

_AGE = re.compile(r"(?P<count>[0-9]{1,9})(?P<unit>[smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_EXAMPLES = """\
examples:
  dis-logging tail
  dis-logging tail app-logs --from 10m --key 'shop.*' --grep 'order [0-9]+'
  dis-logging tail app-logs --from 2026-03-01T08:00 --no-follow > records.txt
  dis-logging tail --config logging.json --from beginning
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``tail`` to the *commands* of the command line."""
    parser = commands.add_parser(
        "tail",
        help="show the records of a stream as they come, or from an earlier time on",
        description="Shows the records of all partitions of a stream, merged by time, until Ctrl-C or SIGTERM, which are its\n"
        "regular end (exit code 0). A record that is a JSON object or array is shown on indented lines.",
        epilog=f"{_EXAMPLES}\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    handler_options.add_arguments(parser)
    parser.add_argument(
        "--from",
        dest="start",
        type=_start,
        default=FROM_NOW,
        metavar="WHEN",
        help="now (default), beginning (the oldest record that is left), an age such as 90s, 10m, 2h or 1d, or a time "
        "such as 2026-03-01T08:00 (local, unless it says otherwise: 2026-03-01T08:00+08:00)",
    )
    parser.add_argument(
        "--key",
        action="append",
        metavar="PATTERN",
        help="show only records with this partition key, which is the logger's name unless the handler has another "
        "template; * and ? stand for any characters; may be repeated",
    )
    parser.add_argument(
        "--grep",
        type=_pattern,
        metavar="REGEX",
        help="show only records in whose text this regular expression is found",
    )
    parser.add_argument(
        "--aggregate",
        choices=[member.value for member in Aggregation],
        help="take records apart that a handler with this option has put together; default: as the configuration says",
    )
    parser.add_argument(
        "--no-follow", action="store_true", help="end when everything that is there by now has been shown"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """
    Shows records until the end, or until Ctrl-C or SIGTERM, and returns the exit code.

    Raises:
        ConfigurationError: an option is missing or wrong.
        OSError: stdout cannot be written to.
    """
    found = handler_options.find_handler(arguments)
    try:
        stream_name = find_stream_name(found.stream_name)
        client = DISClient(**found.for_client)
    except MissingOptionError as error:
        raise ConfigurationError(f"{handler_options.how_to_give(error)}; dis-logging check tells all at once") from None
    except TypeError as error:
        raise ConfigurationError(str(error)) from None
    chosen = _Filter(tuple(arguments.key or ()), arguments.grep)
    aggregated = bool(arguments.aggregate or found.given.get("aggregate"))
    counts = _Counts()
    code = DONE
    with client, terminable():
        follower = Follower(client, stream_name, arguments.start, _complain)
        try:
            partitions = follower.begin()
            _complain(_opening(stream_name, client, partitions, follow=not arguments.no_follow))
            arrivals = follower.read(follow=not arguments.no_follow)
            _show(_taken_apart(arrivals) if aggregated else arrivals, chosen, counts)
        except DeliveryError as error:
            advice = advice_for(error)
            _complain(f"{error}" + (f"\n  -> {advice}" if advice else ""))
            code = FAILED
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:  # `| head` has seen enough, which is no failure
            discard_unwritable_output()
            return DONE
    _complain(f"{counts.shown} of {counts.read} records shown")
    return code


class _Filter(NamedTuple):
    """Which records to show: those with one of the *keys*, if there are any, in whose text *pattern* is found."""

    keys: tuple[str, ...]
    pattern: re.Pattern[str] | None

    def passes(self, record: GetRecordsResultEntry) -> bool:
        """Returns whether to show *record*."""
        if self.keys and not any(fnmatchcase(record.partition_key or "", key) for key in self.keys):
            return False
        return self.pattern is None or self.pattern.search(record.text) is not None


class _Counts:
    """How many records came, and how many of them were shown."""

    read = 0
    shown = 0


def _taken_apart(arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
    """Yields each log record of an aggregated DIS record for itself."""
    for arrival in arrivals:
        for data in split(arrival.record.data):
            yield arrival._replace(record=arrival.record._replace(data=data))


def _show(arrivals: Iterator[Arrival], chosen: _Filter, counts: _Counts) -> None:
    paint = Paint.for_stream(sys.stdout)
    for arrival in arrivals:
        counts.read += 1
        if chosen.passes(arrival.record):
            counts.shown += 1  # before it is seen, as Ctrl-C may come as soon as that
            sys.stdout.write("".join(f"{line}\n" for line in _lines(arrival, paint)))
            sys.stdout.flush()


def _opening(stream_name: str, client: DISClient, partitions: int, *, follow: bool) -> str:
    count = f"{partitions} partition{'' if partitions == 1 else 's'}"
    how = "following" if follow else "reading"
    return f"{how} {stream_name} at {client.target.endpoint}, {count}{'; Ctrl-C ends it' if follow else ''}"


def _complain(text: str) -> None:
    sys.stderr.write(f"dis-logging tail: {text}\n")
    sys.stderr.flush()


# -- what is shown --------------------------------------------------------------------------------------------------


def _lines(arrival: Arrival, paint: Paint) -> Iterator[str]:
    """Yields the lines of one record: where it comes from and its text, or its JSON on lines of its own."""
    record = arrival.record
    number = wire.partition_number(arrival.partition_id)
    place = f"{_time(record.timestamp)}  {number}:{escape(record.sequence_number, 40)}"
    head = f"{paint.faint(place)}  {paint.heading(escape(record.partition_key or '-'))}"
    pretty = _pretty(record.text)
    if pretty is not None:
        yield head
        yield from (f"  {_clean(line)}" for line in pretty.split("\n"))
        return
    first, *rest = record.text.rstrip("\n").split("\n")
    yield f"{head}  {_clean(first)}"
    yield from map(_clean, rest)


def _pretty(text: str) -> str | None:
    """Returns a JSON object or array on indented lines, None for what is neither."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):  # not JSON, an endless number, nested without end
        return None


def _time(timestamp: int | None) -> str:
    if timestamp is None:
        return "-"
    try:
        return datetime.fromtimestamp(timestamp / 1000).astimezone().isoformat(" ", "milliseconds")
    except (OverflowError, ValueError, OSError):  # any producer may set any number
        return str(timestamp)


def _clean(line: str) -> str:
    """Returns a line without what could move the cursor of a terminal; tabs stay."""
    return "\t".join(map(escape, line.removesuffix("\r").split("\t")))


# -- arguments ------------------------------------------------------------------------------------------------------


def _start(value: str) -> Start:
    if value == "now":
        return FROM_NOW
    if value == "beginning":
        return FROM_BEGINNING
    age = _AGE.fullmatch(value)
    moment = _moment(value) if age is None else time.time() - int(age["count"]) * _SECONDS[age["unit"]]
    if moment > time.time():
        raise argparse.ArgumentTypeError(f"{value!r} is still to come")
    return Start(CursorType.AT_TIMESTAMP, max(0, int(moment * 1000)))


def _moment(value: str) -> float:
    text = re.sub(r"[zZ]$", "+00:00", value)  # which Python reads since 3.11
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        what = "now, beginning, an age such as 10m, or a time such as 2026-03-01T08:00"
        raise argparse.ArgumentTypeError(f"{value!r} is not {what}") from None


def _pattern(value: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{value!r} is no regular expression: {error}") from None
