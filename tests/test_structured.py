"""Structured logs: the README's recipes with python-json-logger and structlog, and values that JSON cannot hold."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pythonjsonlogger.json import JsonFormatter

from dis_logging import DISHandler
from dis_logging.emulator import DISEmulator
from dis_logging.structured import to_json
from tests.conftest import STREAM

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
SECTION = README.split("\n## Structured logs\n")[1].split("\n## ")[0]
PYTHON_JSON_LOGGER, STRUCTLOG = re.findall(r"^```python\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
HIDDEN = re.compile(r"DIS_LOGGING_.*|HUAWEICLOUD_.*|.*_proxy", re.IGNORECASE)

# Runs in the recipes' processes as well.
ODD_VALUES = """
from datetime import datetime, timezone

class Hostile:
    def __str__(self):
        raise LookupError("nothing to be had")
    __repr__ = __str__

class HostileDict(dict):
    def items(self):
        raise LookupError("nothing to be had")

def within_itself():
    cycle = {"name": "cycle"}
    cycle["itself"] = [cycle, cycle]
    return cycle

def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value

ODD = {
    "hostile": Hostile(),
    "hostile_items": HostileDict(a=Hostile()),
    "cycle": within_itself(),
    "deep": deep(),
    "bytes": b"\\xff",
    "datetime": datetime(2026, 11, 25, tzinfo=timezone.utc),
    "nan": float("nan"),
    "infinite": [float("-inf")],
    "set": {1},
    "keys": {1: "a", None: "b", ("x", 2): "c", Hostile(): "d"},
    "surrogate": "a\\ud800b",
    "class": Hostile,
    "exception": ValueError("odd"),
    "huge": 10**5000,
    "object": object(),
}
"""
_namespace: dict[str, Any] = {}
exec(ODD_VALUES, _namespace)
ODD: dict[str, Any] = _namespace["ODD"]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def parse(text: str) -> dict[str, Any]:
    """Returns what *text* says, if it is JSON by the standard, on one line, and can be sent."""
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text, parse_constant=_refuse)
    return parsed


# -- to_json ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD)
def test_an_odd_value_costs_no_other_field(name: str) -> None:
    parsed = parse(to_json({"before": [1, {"a": None}], "odd": ODD[name], "after": "茶"}))

    assert parsed.keys() == {"before", "odd", "after"}
    assert (parsed["before"], parsed["after"]) == ([1, {"a": None}], "茶")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hostile", "<Hostile without text>"),
        ("hostile_items", "<HostileDict without text>"),
        ("cycle", {"name": "cycle", "itself": ["<dict within itself>", "<dict within itself>"]}),
        ("bytes", "b'\\xff'"),
        ("datetime", "2026-11-25 00:00:00+00:00"),
        ("nan", "nan"),
        ("infinite", ["-inf"]),
        ("keys", {"1": "a", "None": "b", "('x', 2)": "c", "<Hostile without text>": "d"}),
        ("surrogate", "a\ud800b"),
        ("huge", "<int without text>"),
    ],
)
def test_what_json_cannot_hold_becomes_text(name: str, text: object) -> None:
    assert parse(to_json({"odd": ODD[name]})) == {"odd": text}


def test_the_callers_default_is_asked_first() -> None:
    def default(value: object) -> object:
        if isinstance(value, datetime):
            return {"year": value.year}
        raise TypeError

    for odd in (1.5, float("nan")):  # whether it is json.dumps that encodes, or what steps in for it
        parsed = parse(to_json({"when": datetime(2026, 11, 25, tzinfo=timezone.utc), "odd": odd}, default=default))
        assert parsed["when"] == {"year": 2026}


def test_a_default_without_end_has_one() -> None:
    assert parse(to_json({"odd": object(), "nan": float("nan")}, default=lambda _: [object()]))["nan"] == "nan"


def test_what_is_too_deep_ends_in_text() -> None:
    text = to_json(ODD["deep"])

    assert text.count("[") == 50
    assert json.loads(text)


def test_options_are_those_of_json() -> None:
    for odd in (1, float("nan")):
        text = to_json({"b": odd, "a": "茶"}, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        assert text.startswith('{"a":"茶","b":')


# -- the recipes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def records_of(dis: DISEmulator, tmp_path: Path) -> Callable[[str], list[dict[str, Any]]]:
    """Returns a function that runs a program in a process of its own and returns the records that DIS then holds."""
    settings = {f"DIS_LOGGING_{name.upper()}": value for name, value in dis.client_options().items()}
    kept = {name: value for name, value in os.environ.items() if not HIDDEN.fullmatch(name)}

    def records_of(code: str) -> list[dict[str, Any]]:
        program = tmp_path / "program.py"
        program.write_text(code, "utf-8")
        result = subprocess.run(
            [sys.executable, "-W", "error", program],
            cwd=tmp_path,
            env={**kept, **settings, "PYTHONUTF8": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert (result.returncode, result.stdout) == (0, "")
        return [parse(record.text) for record in dis.records(STREAM)]

    return records_of


LOG_ODD_VALUES = """
for name, value in ODD.items():
    {log}
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("shop.orders").exception("failed", extra={{"order": 7}})
"""
LOG_IN_OTHER_CONTEXTS = """
import contextvars, threading
def handle(number):
    {bind}
    logging.getLogger("library").info("in a context", extra={{"number": number}})
for number in range(3):
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(handle, number))
    thread.start()
    thread.join()
"""
RECIPES = {
    "python-json-logger": (
        PYTHON_JSON_LOGGER,
        'logging.getLogger("shop.orders").info("odd", extra={"odd_name": name, "odd": value, "order": 7})',
        "request_id.set(str(number))",
    ),
    "structlog": (
        STRUCTLOG,
        'structlog.get_logger("shop.orders").info("odd", odd_name=name, odd=value, order=7)',
        "structlog.contextvars.bind_contextvars(request_id=str(number))",
    ),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_ships_every_field_whatever_its_value(
    recipe: str, records_of: Callable[[str], list[dict[str, Any]]]
) -> None:
    program, log, bind = RECIPES[recipe]

    first, *odd, failed, context_0, context_1, context_2 = records_of(
        program + ODD_VALUES + LOG_ODD_VALUES.format(log=log) + LOG_IN_OTHER_CONTEXTS.format(bind=bind)
    )

    message = "event" if recipe == "structlog" else "message"
    assert first.items() >= {message: "order accepted", "order": 1001, "items": ["绿茶"], "request_id": "7f3a"}.items()
    assert [record["odd_name"] for record in odd] == list(ODD)
    for record in odd:
        assert record.items() >= {message: "odd", "order": 7, "request_id": "7f3a"}.items()
        assert "odd" in record
    assert (failed[message], failed["order"]) == ("failed", 7)
    (traceback,) = (value for value in failed.values() if str(value).startswith("Traceback"))
    assert traceback.endswith("ZeroDivisionError: division by zero")
    assert [(each["number"], each["request_id"]) for each in (context_0, context_1, context_2)] == [
        (0, "0"),
        (1, "1"),
        (2, "2"),
    ]


def test_the_line_that_the_readme_shows_is_the_one_that_arrives(
    records_of: Callable[[str], list[dict[str, Any]]],
) -> None:
    (shown,) = re.findall(r"^```text\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)

    (arrived,) = records_of(PYTHON_JSON_LOGGER)

    told = parse(shown.removesuffix("\n"))
    assert list(arrived) == list(told)
    assert datetime.fromisoformat(arrived.pop("timestamp")).tzinfo == timezone.utc
    del told["timestamp"]
    assert arrived == told


@pytest.mark.parametrize("name", ODD)
def test_without_the_recipe_an_odd_value_costs_its_fields_at_most(
    name: str, dis: DISEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = DISHandler(**dis.handler_options(STREAM))
    handler.setFormatter(JsonFormatter("%(message)s"))

    record = logging.makeLogRecord({"msg": "order %d accepted", "args": (1001,), "name": "shop", "odd": ODD[name]})
    handler.handle(record)
    handler.close()

    (stored,) = dis.records(STREAM)
    assert "order" in stored.text
    assert handler.stats().delivered == 1
