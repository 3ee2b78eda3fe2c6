"""What the handler takes, refuses and leaves alone: options, environment, dictConfig and fileConfig, awkward records."""

import logging
import logging.config
import os
import pickle
import re
import subprocess
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dis_logging import ConfigurationError, DISHandler
from dis_logging.emulator import DISEmulator
from tests.conftest import STREAM, RememberingHandler, assert_accounts_balance

SECRET = "canary-secret-0123456789"
OPTIONS: dict[str, Any] = {
    "stream_name": STREAM,
    "endpoint": "http://127.0.0.1:9",
    "region": "cn-north-4",
    "project_id": "0123456789abcdef0123456789abcdef",
    "ak": "AK",
    "sk": SECRET,
}
VARIABLES = ("DIS_LOGGING_", "HUAWEICLOUD_SDK_")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found in the environment but what a test puts there."""
    for name in list(os.environ):
        if name.startswith(VARIABLES):
            monkeypatch.delenv(name)


# -- configuration --------------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, Any]] = [
    ("stream_name", None),
    ("stream_name", ""),
    ("stream_name", "no spaces"),
    ("stream_name", "x" * 65),
    ("stream_name", 5),
    ("endpoint", ""),
    ("endpoint", "https://"),
    ("endpoint", "ftp://dis.example.com"),
    ("endpoint", "https://dis.example.com:port"),
    ("endpoint", "https://dis.example.com:99999"),
    ("endpoint", "https://dis.example.com/?query=1"),
    ("endpoint", "https://user:password@dis.example.com"),
    ("endpoint", "https://[::1"),
    ("endpoint", "http://dis.example.com"),
    ("region", None),
    ("region", "cn north"),
    ("project_id", None),
    ("project_id", "a/b"),
    ("stream_id", ""),
    ("ak", None),
    ("ak", ""),
    ("sk", None),
    ("sk", ""),
    ("sk", "canary\nsecret"),
    ("security_token", "canary\x00token"),
    ("auth_token", ""),
    ("credentials", "not a callable"),
    ("signature", "md5"),
    ("partition_key", 5),
    ("partition_key", "%(name"),
    ("partition_key", "%s and %s"),
    ("partition_key", "%d"),
    ("partition_key", "%(message)s"),
    ("partition_key", "%(asctime)s"),
    ("explicit_hash_key", "%(message)s"),
    ("max_batch_records", 0),
    ("max_batch_records", -1),
    ("max_batch_records", 10_001),
    ("max_batch_records", 1.5),
    ("max_batch_records", "many"),
    ("max_batch_records", True),
    ("max_batch_records", float("nan")),
    ("max_batch_bytes", 0),
    ("max_batch_bytes", 5 * 1024 * 1024),
    ("max_batch_bytes", False),
    ("flush_interval", -0.1),
    ("flush_interval", "-1"),
    ("flush_interval", float("nan")),
    ("flush_interval", "nan"),
    ("flush_interval", float("inf")),
    ("flush_interval", True),
    ("flush_level", "LOUD"),
    ("flush_level", True),
    ("max_buffer_records", 0),
    ("max_buffer_bytes", "0"),
    ("overflow", "explode"),
    ("overflow", None),
    ("overflow", True),
    ("block_timeout", -1),
    ("request_timeout", 0),
    ("request_timeout", None),
    ("delivery_timeout", 0),
    ("backoff_initial", 0),
    ("backoff_max", "never"),
    ("shutdown_timeout", -5),
    ("shutdown_timeout", []),
    ("fallback", 5),
    ("fallback", ""),
    ("fallback", "no-such-handler"),
    ("fallback", {"class": "no.such.Handler"}),
    ("fallback", {"class": "logging.FileHandler"}),
    ("fallback", {"()": "builtins.dict"}),
    ("fallback", {}),
    ("verify", "/no/such/bundle.pem"),
    ("verify", None),
    ("verify", __file__),
    ("proxies", {"https": "canary:bar"}),
    ("proxies", {"https": "ftp://canary"}),
    ("proxies", "http://user:canary@proxy"),
    ("allow_http", "perhaps"),
]


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=[f"{name}={value!r:.30}" for name, value in REFUSED])
def test_a_wrong_option_raises_at_once_and_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        DISHandler(**{**OPTIONS, name: value})

    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "canary" not in shown
    assert isinstance(caught.value, ValueError)


def test_an_unknown_option_is_a_type_error_that_names_it() -> None:
    with pytest.raises(TypeError, match="max_batch_size"):
        DISHandler(**{**OPTIONS, "max_batch_size": 5})


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("flush_intervall", "did you mean flush_interval?"),
        ("stream", "did you mean stream_name?"),
        ("secret_key", "did you mean sk?"),
        ("access_key", "did you mean ak?"),
        ("url", "did you mean endpoint?"),
        ("level", "call setLevel on the handler"),
        ("formatter", "call setFormatter on the handler"),
    ],
)
def test_an_unknown_option_is_told_with_what_may_have_been_meant(option: str, hint: str) -> None:
    with pytest.raises(TypeError, match=f"^unknown option {option!r}; {re.escape(hint)}$"):
        DISHandler(**{**OPTIONS, option: "INFO"})


def test_only_the_stream_name_may_be_positional() -> None:
    options = {name: value for name, value in OPTIONS.items() if name != "stream_name"}

    DISHandler(STREAM, **options).close()
    with pytest.raises(TypeError):
        DISHandler(STREAM, OPTIONS["endpoint"], **{**options, "endpoint": None})  # type: ignore[call-arg]


def test_a_refused_handler_leaves_nothing_behind() -> None:
    before = [reference() for reference in logging._handlerList]  # type: ignore[attr-defined]

    with pytest.raises(ConfigurationError):
        DISHandler(**OPTIONS, fallback="no-such-handler")

    # logging would flush it, and fail, at the next configuration.
    assert [reference() for reference in logging._handlerList if reference() not in before] == []  # type: ignore[attr-defined]


def test_every_number_may_be_a_string(dis: DISEmulator, logger: logging.Logger) -> None:
    handler = DISHandler(
        **dis.handler_options(STREAM),
        max_batch_records="2",
        max_batch_bytes="1000",
        flush_interval="0.05",
        flush_level="30",
        max_buffer_records="10",
        max_buffer_bytes="1000000",
        block_timeout="1",
        request_timeout="5",
        delivery_timeout="5.5",
        backoff_initial="0.01",
        backoff_max="1e-1",
        shutdown_timeout=" 5 ",
        allow_http="no",
        verify="true",
    )
    logger.addHandler(handler)

    for number in range(4):
        logger.info("record %d", number)

    assert handler.flush(10)
    assert [request.entry_count for request in dis.requests] == [2, 2]


def test_the_secret_key_appears_in_no_face_of_the_handler() -> None:
    handler = DISHandler(**OPTIONS, auth_token=None, security_token=SECRET + "-token")
    try:
        with pytest.raises(TypeError) as caught:
            pickle.dumps(handler)

        shown = "".join(map(str, (repr(handler), str(handler), vars(handler), handler.stats(), caught.value)))
        assert SECRET not in shown
    finally:
        handler.close()


def test_the_secret_key_does_not_appear_in_a_dictconfig_error() -> None:
    with pytest.raises(ValueError, match="dis") as caught:
        logging.config.dictConfig(
            {
                "version": 1,
                "incremental": False,
                "disable_existing_loggers": False,
                "handlers": {"dis": {"class": "dis_logging.DISHandler", **OPTIONS, "overflow": "explode"}},
            }
        )

    shown = "".join(traceback.format_exception(caught.value))
    assert "overflow must be one of" in shown
    assert SECRET not in shown


# -- environment ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", VARIABLES)
def test_what_is_left_out_comes_from_the_environment(
    dis: DISEmulator, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    monkeypatch.setenv("DIS_LOGGING_STREAM_NAME", STREAM)
    monkeypatch.setenv("DIS_LOGGING_ENDPOINT", dis.endpoint)
    for name, value in (("REGION", dis.region), ("PROJECT_ID", dis.project_id), ("AK", dis.ak), ("SK", dis.sk)):
        monkeypatch.setenv(prefix + name, value)
    handler = DISHandler(fallback=logging.NullHandler())

    handler.handle(logging.LogRecord("web", logging.INFO, __file__, 1, "from the environment", None, None))
    handler.close()

    assert [record.text for record in dis.records(STREAM)] == ["from the environment"]


def test_a_temporary_pair_of_the_environment_brings_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with DISEmulator(streams={STREAM: 1}, security_token="temporary-token") as dis:
        options = {key: dis.client_options()[key] for key in ("endpoint", "region", "project_id")}
        monkeypatch.setenv("HUAWEICLOUD_SDK_AK", dis.ak)
        monkeypatch.setenv("HUAWEICLOUD_SDK_SK", dis.sk)
        monkeypatch.setenv("HUAWEICLOUD_SDK_SECURITY_TOKEN", "temporary-token")
        handler = DISHandler(STREAM, **options)
        handler.handle(logging.LogRecord("web", logging.INFO, __file__, 1, "temporary", None, None))
        handler.close()

        assert [record.text for record in dis.records(STREAM)] == ["temporary"]


def test_an_option_goes_before_the_environment_and_our_variables_before_huaweis(
    dis: DISEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIS_LOGGING_STREAM_NAME", "another")
    monkeypatch.setenv("DIS_LOGGING_AK", dis.ak)
    monkeypatch.setenv("DIS_LOGGING_SK", dis.sk)
    monkeypatch.setenv("HUAWEICLOUD_SDK_AK", "WRONG")
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", "wrong")
    options = {key: value for key, value in dis.handler_options(STREAM).items() if key not in ("ak", "sk")}
    handler = DISHandler(**options)

    handler.handle(logging.LogRecord("web", logging.INFO, __file__, 1, "ours", None, None))
    handler.close()

    assert [record.text for record in dis.records(STREAM)] == ["ours"]


def test_the_endpoint_follows_from_the_region() -> None:
    handler = DISHandler(**{**OPTIONS, "endpoint": None})
    try:
        assert "https://dis.cn-north-4.myhuaweicloud.com" in repr(handler)
    finally:
        handler.close()


# -- configured by logging ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("way", ["class", "()"])
def test_dictconfig_makes_it_by_class_and_by_factory(dis: DISEmulator, way: str) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"plain": {"format": "%(levelname)s %(message)s"}},
            "handlers": {
                "dis": {
                    way: "dis_logging.DISHandler",
                    "level": "INFO",
                    "formatter": "plain",
                    **dis.handler_options(STREAM),
                }
            },
            "loggers": {"shop": {"level": "DEBUG", "handlers": ["dis"], "propagate": False}},
        }
    )
    logger = logging.getLogger("shop")
    handler = logger.handlers[0]

    logger.debug("too low")
    logger.info("an order")
    logger.removeHandler(handler)
    handler.close()

    assert type(handler) is DISHandler
    assert [(record.text, record.partition_key) for record in dis.records(STREAM)] == [("INFO an order", "shop")]


@pytest.mark.usefixtures("restored_logging")
def test_fileconfig_makes_it_with_kwargs(dis: DISEmulator, tmp_path: Path) -> None:
    options = {**dis.handler_options(STREAM), "max_batch_records": "1", "flush_interval": "0.5", "fallback": "alarm"}
    path = tmp_path / "logging.ini"
    path.write_text(
        textwrap.dedent(
            f"""
            [loggers]
            keys=root,shop
            [handlers]
            keys=dis,alarm
            [formatters]
            keys=plain
            [logger_root]
            handlers=
            [logger_shop]
            level=DEBUG
            handlers=dis
            propagate=0
            qualname=shop
            [handler_dis]
            class=dis_logging.DISHandler
            formatter=plain
            kwargs={options!r}
            [handler_alarm]
            class=logging.NullHandler
            [formatter_plain]
            format=<%(message)s>
            """
        )
    )

    logging.config.fileConfig(path, disable_existing_loggers=False)
    logger = logging.getLogger("shop")
    handler = logger.handlers[0]
    logger.info("one")
    logger.info("two")
    logger.removeHandler(handler)
    handler.close()

    assert [record.text for record in dis.records(STREAM)] == ["<one>", "<two>"]
    assert [request.entry_count for request in dis.requests] == [1, 1]


# -- nothing that was not asked for ---------------------------------------------------------------------------------


def run(program: str) -> str:
    """Runs *program* in an interpreter of its own and returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_pulls_in_nothing_that_a_user_did_not_ask_for() -> None:
    standard = ("asyncio", "sqlite3", "configparser", "logging.config", "multiprocessing", "unittest", "argparse")
    extras = ("django", "google.protobuf", "zstandard", "lz4", "cramjam")
    unwanted = (*standard, *extras, "dis_logging.emulator", "dis_logging.client.protobuf", "dis_logging.commands")

    loaded = run(f"import sys, dis_logging; print(*[name for name in {unwanted!r} if name in sys.modules])")

    assert loaded == ""


def test_nothing_runs_before_the_first_record() -> None:
    program = f"""
        import logging, sys, threading
        from dis_logging import DISHandler
        handler = DISHandler(**{OPTIONS!r}, fallback=logging.NullHandler(), shutdown_timeout=0.1)
        logging.getLogger().addHandler(handler)
        print(threading.active_count(), handler.flush(), end=" ")
        logging.getLogger().warning("first")
        print(threading.active_count() > 1)
    """

    assert run(program) == "1 True True"


def test_neither_the_root_logger_nor_other_handlers_are_touched() -> None:
    program = f"""
        import logging
        from dis_logging import DISHandler
        handler = DISHandler(**{OPTIONS!r}, fallback=logging.NullHandler(), shutdown_timeout=0.1)
        logging.getLogger("shop").addHandler(handler)
        logging.getLogger("shop").error("a record")
        handler.close()
        root = logging.getLogger()
        print(root.handlers, root.level, logging.getLogger("urllib3").level, logging.getLogger("dis_logging").handlers)
    """

    assert run(program) == "[] 30 0 []"


# -- awkward records ------------------------------------------------------------------------------------------------


class Unspeakable:
    """An object of which nothing can be said."""

    def __str__(self) -> str:
        raise RuntimeError("no text to be had")

    __repr__ = __str__


@pytest.fixture
def handler(dis: DISEmulator, logger: logging.Logger, fallback: RememberingHandler) -> DISHandler:
    """A handler of *logger* that talks to the emulator."""
    handler = DISHandler(**dis.handler_options(STREAM), flush_interval=0.05, fallback=fallback)
    logger.addHandler(handler)
    return handler


def test_a_record_over_the_limit_goes_to_the_fallback_whole_and_alone(
    dis: DISEmulator, handler: DISHandler, logger: logging.Logger, fallback: RememberingHandler
) -> None:
    large = "x" * (1024 * 1024 + 1)

    logger.info("before")
    logger.info(large)
    logger.info("after")

    stats = assert_accounts_balance(handler, dis, fallback, ["before", large, "after"])
    assert stats.failed == 1
    assert fallback.codes == ["too_large"]
    assert vars(fallback.records[0])["dis_attempts"] == 0
    assert "1048577 bytes" in vars(fallback.records[0])["dis_error_message"]


def test_the_largest_record_that_dis_takes_arrives(
    dis: DISEmulator, handler: DISHandler, logger: logging.Logger, fallback: RememberingHandler
) -> None:
    large = "é" * (512 * 1024)

    logger.info(large)

    assert assert_accounts_balance(handler, dis, fallback, [large]).delivered == 1


@pytest.mark.parametrize(
    ("message", "arguments", "text"),
    [
        ("%d apples", ("no",), "%d apples [dis_logging: not formatted, TypeError: "),
        ("%s and %s", ("one",), "%s and %s [dis_logging: not formatted, TypeError: "),
        ("%(name)s", ({"other": 1},), "%(name)s [dis_logging: not formatted, KeyError: "),
        ("value %s", (Unspeakable(),), "value %s [dis_logging: not formatted, RuntimeError: no text to be had]"),
        (Unspeakable(), (), "<Unspeakable without text> [dis_logging: not formatted, RuntimeError: "),
        ("100 %", ("x",), "100 % [dis_logging: not formatted, ValueError: "),
    ],
)
def test_a_record_that_cannot_be_formatted_costs_only_its_arguments_and_is_reported(
    dis: DISEmulator,
    handler: DISHandler,
    capsys: pytest.CaptureFixture[str],
    message: object,
    arguments: tuple[object, ...],
    text: str,
) -> None:
    # Straight to the handler: pytest's own capturing handler would raise.
    for msg, args in (("before", ()), (message, arguments), ("after", ())):
        handler.handle(logging.LogRecord("web", logging.INFO, __file__, 1, msg, args, None))
    handler.close()

    texts = [record.text for record in dis.records(STREAM)]
    assert texts[0] == "before"
    assert texts[1].startswith(text)
    assert texts[2:] == ["after"]
    assert "--- Logging error ---" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "stored"),
    [
        ("half \ud83d of a pair", "half \\ud83d of a pair"),
        ("a NUL \x00 inside", "a NUL \x00 inside"),
        ("", "\n"),
        ("naïve 日本語 \U0001f680", "naïve 日本語 \U0001f680"),
        ("two\nlines", "two\nlines"),
        ("100 % sure, %s", "100 % sure, %s"),
    ],
)
def test_unusual_text_arrives(
    dis: DISEmulator, handler: DISHandler, logger: logging.Logger, message: str, stored: str
) -> None:
    logger.info(message)
    handler.close()

    assert [record.text for record in dis.records(STREAM)] == [stored]
    assert handler.stats().delivered == 1


def test_a_record_without_name_and_level_costs_its_neighbours_nothing(
    dis: DISEmulator, handler: DISHandler, fallback: RememberingHandler
) -> None:
    handler.handle(logging.makeLogRecord({"msg": "before", "name": "a"}))
    handler.handle(logging.makeLogRecord({"msg": "without both"}))
    handler.handle(logging.makeLogRecord({"msg": "after", "name": "a", "levelno": logging.INFO}))

    assert assert_accounts_balance(handler, dis, fallback, ["before", "without both", "after"]).delivered == 3


def test_a_formatter_that_returns_no_text_costs_no_record_and_is_reported(
    dis: DISEmulator, handler: DISHandler, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return {"not": "text"} if record.msg == "broken" else super().format(record)  # type: ignore[return-value]

    handler.setFormatter(Broken())
    for message in ("before", "broken", "after"):
        logger.info(message)
    handler.close()

    assert [record.text for record in dis.records(STREAM)] == ["before", "{'not': 'text'}", "after"]
    assert "--- Logging error ---" in capsys.readouterr().err


def test_an_exception_arrives_with_its_traceback(dis: DISEmulator, handler: DISHandler, logger: logging.Logger) -> None:
    try:
        raise LookupError("not there")
    except LookupError:
        logger.exception("looked in vain")
    handler.close()

    text = dis.records(STREAM)[0].text
    assert text.startswith("looked in vain\nTraceback (most recent call last):\n")
    assert text.endswith("LookupError: not there")


def test_the_record_is_not_modified(handler: DISHandler, logger: logging.Logger) -> None:
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    record: logging.LogRecord
    try:
        raise ValueError("cause")
    except ValueError:
        record = logger.makeRecord(
            logger.name, logging.ERROR, __file__, 1, "%s", ("x",), sys.exc_info(), extra={"user": "me"}
        )
    before = dict(vars(record))

    handler.handle(record)

    assert vars(record) == before


def test_what_another_handler_cached_on_the_record_stays(handler: DISHandler, logger: logging.Logger) -> None:
    record = logger.makeRecord(logger.name, logging.INFO, __file__, 1, "text", (), None)
    record.message, record.asctime, record.exc_text = "cached", "yesterday", "cached traceback"
    before = dict(vars(record))

    handler.handle(record)

    assert vars(record) == before


def test_arguments_are_formatted_before_they_change(
    dis: DISEmulator, handler: DISHandler, logger: logging.Logger
) -> None:
    basket = ["apple"]

    logger.info("basket %s", basket)
    basket.append("pear")
    handler.close()

    assert [record.text for record in dis.records(STREAM)] == ["basket ['apple']"]


def test_filters_of_the_handler_decide_and_may_replace_the_record(dis: DISEmulator, handler: DISHandler) -> None:
    def only_even(record: logging.LogRecord) -> bool:
        return bool(record.args) and isinstance(record.args, tuple) and int(str(record.args[0])) % 2 == 0

    handler.addFilter(only_even)
    for number in range(4):
        handler.handle(logging.LogRecord("web", logging.INFO, __file__, 1, "%d", (number,), None))
    handler.close()

    assert [record.text for record in dis.records(STREAM)] == ["0", "2"]
    assert handler.stats().emitted == 2


# -- partition keys -------------------------------------------------------------------------------------------------


def _by_user(record: logging.LogRecord) -> str:
    return f"user-{vars(record)['user']}"


@pytest.mark.parametrize(
    ("partition_key", "expected"),
    [
        ("%(name)s", "shop.orders"),
        ("%(name)s/%(levelname)s", "shop.orders/INFO"),
        ("%(user)s", "7"),
        (_by_user, "user-7"),
        (lambda record: 7, "7"),
        ("fixed", "fixed"),
        ("", None),
        (lambda record: "", None),
        (lambda record: "half \ud83d", "half \\ud83d"),
    ],
)
def test_the_partition_key_is_a_template_or_a_callable(
    dis: DISEmulator, partition_key: str | Callable[[logging.LogRecord], str], expected: str | None
) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), partition_key=partition_key)
    record = logging.LogRecord("shop.orders", logging.INFO, __file__, 1, "text", None, None)
    record.user = 7

    handler.handle(record)
    handler.close()

    assert [stored.partition_key for stored in dis.records(STREAM)] == [expected]


@pytest.mark.parametrize("partition_key", ["%(missing)s", lambda record: record.missing])
def test_a_key_that_cannot_be_made_falls_back_to_the_logger_name_and_is_reported(
    dis: DISEmulator, capsys: pytest.CaptureFixture[str], partition_key: str | Callable[[logging.LogRecord], str]
) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), partition_key=partition_key)

    handler.handle(logging.LogRecord("shop", logging.INFO, __file__, 1, "text", None, None))
    handler.close()

    assert [(stored.text, stored.partition_key) for stored in dis.records(STREAM)] == [("text", "shop")]
    assert "--- Logging error ---" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["partition_key", "explicit_hash_key", "partition_id"])
def test_a_template_that_a_record_cannot_fill_is_named(
    dis: DISEmulator, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    handler = DISHandler(**{**dis.handler_options(STREAM), option: "%(nmae)s"})

    handler.handle(logging.LogRecord("shop", logging.INFO, __file__, 1, "text", None, None))
    handler.close()

    assert f"ValueError: {option}='%(nmae)s', but this record has no 'nmae'\n" in capsys.readouterr().err


# -- life -----------------------------------------------------------------------------------------------------------


def test_a_record_after_close_goes_to_the_fallback(
    dis: DISEmulator, handler: DISHandler, fallback: RememberingHandler
) -> None:
    handler.close()
    handler.close()

    handler.handle(logging.LogRecord("web", logging.INFO, __file__, 1, "late", None, None))

    assert fallback.texts == ["late"]
    assert fallback.codes == ["closed"]
    assert_accounts_balance(handler, dis, fallback, ["late"])


def test_flush_waits_for_what_was_accepted_before_it(
    dis: DISEmulator, logger: logging.Logger, fallback: RememberingHandler
) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), flush_interval=60, fallback=fallback)
    logger.addHandler(handler)
    logger.info("waits for company")

    assert handler.flush(10)
    assert [record.text for record in dis.records(STREAM)] == ["waits for company"]


@pytest.mark.parametrize("timeout", ["soon", "1", float("nan"), [1], Decimal("sNaN")])
def test_flush_refuses_what_is_no_number(handler: DISHandler, timeout: Any) -> None:
    with pytest.raises(TypeError, match=r"^timeout must be a number of seconds, not "):
        handler.flush(timeout)

    for number in (float("inf"), 10**400, -(10**400), Fraction(1, 2), Decimal(1)):
        assert handler.flush(number)  # type: ignore[arg-type] # they will do


def test_flush_tells_when_it_did_not_succeed(logger: logging.Logger, fallback: RememberingHandler) -> None:
    handler = DISHandler(**OPTIONS, fallback=fallback, shutdown_timeout=0.1)
    logger.addHandler(handler)
    logger.info("nobody listens on that port")

    assert not handler.flush(0.05)
    assert not handler.flush(-1)
    assert handler.stats().buffered == 1


def test_a_severe_record_is_sent_at_once_with_all_that_waits(dis: DISEmulator, logger: logging.Logger) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), flush_interval=60, flush_level="CRITICAL")
    logger.addHandler(handler)

    logger.error("not severe enough")
    logger.critical("severe")

    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 2)
    assert len(dis.requests) == 1


def test_a_record_waits_for_company_no_longer_than_the_flush_interval(
    dis: DISEmulator, handler: DISHandler, logger: logging.Logger
) -> None:
    logger.info("one")

    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 1)


def test_a_handler_that_is_dropped_still_delivers_what_it_accepted(dis: DISEmulator) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), flush_interval=60)
    handler.handle(logging.LogRecord("web", logging.INFO, __file__, 1, "orphan", None, None))

    del handler

    assert dis.wait_for(lambda dis: dis.record_count(STREAM) == 1)


def test_closing_ends_the_threads(dis: DISEmulator, handler: DISHandler, logger: logging.Logger) -> None:
    before = set(threading.enumerate())
    logger.info("starts the sender")
    started = set(threading.enumerate()) - before

    handler.close()

    assert [thread.name for thread in started if thread.name.startswith("dis_logging")] == ["dis_logging-sender"]
    for thread in started:
        if thread.name.startswith("dis_logging"):
            thread.join(10)
            assert not thread.is_alive()


def test_the_repr_answers_the_first_questions(dis: DISEmulator, handler: DISHandler, logger: logging.Logger) -> None:
    logger.info("one")
    assert handler.flush(10)

    assert repr(handler) == (
        f"<DISHandler {STREAM} at {dis.endpoint} (NOTSET): 0 buffered, 1 delivered, 0 failed, 0 dropped, 0 in flight>"
    )
