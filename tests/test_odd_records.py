"""
Records whose attributes are not what `logging` makes them: none of them, and none of their neighbours, gets lost.

`logging.makeLogRecord`, which socket receivers and queue listeners use, takes anything.
"""

import copy
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from dis_logging import DISHandler
from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import RefuseEntries
from dis_logging.pipeline.fallback import FailedRecord
from tests.conftest import STREAM, RememberingHandler


class Hostile:
    """An object that can be asked for nothing."""

    def __str__(self) -> str:
        raise LookupError("nothing to be had")

    __repr__ = __fspath__ = __str__

    def __int__(self) -> int:
        raise LookupError("nothing to be had")

    __index__ = __hash__ = __int__

    def __float__(self) -> float:
        raise LookupError("nothing to be had")

    def __eq__(self, other: object) -> bool:
        raise LookupError("nothing to be had")


ODD: dict[str, dict[str, Any]] = {
    "trail-list": {"dis_trail": [1]},
    "trail-none": {"dis_trail": None},
    "trail-hostile": {"dis_trail": Hostile()},
    "levelno-float": {"levelno": 20.5},
    "levelno-nan": {"levelno": float("nan")},
    "levelno-inf": {"levelno": float("inf")},
    "levelno-huge": {"levelno": 10**30},
    "levelno-str": {"levelno": "ERROR"},
    "levelno-none": {"levelno": None},
    "levelno-hostile": {"levelno": Hostile()},
    "levelname-none": {"levelname": None},
    "name-none": {"name": None},
    "name-bytes": {"name": b"web"},
    "name-empty": {"name": ""},
    "name-surrogate": {"name": "web\ud800"},
    "name-control-characters": {"name": "a\nb\0"},
    "name-tuple": {"name": ("web",)},
    "name-hostile": {"name": Hostile()},
    "created-nan": {"created": float("nan")},
    "created-inf": {"created": float("inf")},
    "created-huge": {"created": 1e300},
    "created-digits": {"created": 10**400},
    "created-before-christ": {"created": -1e18},
    "created-none": {"created": None},
    "created-str": {"created": "yesterday"},
    "created-hostile": {"created": Hostile()},
    "msecs-none": {"msecs": None},
    "pathname-none": {"pathname": None},
    "pathname-bytes": {"pathname": b"web.py"},
    "lineno-hostile": {"lineno": Hostile()},
    "funcname-hostile": {"funcName": Hostile()},
    "threadname-hostile": {"threadName": Hostile()},
    "msg-none": {"msg": None},
    "msg-bytes": {"msg": b"odd"},
    "msg-surrogate": {"msg": "odd \ud800"},
    "msg-hostile": {"msg": Hostile()},
    "args-too-few": {"msg": "%s %s", "args": ("odd",)},
    "args-too-many": {"msg": "odd", "args": ("odd",)},
    "args-wrong": {"msg": "%d", "args": ("odd",)},
    "args-wrong-names": {"msg": "%(a)s", "args": {"b": 1}},
    "args-no-tuple": {"msg": "%s", "args": 5},
    "args-hostile": {"msg": "%s", "args": (Hostile(),)},
    "exc_info-true": {"exc_info": True},
    "exc_info-hostile": {"exc_info": Hostile()},
    "exc_text-number": {"exc_text": 5},
    "stack_info-hostile": {"stack_info": Hostile()},
}
# What a fallback cannot be told in a record of its own is on stderr.
ODDER: dict[str, dict[str, Any]] = {
    "trail-of-hostiles": {"dis_trail": (Hostile(),)},
    "pathname-hostile": {"pathname": Hostile()},
}


def ship(handler: DISHandler, odd: dict[str, Any]) -> None:
    """Logs the odd record between two ordinary ones, and closes the handler."""
    plain = {"name": "web", "levelno": logging.INFO, "levelname": "INFO"}
    for attributes in ({"msg": "before"}, {"msg": "odd", **odd}, {"msg": "after"}):
        handler.handle(logging.makeLogRecord({**plain, **attributes}))
    handler.close()


@pytest.fixture
def make(dis: DISEmulator, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DISHandler]:
    """Returns a function that makes a handler; what it reports through `handleError` is not printed."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    return lambda **options: DISHandler(**dis.handler_options(STREAM), shutdown_timeout=20, **options)


@pytest.mark.parametrize("odd", [*ODD.values(), *ODDER.values()], ids=[*ODD, *ODDER])
def test_an_odd_record_is_delivered(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, odd: dict[str, Any]
) -> None:
    handler = make(fallback=fallback)

    ship(handler, odd)

    assert dis.record_count(STREAM) == handler.stats().delivered == 3
    assert not fallback.records


@pytest.mark.parametrize("lacking", sorted({*vars(logging.makeLogRecord({})), "everything"}))
def test_a_record_that_lacks_something_is_delivered(
    dis: DISEmulator, make: Callable[..., DISHandler], lacking: str
) -> None:
    handler = make()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "noon"))
    record = logging.makeLogRecord({"name": "web", "levelno": logging.INFO, "msg": "odd"})
    for name in list(vars(record)) if lacking == "everything" else [lacking]:
        delattr(record, name)

    for _ in range(3):  # of the second one on the formatter is known
        handler.handle(record)
    handler.close()

    assert dis.record_count(STREAM) == 3 == handler.stats().delivered


class _WithTraceback(logging.LogRecord):
    """Makes its traceback's text when it is asked for it."""

    @property
    def exc_text(self) -> str | None:
        return "made just now" if vars(self).get("exc_info") else None

    @exc_text.setter
    def exc_text(self, value: object) -> None: ...


class _Untold(logging.LogRecord):
    @property
    def message(self) -> str:  # type: ignore[override] # wrong on purpose
        raise LookupError("nothing to be had")


class _Tidy(logging.Formatter):
    """Has a text of its own, and clears up behind itself."""

    def format(self, record: logging.LogRecord) -> str:
        vars(record).pop("exc_text", None)
        return f"[{record.msg}]"


@pytest.mark.parametrize("kind", [logging.LogRecord, _WithTraceback, _Untold])
@pytest.mark.parametrize("lacking", ["", "exc_text"])
def test_a_formatter_of_its_own_has_its_text_whatever_the_record_is(
    dis: DISEmulator, make: Callable[..., DISHandler], kind: type[logging.LogRecord], lacking: str
) -> None:
    handler = make()
    handler.setFormatter(_Tidy())
    record = kind("web", logging.INFO, "path", 1, "odd", (), None)
    vars(record).pop(lacking, None)
    before = dict(vars(record))

    handler.handle(record)
    handler.close()

    assert [record.text for record in dis.records(STREAM)] == ["[odd]"]
    assert {"exc_text": None, **vars(record)} == {"exc_text": None, **before}


def test_a_record_that_can_be_asked_for_nothing_is_delivered(dis: DISEmulator, make: Callable[..., DISHandler]) -> None:
    class Closed(logging.LogRecord):
        is_closed = False

        def __getattribute__(self, name: str) -> Any:
            if Closed.is_closed and name not in ("__class__", "levelno"):
                raise LookupError("nothing to be had")
            return super().__getattribute__(name)

    handler = make()
    record = Closed("web", logging.INFO, "path", 1, "odd", (), None)
    Closed.is_closed = True

    handler.handle(record)
    handler.close()

    assert [record.text for record in dis.records(STREAM)] == [
        "None [dis_logging: not formatted, LookupError: nothing to be had]"
    ]


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_odd_record_reaches_the_fallback(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, odd: dict[str, Any]
) -> None:
    handler = make(fallback=fallback)

    with dis.rule(RefuseEntries("DIS.4302")):
        ship(handler, odd)

    assert handler.stats().failed == 3
    assert fallback.codes == ["DIS.4302"] * 3
    for record in fallback.records:
        logging.Formatter("%(message)s %(name)s %(dis_error_code)s").format(record)


@pytest.mark.parametrize("odd", ODDER.values(), ids=ODDER)
def test_a_record_too_odd_for_the_fallback_is_told_on_stderr(
    dis: DISEmulator,
    make: Callable[..., DISHandler],
    fallback: RememberingHandler,
    capsys: pytest.CaptureFixture[str],
    odd: dict[str, Any],
) -> None:
    handler = make(fallback=fallback)

    with dis.rule(RefuseEntries("DIS.4302")):
        ship(handler, odd)

    assert handler.stats().failed == 3
    reported = [*fallback.texts, *capsys.readouterr().err.splitlines()]
    assert len(reported) == 3
    assert sum("odd" in text for text in reported) == 1


@pytest.mark.parametrize("odd", [*ODD.values(), *ODDER.values()], ids=[*ODD, *ODDER])
def test_without_a_fallback_an_odd_record_is_one_line_on_stderr(
    dis: DISEmulator, make: Callable[..., DISHandler], capsys: pytest.CaptureFixture[str], odd: dict[str, Any]
) -> None:
    handler = make()

    with dis.rule(RefuseEntries("DIS.4302")):
        ship(handler, odd)

    assert handler.stats().failed == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("dis_logging: not delivered: DIS.4302 ") for line in lines)


class Formatted(logging.Formatter):
    """A formatter that makes something else than text."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self._result = result

    def format(self, record: logging.LogRecord) -> str:
        """Returns what it was told."""
        return self._result  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("result", "data"),
    [
        (b'{"by": "orjson"}', b'{"by": "orjson"}'),
        (b"\xff no UTF-8", b"\xff no UTF-8"),
        (bytearray(b"bytes"), b"bytes"),
        (b"", b"\n"),
        (None, b"None"),
        (5, b"5"),
        (Hostile(), b"<Hostile without text>"),
    ],
    ids=["json", "no-utf-8", "bytearray", "empty", "none", "number", "hostile"],
)
def test_a_formatter_may_make_bytes_or_anything(
    dis: DISEmulator, make: Callable[..., DISHandler], fallback: RememberingHandler, result: object, data: bytes
) -> None:
    handler = make(fallback=fallback)
    handler.setFormatter(Formatted(result))

    with dis.rule(RefuseEntries("DIS.4302", where=[1])):
        for _ in range(2):
            handler.handle(logging.makeLogRecord({"msg": "odd", "name": "web"}))
        handler.close()

    assert [record.data for record in dis.records(STREAM)] == [data]
    (record,) = fallback.records
    assert isinstance(record, FailedRecord)
    assert record.dis_data == data
    assert record.getMessage() == data.decode("utf-8", "replace")
    assert "dis_data" not in vars(record)
    assert pickle.loads(pickle.dumps(record)).dis_data == copy.copy(record).dis_data == data
