"""The `logging.Handler`: checks the options, wires the parts, and turns each record into an entry."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from dis_logging import options
from dis_logging.client.bodies import BodyFormat
from dis_logging.client.client import DISClient
from dis_logging.client.compression import Compression
from dis_logging.client.signing import SignatureScheme
from dis_logging.client.target import find_stream_name
from dis_logging.client.wire import (
    MAX_HASH_KEY,
    MAX_RECORD_BYTES,
    MAX_REQUEST_RECORDS,
    Routing,
    is_hash_key,
    is_partition_id,
)
from dis_logging.errors import ConfigurationError
from dis_logging.escaping import escape
from dis_logging.formatting import Texts
from dis_logging.pipeline.aggregation import Aggregation, line_size
from dis_logging.pipeline.batching import BatchLimits
from dis_logging.pipeline.buffer import OverflowPolicy
from dis_logging.pipeline.entry import Entry, FailureReason, Verdict
from dis_logging.pipeline.fallback import find_fallback
from dis_logging.pipeline.lifecycle import budget, is_logging_shutting_down
from dis_logging.pipeline.pipeline import Pipeline, PipelineOptions
from dis_logging.pipeline.reentry import FORMATTING, inside
from dis_logging.pipeline.retry import RetryPolicy
from dis_logging.pipeline.stats import HandlerStats

_MIB = 1024 * 1024
# A text that aggregation writes as a JSON string may take six times its bytes.
_MAX_PLAIN_BYTES = MAX_RECORD_BYTES // 6 - 3
_BY_LOGGER_NAME = "%(name)s"
# What looks like a field of another style, and one of ours without a name, which shows all that a record has.
_OTHER_FIELD = r"\$?\{(?:(?P<brace>[A-Za-z_]\w*)|\d+)\}|\$(?P<dollar>[A-Za-z_]\w*)"
_UNNAMED = r"%[#0+ -]*\d*(?:\.\d+)?[sra]"
# A formatter that logs to its own logger calls itself through us; the third record within another one is formatted
# without it, which ends the recursion and still leaves room for a signal handler that interrupts formatting.
_MAX_FORMATTING_DEPTH = 2
# What an entry tells of a record.
_TOLD = ("name", "levelno", "created", "pathname", "lineno", "funcName", "threadName", "process", "dis_trail")

#: What names a text of each record: a %-style template over its attributes, or a callable.
RecordText = str | Callable[[logging.LogRecord], Any]


class DISHandler(logging.Handler):
    """
    Ships log records to a stream of Huawei Cloud DIS from a background thread, at least once and in order.

    `emit` formats the record in the calling thread, puts it into a bounded buffer and returns; it does no I/O and waits
    for nobody (except under ``overflow="block"``). A daemon thread, started by the first record, sends what has gathered as
    PutRecords requests that carry the records of many loggers, each with its own partition key. What DIS refuses for
    good, and what cannot be delivered in time, goes to the *fallback* handler with the reason attached.

    All methods are safe to call from any thread. After a fork the child has its own empty buffer.
    Times are seconds, sizes are payload bytes before base64. Numbers may be given as strings.

    Args:
        stream_name: an existing stream, 1 to 64 of ``A-Z a-z 0-9 _ -``. Default: ``DIS_LOGGING_STREAM_NAME``.
        endpoint, region, project_id, stream_id, ak, sk, security_token, auth_token, credentials, signature, verify,
            proxies, allow_http: where to and as whom, see `DISClient`.
        body_format: of requests, ``"json"`` (default) or ``"protobuf"``, see `DISClient`.
        compression: of requests: None (default), ``"zstd"``, ``"lz4"`` or ``"snappy"``, see `DISClient`. The limits hold for
            what is compressed.
        partition_key: %-style template over the record's attributes, or a callable that returns the key of a record.
            Default ``"%(name)s"``: records of one logger go to one partition, in order. An empty key lets DIS spread
            records evenly.
        explicit_hash_key: template or callable for a decimal number up to 9223372036854775807 that replaces the hash of the
            partition key; an empty one leaves it. Order is still kept for each partition key. Default: none.
        partition_id: template or callable for ``"shardId-0000000000"`` or ``"0"``, which goes before both; consumers then
            get no partition key. Default: none.
        max_batch_records: records in one request, 1 to 10,000; default 500.
        max_batch_bytes: payload bytes in one request, 1 to 3,932,160; default 1 MiB, what a common partition takes in a
            second. A single larger record still goes alone.
        flush_interval: longest wait of a record for company; 0 sends at once. Default 1.0.
        flush_level: a record this severe is sent at once, with all that waits. Default ``ERROR``.
        max_buffer_records: what may wait, in flight included; default 100,000.
        max_buffer_bytes: likewise; default 32 MiB. Partition keys of your own count as well if they are longer than 64
            characters or not ASCII. It also bounds the memory that many short records take: at most one for each 144 of
            these bytes waits, and 23,301 more; down to half as many with *partition_key*, *explicit_hash_key* or
            *partition_id*.
        overflow: who gives way when the buffer is full: ``"fallback"`` (default), ``"drop_newest"``, ``"drop_oldest"`` or
            ``"block"``, see `OverflowPolicy`.
        block_timeout: with ``"block"``, the longest wait of one caller; then the record goes to the fallback. Default 5.0.
        request_timeout: for one attempt, first byte to last; default 10.0.
        delivery_timeout: from the first attempt to the verdict; default 120.0.
        backoff_initial, backoff_max: bounds of the first wait before a retry, and of any; default 0.25 and 30.0. Waits
            grow exponentially and are drawn at random below the bound.
        shutdown_timeout: for `close`, `logging.shutdown` and the end of the interpreter, in total; what is left goes to the
            fallback. Also the default of `flush`. Default 5.0.
        max_in_flight: requests at once, 1 to 64; default 4. The records of one partition key are never in two of them, and more
            than one thread sends only while there is a backlog and the service takes what it gets.
        aggregate: None (default), or ``"lines"`` to put several records of one partition key into one DIS record, one to a
            line, which multiplies what a partition takes and divides what is billed. A line that begins with a double
            quote is a JSON string and stands for the text in it, which holds a line break or begins with a double quote
            itself. Every log record still has its own verdict.
        aggregate_bytes: of such a DIS record at most, 1 to 1,048,576; default 25 KiB, by which common streams are metered. A
            longer log record has a DIS record for itself. With it *max_batch_records* counts DIS records.
        fallback: gets the records that could not be delivered: a handler, the name of one, a ``cfg://handlers.x``
            reference, or the configuration of one. Default: one escaped line each on stderr; with a drop policy one a minute,
            and the records it is not told of count as dropped.
        on_verdict: callable that gets a `Verdict` at the end of each record, in whatever thread that comes: it must be quick,
            and must not flush or close the handler. It is not called any more once it has raised. Default: none.

    Raises:
        ConfigurationError: an option is missing, malformed or out of range. The message names it.
        TypeError: an option is unknown.
    """

    @options.hide_arguments
    def __init__(
        self,
        stream_name: str | None = None,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        project_id: str | None = None,
        stream_id: str | None = None,
        ak: str | None = None,
        sk: str | None = None,
        security_token: str | None = None,
        auth_token: str | None = None,
        credentials: Any = None,
        signature: str | SignatureScheme = SignatureScheme.SCOPED,
        partition_key: RecordText = _BY_LOGGER_NAME,
        explicit_hash_key: RecordText | None = None,
        partition_id: RecordText | None = None,
        max_batch_records: int | str = 500,
        max_batch_bytes: int | str = _MIB,
        flush_interval: float | str = 1.0,
        flush_level: int | str = logging.ERROR,
        max_buffer_records: int | str = 100_000,
        max_buffer_bytes: int | str = 32 * _MIB,
        overflow: str | OverflowPolicy = OverflowPolicy.FALLBACK,
        block_timeout: float | str = 5.0,
        body_format: str | BodyFormat = BodyFormat.JSON,
        compression: str | Compression | None = None,
        request_timeout: float | str = 10.0,
        delivery_timeout: float | str = 120.0,
        backoff_initial: float | str = 0.25,
        backoff_max: float | str = 30.0,
        shutdown_timeout: float | str = 5.0,
        fallback: logging.Handler | str | Mapping[str, Any] | None = None,
        max_in_flight: int | str = 4,
        aggregate: str | Aggregation | None = None,
        aggregate_bytes: int | str = 25 * 1024,
        on_verdict: Callable[[Verdict], object] | None = None,
        verify: bool | str = True,
        proxies: Mapping[str, str] | None = None,
        allow_http: bool | str = False,
    ) -> None:
        self._stream_name = find_stream_name(stream_name)
        client = DISClient(
            endpoint=endpoint,
            region=region,
            project_id=project_id,
            stream_id=stream_id,
            ak=ak,
            sk=sk,
            security_token=security_token,
            auth_token=auth_token,
            credentials=credentials,
            signature=signature,
            body_format=body_format,
            compression=compression,
            request_timeout=request_timeout,
            verify=verify,
            proxies=proxies,
            allow_http=allow_http,
        )
        self._endpoint = client.target.endpoint
        self._partition_key = None if partition_key == _BY_LOGGER_NAME else _check_text("partition_key", partition_key)
        self._explicit_hash_key = _check_text("explicit_hash_key", explicit_hash_key, is_hash_key)
        self._partition_id = _check_text("partition_id", partition_id, is_partition_id)
        self._by_name = self._partition_key is self._explicit_hash_key is self._partition_id is None
        overflow_policy = options.choice("overflow", overflow, OverflowPolicy)
        pipeline_options = PipelineOptions(
            stream_name=self._stream_name,
            limits=BatchLimits(
                options.count("max_batch_records", max_batch_records, high=MAX_REQUEST_RECORDS),
                # 3.75 MiB of payload is what base64 turns into the 5 MiB that a request may have.
                options.count("max_batch_bytes", max_batch_bytes, high=15 * _MIB // 4, unit="bytes"),
                _check_aggregation(aggregate, aggregate_bytes),
            ),
            flush_interval=options.seconds("flush_interval", flush_interval),
            flush_level=options.level("flush_level", flush_level),
            max_buffer_records=options.count("max_buffer_records", max_buffer_records),
            max_buffer_bytes=options.count("max_buffer_bytes", max_buffer_bytes, unit="bytes"),
            overflow=overflow_policy,
            block_timeout=options.seconds("block_timeout", block_timeout),
            shutdown_timeout=options.seconds("shutdown_timeout", shutdown_timeout),
            policy=_check_policy(backoff_initial, backoff_max, delivery_timeout),
            max_in_flight=options.count("max_in_flight", max_in_flight, high=64, unit="requests"),
            has_own_keys=self._partition_key is not None,
            has_routing=self._explicit_hash_key is not None or self._partition_id is not None,
            is_quiet=fallback is None and overflow_policy.drops,
            on_verdict=_check_callback("on_verdict", on_verdict),
        )
        self._texts = Texts()
        self._size_of = line_size if pipeline_options.limits.aggregate_bytes else len
        self._shutdown_timeout = pipeline_options.shutdown_timeout
        self._pipeline = Pipeline(pipeline_options, client, find_fallback(fallback, self))
        # Last, because it registers with logging, which must not flush a handler that never came to be.
        super().__init__()
        # Records outlive a handler that is dropped without being closed.
        weakref.finalize(self, self._pipeline.retire).atexit = False

    # -- records in -------------------------------------------------------------------------------------------------

    def handle(self, record: logging.LogRecord) -> bool | logging.LogRecord:  # type: ignore[override] # 3.12 widened it
        """
        Filters *record*, formats it and puts it into the buffer, without the handler's lock.

        The standard `handle` holds that lock around formatting, so that threads queue up behind each other; nothing in
        here needs it.
        """
        ident = threading.get_ident()
        if ident in inside:
            return self._handle_nested(record, ident)
        inside[ident] = FORMATTING
        try:
            if not self.filters:
                self._accept(record)
                return record
            passed = self.filter(record)
            if passed:
                self._accept(passed if isinstance(passed, logging.LogRecord) else record)
            return passed
        except Exception:
            self.handleError(record)
            return True
        finally:
            if ident in inside:  # another thread of a child that nobody told of its fork may just have found out
                del inside[ident]

    def emit(self, record: logging.LogRecord) -> None:
        """Formats *record* and puts it into the buffer; raises nothing."""
        try:
            self._accept(record)
        except Exception:
            self.handleError(record)

    def _handle_nested(self, record: logging.LogRecord, ident: int) -> bool | logging.LogRecord:
        """Handles a record that came up while its thread was busy with another one, or with delivering."""
        state = inside.get(ident, FORMATTING)
        if state.refuses(_text_of(_attribute_of(record, "name"))):
            return False
        inside[ident] = state._replace(depth=state.depth + 1)
        plain = state.depth >= _MAX_FORMATTING_DEPTH
        try:
            passed = self.filter(record) if self.filters and not plain else record
            if passed:
                accepted = passed if isinstance(passed, logging.LogRecord) else record
                self._accept(accepted, plain, state.trail, not state.delivering)
        except Exception:
            self.handleError(record)
            return True
        finally:
            inside[ident] = state
        return passed

    def _accept(
        self, record: logging.LogRecord, plain: bool = False, trail: tuple[int, ...] = (), may_block: bool = True
    ) -> None:
        """Formats *record* and puts it into the buffer; a *plain* one without the formatter and the user's callables."""
        # One straight way, as every logging call of the program takes it. The attributes of a record are taken one by one: to
        # ask for its __dict__ would cost more than all of them, as Python makes none before.
        try:
            text = record.getMessage() if plain else self._texts.of(self, record)
            if text is None:
                text = self._formatted(record)
        except Exception as error:
            self.handleError(record)
            text = _rescued_text(record, error)
        try:
            # DIS takes no empty record; an empty line is what an empty message looks like anywhere else.
            data = text.encode() or b"\n"
        except UnicodeEncodeError:  # a lone surrogate
            data = text.encode("utf-8", "backslashreplace")
        except AttributeError:
            data = self._bytes_of(record, text)
        try:
            name, levelno = record.name, record.levelno
            created, pathname, lineno = record.created, record.pathname, record.lineno
            function, thread_name, process = record.funcName, record.threadName, record.process
            passed = record.dis_trail if hasattr(record, "dis_trail") else None
        except Exception:  # a class of records that lacks some
            name, levelno, created, pathname, lineno, function, thread_name, process, passed = _attributes_of(record)
        if name.__class__ is not str or levelno.__class__ is not int:
            # makeLogRecord leaves both None unless told otherwise, which would stop the sender later.
            name, levelno = _text_of(name), _level_of(levelno)
        pipeline = self._pipeline
        if process != pipeline.pid:  # perhaps only the record is of another process
            pipeline.notice_fork()
        if passed is not None and isinstance(passed, tuple):
            trail += passed
        key, routing = (name, None) if self._by_name or plain else self._place(record, name)
        entry: Entry = (
            data,
            key,
            routing,
            pipeline.ledger.epoch,
            name,
            levelno,
            created,
            pathname,
            lineno,
            function,
            thread_name,
            trail,
        )
        if len(data) > _MAX_PLAIN_BYTES and (size := self._size_of(data)) > MAX_RECORD_BYTES:
            message = f"the record has {size} bytes, DIS takes {MAX_RECORD_BYTES}"
            pipeline.reject(entry, FailureReason.TOO_LARGE, message)
        else:
            pipeline.put(entry, may_block)

    def _formatted(self, record: logging.LogRecord) -> str:
        """Returns what `format` makes of *record*, without the traces that it leaves there: other handlers should not see ours."""
        try:  # without the __dict__ yet, as with one a formatter takes longer
            is_fresh = not (hasattr(record, "message") or hasattr(record, "asctime"))
            exc_text = record.exc_text
        except Exception:  # a class of records of its own
            is_fresh, exc_text = False, None
        before = None if is_fresh else dict(vars(record))
        try:
            return self.format(record)
        finally:
            attributes = record.__dict__
            if before is not None:
                _restore(attributes, before)
            else:
                if "message" in attributes:
                    del attributes["message"]
                if "asctime" in attributes:
                    del attributes["asctime"]
                if "exc_text" not in attributes or attributes["exc_text"] is not exc_text:
                    attributes["exc_text"] = exc_text

    def _bytes_of(self, record: logging.LogRecord, formatted: object) -> bytes:
        """
        Returns what a formatter made instead of text: bytes as they are, as of structlog with orjson.

        Anything else is a mistake, which is reported, but costs no record.
        """
        if isinstance(formatted, bytes | bytearray | memoryview):
            return bytes(formatted) or b"\n"
        self.handleError(record)
        return _text_of(formatted).encode("utf-8", "backslashreplace") or b"\n"

    def _place(self, record: logging.LogRecord, name: str) -> tuple[str, Routing | None]:
        """Returns the partition key of *record*, and what the user's options say besides."""
        key = name if self._partition_key is None else self._key_of(record, self._partition_key)
        hash_key = self._route(record, "explicit_hash_key", self._explicit_hash_key, is_hash_key)
        partition = self._route(record, "partition_id", self._partition_id, is_partition_id)
        return key, Routing(hash_key, partition) if hash_key or partition else None

    def _key_of(self, record: logging.LogRecord, key: RecordText) -> str:
        try:
            value = _made_of(record, "partition_key", key)
        except Exception:
            self.handleError(record)
            return str(record.name)
        return value if isinstance(value, str) else str(value)

    def _route(
        self, record: logging.LogRecord, option: str, route: RecordText | None, is_valid: Callable[[str], bool]
    ) -> str | None:
        """Returns the record's own routing, or None, with a report, when there is none that DIS would take."""
        if route is None:
            return None
        try:
            value = _made_of(record, option, route)
            if value is None or value == "":
                return None
            if is_valid(str(value)):
                return str(value)
            raise ValueError(f"{option} gives {options.shown(value)}, which DIS does not take")
        except Exception:
            self.handleError(record)
            return None

    # -- life and counters ------------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> bool:  # type: ignore[override] # tells whether it succeeded
        """
        Sends what waits and returns True once every record accepted before the call has its verdict.

        Args:
            timeout: longest wait in seconds; default *shutdown_timeout*. A negative one counts as 0.

        Raises:
            TypeError: *timeout* is no number.

        Returns:
            False when the time was up first, or the caller may not wait: a fallback that this handler waits for itself, or
            a signal handler in gevent's hub or in a greenlet that is sending. The records stay on their way.
        """
        started = time.monotonic()
        if timeout is not None:
            return self._pipeline.flush(started + max(0.0, _check_timeout(timeout)))
        if not is_logging_shutting_down():
            return self._pipeline.flush(started + self._shutdown_timeout)
        try:
            return self._pipeline.flush(budget.deadline(self._shutdown_timeout), is_end=True)
        finally:
            budget.charge(started)

    def close(self) -> None:
        """
        Sends what waits, within *shutdown_timeout*, hands the rest to the fallback, and ends the thread.

        May be called more than once. A record that comes later goes to the fallback with the code ``closed``. In a signal
        handler that gevent runs in its hub, or in a greenlet that is sending, it returns at once, and the handler is closed when
        everything is sent.
        """
        started = time.monotonic()
        try:
            self._pipeline.close(budget.deadline(self._shutdown_timeout))
        except Exception:
            logging.getLogger("dis_logging").exception("dis_logging: closing the handler failed")
        finally:
            budget.charge(started)
            super().close()

    def stats(self) -> HandlerStats:
        """Returns the counters of this process at this moment; never waits."""
        return self._pipeline.stats()

    def __repr__(self) -> str:
        counted = self.stats()
        return (
            f"<DISHandler {self._stream_name} at {self._endpoint} ({logging.getLevelName(self.level)}): "
            f"{counted.buffered} buffered, {counted.delivered} delivered, {counted.failed} failed, "
            f"{counted.dropped} dropped, {self._pipeline.describe()}>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a DISHandler holds keys, threads and connections and cannot be pickled")


def _check_aggregation(aggregate: Any, aggregate_bytes: object) -> int:
    """Returns how long a DIS record that holds several log records may be, 0 when each has its own."""
    size = options.count("aggregate_bytes", aggregate_bytes, high=MAX_RECORD_BYTES, unit="bytes")
    if aggregate is None:
        return 0
    options.choice("aggregate", aggregate, Aggregation)
    return size


def _check_callback(name: str, value: Any) -> Any:
    if value is None or callable(value):
        return value
    raise ConfigurationError(f"{name} must be a callable, not {options.shown(value)}")


def _check_policy(backoff_initial: object, backoff_max: object, delivery_timeout: object) -> RetryPolicy:
    return RetryPolicy(
        backoff_initial=options.seconds("backoff_initial", backoff_initial, exclusive=True),
        backoff_max=options.seconds("backoff_max", backoff_max, exclusive=True),
        delivery_timeout=options.seconds("delivery_timeout", delivery_timeout, exclusive=True),
    )


_ROUTES = {
    "explicit_hash_key": f"a decimal number from 0 to {MAX_HASH_KEY}, or a template of one",
    "partition_id": "a partition such as 'shardId-0000000000' or '0', or a template of one",
}


def _check_text(name: str, value: Any, is_valid: Callable[[str], bool] | None = None) -> RecordText | None:
    """Returns the template or callable of the option *name*, having tried a template on a sample."""
    if value is None and name != "partition_key":
        return None
    if callable(value):
        return value  # type: ignore[no-any-return]
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a template or a callable, not {options.shown(value)}")
    _refuse_other_styles(name, value)
    _refuse_formatted(name, value)
    sample = logging.LogRecord("name", logging.INFO, "path", 1, "message", None, None, "function")
    try:
        text = value % vars(sample)
        if is_valid is not None and text == value and text and not is_valid(text):  # the same for every record
            raise ConfigurationError(
                f"{name} is nothing that DIS takes: {options.shown(value)}; it must be {_ROUTES[name]}"
            )
    except KeyError:
        pass  # an attribute that the application adds, in a filter or with extra=
    except ConfigurationError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name} is no %-style template ({error}): {options.shown(value)}") from None
    return value


def _refuse_other_styles(name: str, template: str) -> None:
    """Refuses what would be the same text for every record, or all of the record."""
    unnamed = re.search(_UNNAMED, template.replace("%%", ""))
    other = unnamed or ("%" not in template and re.search(_OTHER_FIELD, template))
    if other:
        attribute = other.groupdict().get("brace") or other.groupdict().get("dollar") or "name"
        raise ConfigurationError(
            f"{name} is a %-style template: write {'an attribute such as ' * (attribute not in other[0])}%({attribute})s instead of "
            f"{other[0]}, or give a callable"
        )


def _refuse_formatted(name: str, template: str) -> None:
    """Refuses the attributes that a record has only while it is formatted."""
    for attribute in ("message", "asctime"):
        if f"%({attribute})" in template:
            raise ConfigurationError(
                f"{name} can't have %({attribute})s, which a record does not keep: give a callable, such as "
                f"lambda record: record.getMessage(), instead of {options.shown(template)}"
            )


def _made_of(record: logging.LogRecord, option: str, text: RecordText) -> Any:
    """Returns what an option makes of *record*."""
    if callable(text):
        return text(record)
    try:
        return text % record.__dict__
    except KeyError as error:
        raise ValueError(f"{option}={options.shown(text)}, but this record has no {error}") from None


def _level_of(levelno: object) -> int:
    try:
        return int(levelno) if isinstance(levelno, int | float) else logging.NOTSET
    except (ValueError, OverflowError):  # NaN, infinity
        return logging.NOTSET


def _rescued_text(record: logging.LogRecord, error: Exception) -> str:
    """Returns what can be said of a record that cannot be formatted, so that it costs at most its arguments."""
    message = _text_of(_attribute_of(record, "msg"))
    return f"{message} [dis_logging: not formatted, {type(error).__name__}: {escape(_text_of(error), 200)}]"


def _check_timeout(timeout: Any) -> float:
    try:
        seconds = math.nan if isinstance(timeout, str | bytes) else float(timeout)
    except OverflowError:  # an int beyond every float
        return math.inf if timeout > 0 else 0.0
    except (TypeError, ValueError):
        seconds = math.nan
    if math.isnan(seconds):
        raise TypeError(f"timeout must be a number of seconds, not {options.shown(timeout)}")
    return seconds


def _restore(attributes: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Makes what a formatter changes of a record again as it was."""
    for name in ("message", "asctime", "exc_text"):
        if name in before:
            attributes[name] = before[name]
        else:
            attributes.pop(name, None)


def _attributes_of(record: logging.LogRecord) -> Iterator[Any]:
    """Yields of a record what an entry tells about it, None for what the record lacks."""
    for name in _TOLD:
        yield _attribute_of(record, name)


def _attribute_of(record: logging.LogRecord, name: str) -> Any:
    try:
        return getattr(record, name)
    except Exception:
        return None


def _text_of(thing: object) -> str:
    try:
        return str(thing)
    except Exception:
        return f"<{type(thing).__name__} without text>"
