"""The fallback: the four ways to name it, the odd ones people choose, and what it is given."""

import gc
import io
import logging
import logging.config
import logging.handlers
import re
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dis_logging import ConfigurationError, DISHandler
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Refuse, RefuseEntries
from dis_logging.pipeline.entry import FailureReason
from tests.conftest import STREAM, RememberingHandler, assert_accounts_balance

pytestmark = pytest.mark.usefixtures("restored_logging")

FAST: dict[str, Any] = {"flush_interval": 0.01, "backoff_initial": 0.01, "backoff_max": 0.05}


@pytest.fixture
def refusing(dis: DISEmulator) -> Iterator[DISEmulator]:
    """The emulator, refusing for good each record that has "bad" in it."""
    with dis.rule(RefuseEntries("DIS.4302", where=lambda entry: "bad" in entry.text)):
        yield dis


def record_of(message: str, name: str = "shop", level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord(name, level, __file__, 1, message, None, None)


def configure(dis: DISEmulator, fallback: object, **handlers: object) -> DISHandler:
    """Configures logging with our handler "dis" attached to the logger "shop" and to nothing else."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"marked": {"format": "<%(message)s>"}},
            "handlers": {
                **handlers,
                "dis": {"class": "dis_logging.DISHandler", **dis.handler_options(STREAM), **FAST, "fallback": fallback},
            },
            "loggers": {"shop": {"level": "DEBUG", "handlers": ["dis"], "propagate": False}},
        }
    )
    handler = logging.getLogger("shop").handlers[0]
    assert isinstance(handler, DISHandler)
    return handler


@pytest.fixture(autouse=True)
def shop() -> Iterator[logging.Logger]:
    """The logger that `configure` sets up; its handler is closed afterwards."""
    logger = logging.getLogger("shop")
    yield logger
    logger.propagate = True
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


# -- the four forms -------------------------------------------------------------------------------------------------


def test_a_handler(refusing: DISEmulator, fallback: RememberingHandler) -> None:
    handler = DISHandler(**refusing.handler_options(STREAM), fallback=fallback)

    handler.handle(record_of("bad"))
    handler.handle(record_of("good"))

    assert_accounts_balance(handler, refusing, fallback, ["bad", "good"])
    assert fallback.texts == ["bad"]


def test_the_name_of_a_handler_that_exists(refusing: DISEmulator, fallback: RememberingHandler) -> None:
    fallback.set_name("the alarm")
    handler = DISHandler(**refusing.handler_options(STREAM), fallback="the alarm")

    handler.handle(record_of("bad"))

    assert_accounts_balance(handler, refusing, fallback, ["bad"])
    assert fallback.texts == ["bad"]


@pytest.mark.parametrize("form", ["alarm", "cfg://handlers.alarm", "zz_alarm", "cfg://handlers.zz_alarm"])
def test_a_handler_of_the_same_configuration_whichever_is_built_first(
    refusing: DISEmulator, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "fallback.log"
    name = form.rpartition(".")[2]
    handler = configure(
        refusing, form, **{name: {"class": "logging.FileHandler", "filename": str(path), "formatter": "marked"}}
    )
    gc.collect()  # the fallback is attached to no logger

    logging.getLogger("shop").info("bad")
    handler.close()
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})  # closes the file

    assert path.read_text() == "<bad>\n"
    assert handler.stats().failed == 1


def test_an_inline_configuration_with_a_formatter_of_the_same_configuration(
    refusing: DISEmulator, tmp_path: Path
) -> None:
    path = tmp_path / "fallback.log"
    handler = configure(
        refusing, {"class": "logging.FileHandler", "filename": str(path), "formatter": "marked", "level": "WARNING"}
    )

    logging.getLogger("shop").info("bad, but of no interest")
    logging.getLogger("shop").warning("bad")
    handler.close()
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})

    assert path.read_text() == "<bad>\n"
    assert handler.stats().failed == 2


def test_an_inline_configuration_outside_dictconfig(refusing: DISEmulator) -> None:
    stream = io.StringIO()
    handler = DISHandler(
        **refusing.handler_options(STREAM), fallback={"class": "logging.StreamHandler", "stream": stream}
    )

    handler.handle(record_of("bad"))
    handler.close()

    assert stream.getvalue() == "bad\n"


def test_a_fallback_that_nobody_else_holds_survives_until_the_first_failure(refusing: DISEmulator) -> None:
    stream = io.StringIO()
    handler = DISHandler(**refusing.handler_options(STREAM), fallback=logging.StreamHandler(stream))

    gc.collect()
    handler.handle(record_of("bad"))
    handler.close()

    assert stream.getvalue() == "bad\n"


@pytest.mark.parametrize(
    "fallback",
    [
        "nobody",
        "cfg://handlers.nobody",
        {"class": "logging.FileHandler"},
        {"class": "logging.StreamHandler", "formatter": "nobody"},
        {"()": "builtins.list"},
        ["alarm"],
        7,
    ],
)
def test_an_unusable_fallback_is_refused_when_logging_is_configured(dis: DISEmulator, fallback: object) -> None:
    with pytest.raises(ValueError, match=r"'dis'|nobody") as caught:
        configure(dis, fallback)

    assert dis.sk not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize(
    ("configuration", "told"),
    [
        (
            {"class": "logging.FileHandlr"},
            "fallback: 'logging.FileHandlr' cannot be made (No module named 'logging.FileHandlr')",
        ),
        ({"()": "no.such.factory"}, "fallback: 'no.such.factory' cannot be made (No module named 'no')"),
        (
            {"class": "logging.FileHandler", "filename": "/no/such/log"},
            "fallback: 'logging.FileHandler' cannot be made (FileNotFoundError: No such file or directory: '/no/such/log')",
        ),
        (
            {"class": "logging.FileHandler", "filenam": "canary"},
            "fallback: 'logging.FileHandler' cannot be made (TypeError: unexpected keyword argument 'filenam')",
        ),
        (
            {"class": "logging.FileHandler"},
            "fallback: 'logging.FileHandler' cannot be made (TypeError: missing 1 required positional argument: 'filename')",
        ),
        (
            {"class": "logging.StreamHandler", "level": "LOUD"},
            "fallback: 'logging.StreamHandler' cannot be made (ValueError: Unknown level: 'LOUD')",
        ),
        (
            {"class": "logging.StreamHandler", "formatter": "lines"},
            "fallback: 'logging.StreamHandler' cannot be made (ValueError: Unable to set formatter 'lines')",
        ),
        ({"level": "INFO"}, "fallback: the handler cannot be made (it has no class)"),
    ],
)
def test_a_configuration_that_makes_no_handler_is_refused_with_the_reason(
    configuration: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        DISHandler(STREAM, region="r", project_id="p", ak="a", sk="s", fallback=configuration)

    assert str(refused.value) == told


def test_its_configuration_may_hold_secrets_and_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        DISHandler(STREAM, region="r", project_id="p", ak="a", sk="s", fallback={"class": "nowhere.H", "key": "canary"})

    assert "canary" not in str(caught.value)


# -- odd choices ----------------------------------------------------------------------------------------------------


def stderr_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("form", ["dis", "cfg://handlers.dis"])
def test_a_handler_that_is_its_own_fallback_reports_on_stderr(
    refusing: DISEmulator, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    handler = configure(refusing, form)

    logging.getLogger("shop").info("bad")
    handler.close()

    assert len(stderr_lines(capsys)) == 1
    assert (handler.stats().emitted, handler.stats().failed) == (1, 1)


class Forwarder(logging.Handler):
    """A fallback that gives what it gets to a logger."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        self._logger.handle(record)


def test_a_fallback_that_leads_back_through_the_root_logger_ends_on_stderr(
    refusing: DISEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = DISHandler(**refusing.handler_options(STREAM), **FAST, fallback=Forwarder(logging.getLogger("alarm")))
    logging.getLogger().addHandler(handler)

    logging.getLogger("shop").warning("bad")
    assert handler.flush(10)
    handler.close()

    assert [line for line in stderr_lines(capsys) if "not delivered" in line] == [
        "dis_logging: not delivered: DIS.4302 (Partition does not exist.): shop WARNING: bad"
    ]
    stats = handler.stats()
    assert (stats.emitted, stats.failed, stats.buffered) == (2, 2, 0)


def test_two_handlers_that_are_each_others_fallback_end_on_stderr(
    refusing: DISEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    refusing.create_stream("other", 1)
    options = {"class": "dis_logging.DISHandler", **refusing.handler_options("other"), **FAST}
    handler = configure(refusing, "cfg://handlers.other", other={**options, "fallback": "cfg://handlers.dis"})
    shop = logging.getLogger("shop")

    shop.info("bad")
    shop.info("good")
    assert refusing.wait_for(lambda dis: dis.refused["DIS.4302"] == 3)
    assert handler.flush(10)
    handler.close()

    lines = stderr_lines(capsys)
    assert len(lines) == 1
    assert lines[0].endswith("shop INFO: bad")
    assert [record.text for record in refusing.records(STREAM)] == ["good"]
    stats = handler.stats()
    assert (stats.emitted, stats.delivered, stats.failed, stats.buffered) == (3, 1, 2, 0)


def test_a_second_stream_can_be_the_fallback(refusing: DISEmulator) -> None:
    with DISEmulator(streams={"spare": 1}) as spare:
        backup = DISHandler(**spare.handler_options("spare"), **FAST)
        handler = DISHandler(**refusing.handler_options(STREAM), **FAST, fallback=backup)

        handler.handle(record_of("bad"))
        handler.handle(record_of("good"))
        handler.close()
        backup.close()

        assert [(record.text, record.partition_key) for record in spare.records("spare")] == [("bad", "shop")]


def test_a_fallback_that_raises_is_replaced_by_stderr(
    refusing: DISEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise LookupError("canary")

    handler = DISHandler(**refusing.handler_options(STREAM), **FAST, fallback=Raising())

    handler.handle(record_of("bad 1"))
    handler.handle(record_of("good"))
    handler.handle(record_of("bad 2"))
    handler.close()

    assert stderr_lines(capsys) == [
        "dis_logging: not delivered: DIS.4302 (Partition does not exist.), the fallback raised LookupError: "
        f"shop INFO: bad {number}"
        for number in (1, 2)
    ]
    stats = handler.stats()
    assert (stats.emitted, stats.delivered, stats.failed) == (3, 1, 2)


class Chatty(RememberingHandler):
    """A fallback that logs to the logger whose record it gets."""

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        logging.getLogger(record.name).warning("alarm: %s", record.getMessage())


@pytest.mark.parametrize("mode", ["a", "w"])
def test_a_file_that_is_closed_before_its_handler_costs_no_record(
    refusing: DISEmulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """A file that was opened to be written anew takes nothing once it is closed, and does not say so."""
    file = logging.FileHandler(tmp_path / "failed.log", mode=mode)
    handler = DISHandler(**refusing.handler_options(STREAM), flush_interval=60, fallback=file)
    handler.handle(record_of("bad"))

    logging.shutdown([weakref.ref(handler), weakref.ref(file)])  # in reverse
    file.close()  # again, as mode "a" opened it again

    written = (tmp_path / "failed.log").read_text() + "".join(stderr_lines(capsys))
    assert written.count("bad") == 1
    assert handler.stats().failed == 1


def test_a_fallback_may_log_to_the_same_logger(refusing: DISEmulator, logger: logging.Logger) -> None:
    with refusing.rule(RefuseEntries("DIS.4302", where=lambda entry: entry.text == "worse")):
        fallback = Chatty()
        handler = DISHandler(**refusing.handler_options(STREAM), **FAST, fallback=fallback)
        logger.addHandler(handler)

        logger.info("worse")
        assert refusing.wait_for(lambda dis: dis.record_count(STREAM) == 1)

        assert_accounts_balance(handler, refusing, fallback, ["worse", "alarm: worse"])
        assert fallback.texts == ["worse"]


def test_a_fallback_that_logs_what_is_refused_too_ends_on_stderr(
    refusing: DISEmulator, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    fallback = Chatty()
    handler = DISHandler(**refusing.handler_options(STREAM), **FAST, fallback=fallback)
    logger.addHandler(handler)

    logger.info("bad")
    assert refusing.wait_for(lambda dis: dis.refused["DIS.4302"] == 2)
    assert handler.flush(10)
    handler.close()

    assert fallback.texts == ["bad"]
    assert [line.rpartition(": ")[0].rpartition(": ")[2] for line in stderr_lines(capsys)] == ["alarm"]
    assert (handler.stats().emitted, handler.stats().failed) == (2, 2)


def test_a_fallback_may_reject_by_level_and_by_filter(refusing: DISEmulator, fallback: RememberingHandler) -> None:
    fallback.setLevel(logging.ERROR)
    fallback.addFilter(lambda record: "secret" not in record.getMessage())
    handler = DISHandler(**refusing.handler_options(STREAM), **FAST, fallback=fallback)

    handler.handle(record_of("bad, mildly", level=logging.INFO))
    handler.handle(record_of("bad and secret", level=logging.ERROR))
    handler.handle(record_of("bad", level=logging.ERROR))
    handler.close()

    assert fallback.texts == ["bad"]
    assert handler.stats().failed == 3


class Blocking(RememberingHandler):
    """A fallback that blocks until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.released = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.entered.set()
        self.released.wait(60)
        super().emit(record)


def test_sending_goes_on_while_the_fallback_blocks(refusing: DISEmulator) -> None:
    fallback = Blocking()
    handler = DISHandler(**refusing.handler_options(STREAM), **FAST, fallback=fallback)
    texts = [f"good {number}" for number in range(20)]

    handler.handle(record_of("bad"))
    assert fallback.entered.wait(10)
    for text in texts:
        handler.handle(record_of(text))

    assert refusing.wait_for(lambda _: handler.stats().delivered == 20)
    assert (handler.stats().failed, handler.stats().buffered) == (0, 1)
    assert not handler.flush(0.05)
    fallback.released.set()
    assert handler.flush(10)
    assert_accounts_balance(handler, refusing, fallback, ["bad", *texts])


def test_closing_does_not_wait_for_a_fallback_that_blocks(
    refusing: DISEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    fallback = Blocking()
    handler = DISHandler(**refusing.handler_options(STREAM), **FAST, fallback=fallback, shutdown_timeout=0.2)
    handler.handle(record_of("bad 1"))
    assert fallback.entered.wait(10)
    handler.handle(record_of("bad 2"))

    handler.close()

    stats = handler.stats()
    fallback.released.set()
    assert (stats.failed, stats.buffered) == (2, 0)
    lines = stderr_lines(capsys)
    assert [line[-5:] for line in lines] == ["bad 1", "bad 2"]
    assert all("the fallback did not take it in time" in line for line in lines)


# -- what it is given -----------------------------------------------------------------------------------------------


def test_the_record_carries_its_origin_the_formatted_text_and_the_reason(
    refusing: DISEmulator, fallback: RememberingHandler, logger: logging.Logger
) -> None:
    handler = DISHandler(**refusing.handler_options(STREAM), **FAST, fallback=fallback, partition_key="%(user)s")
    handler.setFormatter(logging.Formatter("%(levelname)s|%(message)s"))
    logger.addHandler(handler)
    witness = RememberingHandler()
    logger.addHandler(witness)

    logger.warning("%s, 100 %% sure", "bad", extra={"user": "u7"})
    handler.close()

    (record,), (sent,) = fallback.records, witness.records
    assert record.getMessage() == "WARNING|bad, 100 % sure"
    assert record.args is None
    for name in ("name", "levelno", "levelname", "created", "pathname", "filename", "lineno", "funcName", "threadName"):
        assert vars(record)[name] == vars(sent)[name], name
    assert record.msecs == pytest.approx(sent.msecs, abs=1)  # since 3.13 from nanoseconds, which a float rounds
    assert record.msecs.is_integer()
    assert record.relativeCreated == pytest.approx(sent.relativeCreated, abs=1)
    given = {name: value for name, value in vars(record).items() if name.startswith("dis_") and name != "dis_trail"}
    assert given == {
        "dis_error_code": "DIS.4302",
        "dis_error_message": "Partition does not exist.",
        "dis_stream_name": STREAM,
        "dis_partition_key": "u7",
        "dis_attempts": 1,
        "dis_outcome_unknown": False,
    }


def test_a_traceback_is_part_of_the_text_once(refusing: DISEmulator, logger: logging.Logger) -> None:
    stream = io.StringIO()
    fallback = logging.StreamHandler(stream)
    fallback.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler = DISHandler(**refusing.handler_options(STREAM), **FAST, fallback=fallback)
    logger.addHandler(handler)

    try:
        raise ValueError("cause")
    except ValueError:
        logger.exception("bad")
    handler.close()

    assert stream.getvalue().startswith("ERROR bad\nTraceback (most recent call last):\n")
    assert stream.getvalue().count("ValueError: cause") == 1


def test_the_code_of_a_request_refused_whole_without_one_is_its_status(
    dis: DISEmulator, fallback: RememberingHandler
) -> None:
    dis.play(Refuse(418, message="I am a\nteapot"))
    handler = DISHandler(**dis.handler_options(STREAM), **FAST, fallback=fallback)

    handler.handle(record_of("text"))
    handler.close()

    (record,) = fallback.records
    assert vars(record)["dis_error_code"] == "http_418"
    assert "I am a\\nteapot" in vars(record)["dis_error_message"]


def test_without_a_fallback_a_failure_is_one_escaped_line_on_stderr(
    dis: DISEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    dis.play(RefuseEntries("DIS.4302", "no\x1b[2J\nsuch partition"))
    handler = DISHandler(**dis.handler_options(STREAM), **FAST)

    handler.handle(record_of("two\nlines\x1b[31m \u2028 \u202e", name="sh\nop", level=logging.ERROR))
    handler.close()

    (line,) = stderr_lines(capsys)
    assert line == (
        "dis_logging: not delivered: DIS.4302 (no\\x1b[2J\\nsuch partition): "
        "sh\\nop ERROR: two\\nlines\\x1b[31m \\u2028 \\u202e"
    )


def test_a_missing_stderr_costs_nothing(refusing: DISEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    handler = DISHandler(**refusing.handler_options(STREAM), **FAST)

    handler.handle(record_of("bad"))
    handler.close()

    assert handler.stats().failed == 1


def test_failures_come_in_the_order_of_their_verdicts(dis: DISEmulator, fallback: RememberingHandler) -> None:
    texts = [f"{number:03d}" for number in range(300)]
    handler = DISHandler(**dis.handler_options(STREAM), **FAST, fallback=fallback, max_batch_records=40)

    with dis.rule(RefuseEntries("DIS.4200")):
        for text in texts:
            handler.handle(record_of(text))
        assert_accounts_balance(handler, dis, fallback, texts)

    assert fallback.texts == texts


def test_every_code_of_ours_is_documented() -> None:
    documented = set(re.findall(r"`([A-Z_]+)`:", FailureReason.__doc__ or ""))

    assert documented == {reason.name for reason in FailureReason}
    assert {reason.value for reason in FailureReason} == {"overflow", "too_large", "network", "timeout", "closed"}
