"""What dictConfig refuses, and nothing else, is told as a mistake."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dis_logging.commands.config_mistakes import Mistake, mistakes_in

NULL: dict[str, Any] = {"class": "logging.NullHandler"}
DIS: dict[str, Any] = {
    "class": "dis_logging.DISHandler",
    "stream_name": "app-logs",
    "region": "cn-north-4",
    "project_id": "1",
    "ak": "ACCESSKEY",
    "sk": "SECRET",
}
GOOD: dict[str, Any] = {
    "version": 1,
    "formatters": {"line": {"format": "%(message)s"}, "web": {"()": "logging.Formatter", "fmt": "%(name)s"}},
    "filters": {"web": {"name": "web"}},
    "handlers": {
        "null": {**NULL, "level": "INFO", "formatter": "line", "filters": ["web"]},
        "later": {"class": "logging.FileHandler", "filename": "file.log", "delay": True},
        "dis": DIS,
        "plain": {"()": "ext://logging.NullHandler", "level": 17, "formatter": ""},
        "memory": {"class": "logging.handlers.MemoryHandler", "capacity": 9, "target": "null"},
    },
    "loggers": {"web": {"level": "WARNING", "handlers": ["null"], "filters": ["web"]}},
    "root": {"level": "DEBUG", "handlers": ["plain", "memory"]},
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no version": ({"version": None}, "version must be 1, which is all that dictConfig knows"),
    "version as text": ({"version": "1"}, "version must be 1, which is all that dictConfig knows"),
    "loggers in a list": ({"loggers": ["web"]}, "loggers must be a mapping"),
    "format of another style": (
        {"formatters": {"line": {"format": "{message}"}}},
        "formatter 'line' cannot be made: ValueError: Invalid format '{message}' for '%' style",
    ),
    "unknown style": (
        {"formatters": {"line": {"format": "x", "style": "!"}}},
        "formatter 'line' cannot be made: ValueError: Style must be one of: %,{,$",
    ),
    "library that is missing": (
        {"formatters": {"line": {"()": "no_such_library.Formatter"}}},
        "formatter 'line' cannot be made: No module named 'no_such_library'",
    ),
    "filter with an argument too many": (
        {"filters": {"web": {"()": "logging.Filter", "secret": "SECRET"}}},
        "TypeError",
    ),
    "undefined formatter": (
        {"handlers": {"null": {**NULL, "formatter": "lines"}}},
        "handler 'null' has the formatter 'lines', which the configuration lacks; did you mean line?",
    ),
    "undefined filter": (
        {"handlers": {"null": {**NULL, "filters": ["shop"]}}},
        "handler 'null' has the filter 'shop', which the configuration lacks",
    ),
    "undefined target": (
        {"handlers": {"null": NULL, "memory": {**GOOD["handlers"]["memory"], "target": "nul"}}},
        "handler 'memory' has the target 'nul', which the configuration lacks; did you mean null?",
    ),
    "level in lower case": (
        {"handlers": {"null": {**NULL, "level": "info"}}},
        "handler 'null' has the level 'info', which logging does not know; did you mean INFO?",
    ),
    "no class": ({"handlers": {"null": {}}}, "handler 'null' has no class"),
    "class that is not there": (
        {"handlers": {"null": {"class": "logging.NoHandler"}}},
        "handler 'null' has a class that cannot be imported: 'logging.NoHandler' (No module named 'logging.NoHandler')",
    ),
    "handler without options": ({"handlers": {"null": None}}, "handler 'null' must be a mapping"),
    "file in no directory": (
        {"handlers": {"null": {"class": "logging.FileHandler", "filename": "no-such-directory/file.log"}}},
        "handler 'null' writes to a file in no-such-directory, which is no directory",
    ),
    "undefined handler of a logger": (
        {"loggers": {"web": {"handlers": ["nul"]}}},
        "logger 'web' has the handler 'nul', which the configuration lacks; did you mean null?",
    ),
    "undefined handler of root": (
        {"root": {"handlers": ["console"]}},
        "root has the handler 'console', which the configuration lacks",
    ),
    "handlers that are no list": ({"root": {"handlers": "null"}}, "root must have a list of handlers, not 'null'"),
    "undefined formatter of a fallback": (
        {"handlers": {"dis": {**DIS, "fallback": {**NULL, "formatter": "lines"}}}},
        "the fallback of handler 'dis' has the formatter 'lines', which the configuration lacks; did you mean line?",
    ),
    "misspelt name of our class": (
        {"handlers": {"dis": {**DIS, "class": "dis_logging.DisHandler"}}},
        "handler 'dis' has a class that cannot be imported: 'dis_logging.DisHandler' (No module named 'dis_logging.DisHandler')",
    ),
    "misspelt argument": (
        {"handlers": {"null": {"class": "logging.StreamHandler", "strem": "SECRET"}}},
        "handler 'null' has options that do not fit its class: got an unexpected keyword argument 'strem'",
    ),
    "argument that is missing": (
        {"handlers": {"null": {"class": "logging.FileHandler"}}},
        "handler 'null' has options that do not fit its class: missing a required argument: 'filename'",
    ),
    "level in quotes": (
        {"handlers": {"null": {**NULL, "level": "10"}}},
        "handler 'null' has the level '10', which logging does not know: a number has no quotes",
    ),
    "level that is neither": ({"root": {"level": 10.5}}, "root must have a level by name or number, not 10.5"),
    "reference in a list": (
        {"root": {"handlers": ["cfg://handlers.null"]}},
        "root has the handler 'cfg://handlers.null', which the configuration lacks",
    ),
    "formatter that ends the program": (
        {"formatters": {"line": {"()": "sys.exit"}, "web": {}}},
        "formatter 'line' cannot be made: SystemExit",
    ),
    "undefined filter of a logger": (
        {"loggers": {"web": {"filters": ["shop"]}}},
        "logger 'web' has the filter 'shop', which the configuration lacks",
    ),
    "level of root": ({"root": {"level": "Warning"}}, "root has the level 'Warning'"),
    "logger without options": ({"loggers": {"web": "INFO"}}, "logger 'web' must be a mapping"),
}
_TRY_ALL = """
import json, logging.config, sys
for config in json.load(sys.stdin):
    try:
        logging.config.dictConfig(config)
        print("taken")
    except (Exception, SystemExit):
        print("refused")
"""


def changed(change: dict[str, Any]) -> dict[str, Any]:
    """Returns the good configuration with another part, or other handlers besides those that are referred to."""
    return {**GOOD, **change, "handlers": {**GOOD["handlers"], **change.get("handlers", {})}}


def test_a_good_configuration_has_no_mistake() -> None:
    assert list(mistakes_in(GOOD)) == []
    changes: list[dict[str, Any]] = [
        {"formatters": []},
        {"root": None},
        {"root": "cfg://loggers.web"},
        {"loggers": {"web": {"handlers": "cfg://root.handlers"}}},
    ]
    for change in changes:
        assert list(mistakes_in({**GOOD, "handlers": dict.fromkeys(GOOD["handlers"], NULL), **change})) == []
    assert list(mistakes_in({"version": 1, "incremental": True, "handlers": {"null": {"level": "INFO"}}})) == []


@pytest.mark.parametrize(("change", "text"), BAD.values(), ids=BAD)
def test_a_mistake_is_told_once_and_no_secret_with_it(change: dict[str, Any], text: str) -> None:
    found = list(mistakes_in(changed(change)))

    assert [mistake.is_certain for mistake in found] == [True]
    assert text in found[0].text
    assert "SECRET" not in found[0].text


def test_dictconfig_refuses_each_of_them(tmp_path: Path) -> None:
    configs = [GOOD, *(changed(change) for change, _ in BAD.values())]

    answers = subprocess.run(
        [sys.executable, "-c", _TRY_ALL],
        input=json.dumps(configs),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=60,
    )

    assert answers.stdout.split() == ["taken", *["refused"] * len(BAD)]


def test_a_directory_that_the_program_may_make_is_no_certain_mistake() -> None:
    file = {"class": "logging.FileHandler", "filename": "no-such-directory/file.log", "delay": True}

    mistakes = list(mistakes_in(changed({"handlers": {"dis": {**DIS, "fallback": file}}})))

    text = "the fallback of handler 'dis' writes to a file in no-such-directory, which is no directory"
    assert mistakes == [Mistake(text, is_certain=False)]


def test_a_fallback_may_contain_itself() -> None:
    dis = dict(DIS)
    dis["fallback"] = dis

    assert list(mistakes_in(changed({"handlers": {"dis": dis}}))) == []


def test_a_level_that_the_program_may_add_is_no_certain_mistake() -> None:
    mistakes = list(mistakes_in({**GOOD, "root": {"level": "TRACE"}}))

    assert mistakes == [
        Mistake("root has the level 'TRACE', which logging does not know, unless the program adds it", is_certain=False)
    ]
