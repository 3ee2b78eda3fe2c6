"""
The command ``dis-logging check``: would records arrive, and if not, why?

Resolves the options as the handler does and says where each came from, then walks the way to DIS one step at a time. The
report goes to stdout, warnings and the verdict to stderr.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from dis_logging import options
from dis_logging.client.client import DISClient
from dis_logging.client.models import PutRecordsRequestEntry, PutRecordsResultEntry
from dis_logging.client.origins import OPTION, Origins
from dis_logging.client.read_models import CursorType, StreamDescription
from dis_logging.client.resolver import Addresses
from dis_logging.client.target import find_stream_name
from dis_logging.commands import handler_options, probes
from dis_logging.commands.advice import advice_for, advice_for_refusal
from dis_logging.commands.config_files import load_logging_config
from dis_logging.commands.config_mistakes import mistakes_in
from dis_logging.commands.exits import DONE, EPILOG, FAILED, WRONG_USAGE
from dis_logging.commands.handler_options import HandlerOptions, how_to_give
from dis_logging.commands.paint import Paint
from dis_logging.errors import ConfigurationError, DISError, MissingOptionError, ServiceError
from dis_logging.escaping import escape
from dis_logging.handler import DISHandler

_SECRETS = ("sk", "security_token", "auth_token")
_MASK = "********"
# The resolver's own: nothing else about an option matters before these.
_FIRST = ("stream_name", "endpoint", "region", "project_id", "stream_id", "ak", *_SECRETS, "credentials")
# API request signing guide (APIGW.0303): a signature may be so far from the gateway's time.
_MOST_SKEW = 15 * 60.0
# The Date header has whole seconds; beyond this a clock is not set by NTP.
_NOTED_SKEW = 60.0
# How long the test record may take to appear for readers.
_READ_PATIENCE = 10.0
_KEY = "dis_logging.check"
_NO_PERMISSION = ("DIS.4116",)
_OF_KEYS = re.compile(r"DIS\.41(0\d|1[0-47])|APIGW\.03\d\d")

_EXAMPLES = """\
examples:
  dis-logging check
  dis-logging check app-logs --write
  dis-logging check --config logging.json
  DJANGO_ENV=production dis-logging check --config mysite.settings
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds ``check`` to the *commands* of the command line."""
    parser = commands.add_parser(
        "check",
        help="find out whether records would arrive, and if not, why",
        description="Resolves the options as the handler does, says where each came from, and tries the way to DIS step by\n"
        "step: name, connection, TLS, clock, signature, stream and, with --write, a test record.",
        epilog=f"{_EXAMPLES}\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    handler_options.add_arguments(parser)
    parser.add_argument(
        "--write",
        action="store_true",
        help="store one test record and read it back; consumers of the stream will see it, with the partition key "
        f"{_KEY}",
    )
    parser.add_argument("--strict", action="store_true", help="take warnings for failures (exit code 1)")
    parser.set_defaults(run=lambda arguments: run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """
    Checks every DIS handler that *arguments* mean and returns the exit code: the worst of them.

    Raises:
        ConfigurationError: the configuration cannot be read.
    """
    config = None if arguments.config is None else load_logging_config(arguments.config)
    mistakes = [] if config is None else list(mistakes_in(config))
    for mistake in mistakes:
        _complain(mistake.text if mistake.is_certain else f"warning: {mistake.text}")
    codes = [
        _check_handler(found, write=arguments.write, strict=arguments.strict)
        for found in handler_options.find_handlers(arguments, config)
    ]
    codes += [
        WRONG_USAGE if mistake.is_certain else FAILED for mistake in mistakes if mistake.is_certain or arguments.strict
    ]
    return max(codes)


def _check_handler(found: HandlerOptions, *, write: bool, strict: bool) -> int:
    if found.label:
        _print(Paint.for_stream(sys.stdout).heading(f"{found.label[0].upper()}{found.label[1:]}"))
    errors = list(found.errors)
    if not errors:
        try:
            stream_name, client, origins = _make(found)
        except MissingOptionError:
            errors += _missing(found)
        except (ConfigurationError, TypeError) as error:
            errors.append(str(error))
    for warning in found.warnings:
        _complain(f"warning: {warning}", found)
    if errors:
        for text in errors:
            _complain(text, found)
        return WRONG_USAGE
    with client:
        warned = _report_options(found, stream_name, client, origins)
        failed, warned_on_the_way = _report_steps(_Walk(client, stream_name, write=write))
    if failed:
        _complain(f"{failed} failed", found)
        return FAILED
    if strict and (found.warnings or warned or warned_on_the_way):
        _complain("there are warnings", found)
        return FAILED
    return DONE


def _make(found: HandlerOptions) -> tuple[str, DISClient, Mapping[str, str]]:
    """Returns stream, client and where they come from, having made the handler once, which looks at all other options."""
    DISHandler(**found.for_handler).close()
    origins = Origins()
    stream_name = find_stream_name(found.stream_name, origins)
    client = DISClient(**found.for_client)
    return stream_name, client, {**origins, **client.origins}


def _missing(found: HandlerOptions) -> list[str]:
    """Returns what is wrong with all options: making the handler ends at the first that is missing, so each gets a value."""
    errors: list[str] = []
    given = dict(found.given)
    while True:
        try:
            _make(replace(found, given=given))[1].close()
        except MissingOptionError as error:
            errors.append(how_to_give(error))
            given[error.option] = "missing"
        except (ConfigurationError, TypeError) as error:
            return [*errors, str(error)]
        else:
            return errors


def _print(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()  # a step may take a while, and what came before it should be seen


def _complain(text: str, found: HandlerOptions | None = None) -> None:
    label = f" {found.label}:" if found is not None and found.label else ""
    sys.stderr.write(f"dis-logging check:{label} {text}\n")


# -- options --------------------------------------------------------------------------------------------------------


def _report_options(found: HandlerOptions, stream_name: str, client: DISClient, origins: Mapping[str, str]) -> bool:
    """Prints each option with its origin; returns whether there was something to warn of."""
    _print(Paint.for_stream(sys.stdout).heading("Options"))
    rows = list(_option_rows(found, stream_name, client, origins))
    width = min(48, max(len(value) for _, value, _ in rows))
    for name, value, origin in rows:
        _print(f"  {name:<18}  {value:<{width}}  {origin}")
    mismatch = _region_mismatch(client)
    if mismatch:
        _complain(f"warning: {mismatch}", found)
    return bool(mismatch)


def _option_rows(
    found: HandlerOptions, stream_name: str, client: DISClient, origins: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Yields name, value and origin: of what says where to and as whom, then of every other option that was given."""
    known = {
        "stream_name": stream_name,
        "endpoint": client.target.endpoint,
        "region": client.target.region,
        "project_id": client.target.project_id,
        "stream_id": client.target.stream_id,
    }
    for name in _FIRST:
        if name not in origins:
            continue
        if name in known:
            value = known[name]
        elif name == "ak":
            value = client.access_key() or ""
        else:
            value = _shown_option(name, found.given.get(name))
        yield name, value, _place(found, name, origins[name])
    for name, given in found.given.items():
        if name not in _FIRST:
            yield name, _shown_option(name, given), found.places[name]


def _place(found: HandlerOptions, name: str, origin: str) -> str:
    return found.places.get(name, origin) if origin == OPTION else origin


def _shown_option(name: str, value: Any) -> str:
    """Returns an option's value as it may be shown: no secret, no password of a proxy."""
    if name in _SECRETS:
        return _MASK
    if name == "proxies" and isinstance(value, Mapping):
        return ", ".join(f"{scheme}: {without_secrets(str(url))}" for scheme, url in value.items())
    if name == "credentials":
        return value if isinstance(value, str) else type(value).__name__
    if name == "fallback" and isinstance(value, Mapping):
        return f"a {value.get('class', value.get('()', 'handler'))}"  # its options may hold secrets
    return escape(value, 120) if isinstance(value, str) else options.shown(value)


def without_secrets(url: str) -> str:
    """Returns scheme, host and port: a user and a password stand before them, and another secret may follow."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # of the port, which may be part of a password
        return _MASK
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return escape(f"{parts.scheme}://{host}{port}", 120)


def _region_mismatch(client: DISClient) -> str:
    host = urlsplit(client.target.endpoint).hostname or ""
    named = re.match(r"dis\.([a-z]{2,}-[a-z]+-\d+)\.", host)
    if named is None or named[1] == client.target.region:
        return ""
    return f"region is {client.target.region}, but the endpoint is that of {named[1]}: signatures will be refused"


# -- the way to DIS -------------------------------------------------------------------------------------------------


class Status(Enum):
    """How a step ended."""

    OK = "ok"
    WARNING = "warn"
    FAILED = "FAIL"
    SKIPPED = "skip"


class Finding(NamedTuple):
    """What a step found; after one that *blocks*, no further step can succeed."""

    status: Status
    text: str
    advice: str = ""
    blocks: bool = False


Step = Callable[[], Finding]


def _report_steps(walk: _Walk) -> tuple[str, bool]:
    """Takes every step and prints a line for each; returns the names of those that failed, and whether any warned."""
    paint = Paint.for_stream(sys.stdout)
    colours = {
        Status.OK: paint.good,
        Status.WARNING: paint.again,
        Status.FAILED: paint.bad,
        Status.SKIPPED: paint.faint,
    }
    _print(paint.heading("Checks"))
    failed: list[str] = []
    warned = False
    blocked = ""
    for name, step in walk.steps():
        started = time.perf_counter()
        finding = Finding(Status.SKIPPED, f"not tried, because {blocked} failed") if blocked else _take(step)
        took = "" if finding.status is Status.SKIPPED else f"{(time.perf_counter() - started) * 1000:.0f} ms"
        _print(f"  {name:<9}  {colours[finding.status](f'{finding.status.value:<4}')}  {took:>8}  {finding.text}")
        if finding.advice:
            _print(f"{'':27}-> {finding.advice}")
        if finding.status is Status.FAILED:
            failed.append(name)
        warned = warned or finding.status is Status.WARNING
        blocked = blocked or (name if finding.blocks else "")
    return ", ".join(failed), warned


def _take(step: Step) -> Finding:
    try:
        return step()
    except probes.ProbeError as error:
        return Finding(Status.FAILED, str(error), error.advice, blocks=True)
    except DISError as error:
        return Finding(Status.FAILED, str(error), advice_for(error), blocks=True)


@dataclass
class _Walk:
    """The steps to one stream, which are taken in order; each leaves behind what the next ones need."""

    client: DISClient
    stream_name: str
    write: bool

    def __post_init__(self) -> None:
        parts = urlsplit(self.client.target.endpoint)
        self._host = parts.hostname or ""
        self._is_tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._timeout = self.client.request_timeout
        self._route = self.client.route()
        self._addresses: Addresses = ()
        self._socket: socket.socket | None = None
        self._stored = PutRecordsResultEntry()
        self._text = ""

    def steps(self) -> Iterator[tuple[str, Step]]:
        """Yields the steps by name."""
        direct: tuple[tuple[str, Step], ...] = (("dns", self._dns), ("tcp", self._tcp), ("tls", self._tls))
        for name, step in direct:
            yield name, step if self._route.proxy is None else self._through_proxy
        yield from (("clock", self._clock), ("signature", self._signature), ("stream", self._stream))
        if self.write:
            yield from (("write", self._put), ("read", self._read_back))
        else:
            yield "record", lambda: Finding(Status.SKIPPED, "--write stores a test record and reads it back")

    def _through_proxy(self) -> Finding:
        return Finding(Status.SKIPPED, f"requests go through the proxy {without_secrets(self._route.proxy or '')}")

    def _dns(self) -> Finding:
        self._addresses = probes.look_up(self._host, self._port, self._timeout)
        first, *others = dict.fromkeys(address[0] for _, _, _, _, address in self._addresses)
        more = f" and {len(others)} more" if others else ""
        return Finding(Status.OK, f"{self._host} is {first}{more}")

    def _tcp(self) -> Finding:
        self._socket = probes.connect(self._addresses, self._timeout)
        where = probes.shown_address(self._socket.getpeername())
        if not self._is_tls:
            self._socket.close()
        return Finding(Status.OK, f"connected to {where}")

    def _tls(self) -> Finding:
        if not self._is_tls or self._socket is None:
            return Finding(Status.SKIPPED, "the endpoint is plain http")
        agreed = probes.secure(self._socket, self._host, self._route.verify, self._timeout)
        if self._route.verify is False:
            return Finding(Status.WARNING, agreed, "set verify to True, or to the CA bundle of your network")
        return Finding(Status.OK, agreed)

    def _clock(self) -> Finding:
        before = time.time()
        service = self.client.service_time()
        ours = datetime.fromtimestamp((before + time.time()) / 2, timezone.utc)
        if service is None:
            return Finding(Status.WARNING, "the answer has no Date header, so the clock cannot be compared")
        ahead = (ours - service).total_seconds() - 0.5  # on average, of what the header cuts off
        text = f"this machine is {_duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} DIS"
        if abs(ahead) < 2:
            text = "this machine and DIS agree to the second"
        advice = "set this machine's clock (NTP): signatures must be within 15 minutes of DIS's time"
        if abs(ahead) > _MOST_SKEW and self._signs():
            return Finding(Status.FAILED, text, advice)
        if abs(ahead) > _NOTED_SKEW:
            return Finding(Status.WARNING, text, advice)
        return Finding(Status.OK, text)

    def _signs(self) -> bool:
        with suppress(DISError):  # the next step says why there are no keys
            return self.client.access_key() is not None
        return False

    def _signature(self) -> Finding:
        key = self.client.access_key()
        who = "IAM token" if key is None else f"key {escape(key, 60)}"
        try:
            self.client.describe_stream(self.stream_name, limit=1)
        except ServiceError as error:
            if _OF_KEYS.fullmatch(error.code) or (error.status in (401, 407, 441) and error.code != "DIS.4116"):
                raise
            if error.code == "DIS.4309" or error.status >= 500 or error.status < 400 or error.status in (404, 429):
                raise
        return Finding(Status.OK, f"DIS knows the {who}")

    def _stream(self) -> Finding:
        try:
            described = self.client.describe_stream(self.stream_name)
        except ServiceError as error:
            if error.code in _NO_PERMISSION or error.status == 403:
                return self._no_permission(error)
            raise
        active = described.writable_partition_count
        if active is None:
            active = sum(partition.status == "ACTIVE" for partition in described.partitions)
        text = f"{self.stream_name} is {described.status or 'there'}{_details(described, active)}"
        if described.status not in ("", "RUNNING") or not active:
            return Finding(Status.FAILED, text, advice_for_refusal(400, "DIS.4205"), blocks=True)
        return Finding(Status.OK, text)

    def _no_permission(self, error: ServiceError) -> Finding:
        # A key that may upload and nothing else is a good one; whether it is that, only an upload can tell.
        if self.write:
            return Finding(Status.WARNING, str(error), "this key may not describe streams; see whether it may upload")
        hint = "a key that may only upload is enough for the handler: try it with --write"
        return Finding(Status.FAILED, str(error), f"{advice_for(error)}; {hint}")

    def _put(self) -> Finding:
        self._text = f"dis-logging check: test record {uuid.uuid4().hex}"
        result = self.client.put_records(self.stream_name, [PutRecordsRequestEntry(self._text, _KEY)])
        self._stored = result.records[0]
        if self._stored.error_code:
            text = f"DIS refused the record ({self._stored.error_code}): {self._stored.error_message}"
            return Finding(Status.FAILED, text, advice_for_refusal(200, self._stored.error_code), blocks=True)
        place = f"{self._stored.partition_id}, sequence number {self._stored.sequence_number}"
        return Finding(Status.OK, f"stored in {place}")

    def _read_back(self) -> Finding:
        try:
            return self._find_stored()
        except ServiceError as error:
            if error.code not in _NO_PERMISSION and error.status != 403:
                raise
            return Finding(
                Status.WARNING, "stored, but this key may not read", "a permission to read is of no use to the handler"
            )

    def _find_stored(self) -> Finding:
        number = self._stored.sequence_number
        cursor = self.client.get_cursor(
            self.stream_name, self._stored.partition_id, CursorType.AT_SEQUENCE_NUMBER, starting_sequence_number=number
        )
        deadline = time.monotonic() + _READ_PATIENCE
        while cursor and time.monotonic() < deadline:
            result = self.client.get_records(cursor)
            same = [record for record in result.records if record.sequence_number == number]
            if any(record.text == self._text for record in same):
                return Finding(Status.OK, "read back as it was stored")
            if same:
                return Finding(Status.FAILED, "another record is where it was stored", "see what answers at endpoint")
            cursor = result.next_partition_cursor
            time.sleep(0.0 if result.records else 0.2)
        return Finding(
            Status.FAILED, f"not to be read within {_READ_PATIENCE:g} s", "look for it later with dis-logging tail"
        )


def _details(described: StreamDescription, active: int) -> str:
    kept = "" if described.retention_period is None else f", records kept for {described.retention_period} h"
    kind = f", {described.stream_type}" if described.stream_type else ""
    return f"{kind}, {active} {'partition' if active == 1 else 'partitions'} to write to{kept}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
