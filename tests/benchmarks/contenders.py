"""Who is compared: for each contender a handler with its formatter, and how to wait for its last acknowledgement."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, NamedTuple

from tests.benchmarks.lines import new_formatter

_STREAM = "app-logs"
_AWS_KEYS = {"region_name": "eu-west-1", "aws_access_key_id": "AKEXAMPLE", "aws_secret_access_key": "SKEXAMPLE"}
_FLUSH_SECONDS = 120.0


class Running(NamedTuple):
    """
    A contender at work.

    Args:
        handler: takes the records.
        finish: returns once every record has been acknowledged; nothing is logged afterwards.
    """

    handler: logging.Handler
    finish: Callable[[], object]


class Contender(NamedTuple):
    """
    A way to handle log records.

    Args:
        name: as the table shows it.
        start: gets the port of the sink.
        packages: what must be installed for it, as PyPI names it, with the module that shows it is.
        ships: whether its records must be found in the sink's ledger.
    """

    name: str
    start: Callable[[int], Running]
    packages: Mapping[str, str] = {}
    ships: bool = True

    def why_absent(self) -> str:
        """Returns why this contender cannot run here, or an empty text."""
        missing = [package for package, module in self.packages.items() if not _is_installed(module)]
        return f"not installed: {', '.join(missing)} (pip install --group benchmarks)" if missing else ""


class OnlyFormat(logging.Handler):
    """Formats each record and forgets it: what any handler that writes text costs at least."""

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


def dis_options(port: int) -> dict[str, Any]:
    """Returns the options of a `DISHandler` that sends to *port*."""
    return {
        "stream_name": _STREAM,
        "endpoint": f"http://127.0.0.1:{port}",
        "region": "eu-west-1",
        "project_id": "0123456789abcdef0123456789abcdef",
        "ak": "AKEXAMPLE",
        "sk": "SKEXAMPLE",
    }


def start_ours(port: int, **options: Any) -> Running:
    """
    Returns a `DISHandler` with its default bounds.

    Except for the overflow policy: a benchmark logs faster than any program for as long as it lasts, and with a bounded
    buffer somebody must give way; blocking is the one answer that loses no record and prints none.
    """
    from dis_logging import DISHandler

    handler = DISHandler(**{**dis_options(port), "overflow": "block", "block_timeout": 60, **options})

    def finish() -> None:
        if not handler.flush(_FLUSH_SECONDS):
            raise TimeoutError(f"not everything was delivered: {handler.stats()}")

    return Running(handler, finish)


def _start_only_format(port: int) -> Running:
    return Running(OnlyFormat(), lambda: None)


def _start_queue(port: int) -> Running:
    # As the standard library's documentation has it: the handler merges the arguments into the message and copies the
    # record; the listener's handler formats, in the listener's thread, and here ships nothing.
    records: queue.Queue[logging.LogRecord] = queue.Queue(-1)
    target = OnlyFormat()
    target.setFormatter(new_formatter())
    listener = logging.handlers.QueueListener(records, target)
    listener.start()
    return Running(logging.handlers.QueueHandler(records), listener.stop)


def _start_watchtower(port: int) -> Running:
    client = import_module("boto3").client("logs", endpoint_url=f"http://127.0.0.1:{port}", **_AWS_KEYS)
    handler = import_module("watchtower").CloudWatchLogHandler(
        log_group_name=_STREAM, log_stream_name="{logger_name}", boto3_client=client, create_log_group=False
    )
    handler.FLUSH_TIMEOUT = _FLUSH_SECONDS
    return Running(handler, handler.flush)


def _start_opentelemetry(port: int) -> Running:
    logs = import_module("opentelemetry.sdk._logs")
    export = import_module("opentelemetry.sdk._logs.export")
    exporter = import_module("opentelemetry.exporter.otlp.proto.http._log_exporter").OTLPLogExporter(
        endpoint=f"http://127.0.0.1:{port}/v1/logs"
    )
    provider = logs.LoggerProvider()
    # By default it keeps 2048 records and drops the rest.
    provider.add_log_record_processor(export.BatchLogRecordProcessor(exporter, max_queue_size=2**20))
    handling = import_module("opentelemetry.instrumentation.logging.handler")
    return Running(handling.LoggingHandler(logger_provider=provider), provider.force_flush)


def _start_kinesis(port: int) -> Running:
    handler = import_module("aws_logging_handlers.Kinesis").KinesisHandler(
        _STREAM, "key", endpoint_url=f"http://127.0.0.1:{port}", **_AWS_KEYS
    )
    return Running(handler, handler.close)


class _QueueToSDK(logging.Handler):
    """The least that puts a queue in front of Huawei's SDK: format, queue, batches of 500 from a thread."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._texts: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        options = dis_options(port)
        self._client = import_module("dis_sdk_python").disclient(
            options["endpoint"], options["ak"], options["sk"], options["project_id"], options["region"]
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.put((record.name, self.format(record)))

    def finish(self) -> None:
        """Sends what is left and ends the thread."""
        self._texts.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            batch: list[dict[str, str]] = []
            while len(batch) < 500:
                item = self._texts.get()
                if item is None:
                    ended = True
                    break
                batch.append({"data": item[1], "partition_key": item[0]})
            if batch:
                self._client.put_records(_STREAM, "", batch)


def _start_sdk(port: int) -> Running:
    handler = _QueueToSDK(port)
    return Running(handler, handler.finish)


def _start_aggregated(port: int) -> Running:
    return start_ours(port, aggregate="lines")


def _start_protobuf(port: int) -> Running:
    return start_ours(port, body_format="protobuf", compression="zstd")


ONLY_FORMAT = "only format"
QUEUE = "QueueHandler + QueueListener"
WATCHTOWER = "watchtower"
OPENTELEMETRY = "OpenTelemetry, batch processor"
KINESIS = "aws-logging-handlers (Kinesis)"
SDK = "queue + Huawei's SDK"
OURS = "dis_logging"
AGGREGATED = "dis_logging, aggregated"
PROTOBUF = "dis_logging, protobuf + zstd"

_BOTO = {"boto3": "boto3"}
_OTEL = {
    "opentelemetry-sdk": "opentelemetry.sdk",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry.exporter.otlp.proto.http",
    "opentelemetry-instrumentation-logging": "opentelemetry.instrumentation.logging.handler",
}

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(ONLY_FORMAT, _start_only_format, ships=False),
        Contender(QUEUE, _start_queue, ships=False),
        Contender(WATCHTOWER, _start_watchtower, {"watchtower": "watchtower", **_BOTO}),
        Contender(OPENTELEMETRY, _start_opentelemetry, _OTEL),
        Contender(KINESIS, _start_kinesis, {"aws-logging-handlers": "aws_logging_handlers", **_BOTO}),
        Contender(SDK, _start_sdk, {"huaweicloud-sdk-python-dis": "dis_sdk_python", "protobuf": "google.protobuf"}),
        Contender(OURS, start_ours),
        Contender(AGGREGATED, _start_aggregated),
        Contender(PROTOBUF, _start_protobuf, {"zstandard": "zstandard"}),
    )
}


def start(name: str, port: int) -> Running:
    """Starts the contender *name*, sending to *port*, with the formatter that all of them have."""
    running = CONTENDERS[name].start(port)
    if not isinstance(running.handler, logging.handlers.QueueHandler):  # its listener has one, and once is enough
        running.handler.setFormatter(new_formatter())
    return running


def installed_versions() -> dict[str, str]:
    """Returns the versions of what is compared and of what they stand on."""
    packages = {package for contender in CONTENDERS.values() for package in contender.packages}
    versions = {}
    for package in sorted(packages | {"requests", "urllib3", "tenacity"}):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            pass
    return versions


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
