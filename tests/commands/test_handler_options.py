"""The options of DIS handlers in configurations: every form that is read, and the traps that are told."""

import argparse
import json
import logging.config
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dis_logging import ConfigurationError
from dis_logging.commands.handler_options import HandlerOptions, add_arguments, find_handler, find_handlers

SECRET = "a-secret-that-nobody-may-see-0123456789"
DIS: dict[str, Any] = {"class": "dis_logging.DISHandler", "stream_name": "app-logs", "sk": SECRET}
FILE: dict[str, Any] = {"class": "logging.FileHandler", "filename": "undelivered.log", "delay": True}


def config(handlers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Returns a configuration without a trap, but for what is given."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": handlers,
        "root": {"level": "INFO", "handlers": list(handlers)[:1]},
        **more,
    }


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


Read = Callable[..., HandlerOptions]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Returns a function that finds the handler of a configuration in a JSON file."""

    def read(document: dict[str, Any], *arguments: str) -> HandlerOptions:
        path = tmp_path / "logging.json"
        path.write_text(json.dumps(document), "utf-8")
        return find_handlers(parse("--config", str(path), *arguments))[0]

    return read


# -- where they stand -----------------------------------------------------------------------------------------------


def test_json_is_read(read: Read) -> None:
    found = read(config({"dis": {**DIS, "level": "INFO", "formatter": "line", "flush_interval": 0.5}}))

    assert found.label == "handler 'dis'"
    assert dict(found.given) == {"stream_name": "app-logs", "sk": SECRET, "flush_interval": 0.5}
    assert (found.errors, found.warnings) == ((), ())
    assert SECRET not in repr(found)


def test_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "logging.yaml"
    path.write_text(
        "logging:\n  version: 1\n  handlers:\n    dis: {class: dis_logging.DISHandler, stream_name: app-logs}\n"
    )

    assert find_handler(parse("--config", str(path))).stream_name == "app-logs"


def test_a_django_settings_module_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "checked_site"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "base.py").write_text(f"LOGGING = {config({'dis': DIS})!r}\n")
    (package / "settings.py").write_text("from .base import *\nprint('hello from settings')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))

    assert find_handler(parse("--config", "checked_site.settings")).stream_name == "app-logs"


def test_a_settings_file_is_read_as_a_part_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "filed_site"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "base.py").write_text(f"LOGGING = {config({'dis': DIS})!r}\n")
    (package / "settings.py").write_text("from .base import *\nprint('hello from settings')\n")
    monkeypatch.setattr("sys.path", list(sys.path))

    assert find_handler(parse("--config", str(package / "settings.py"))).stream_name == "app-logs"
    assert capsys.readouterr().out == ""


def test_a_class_and_a_subclass_are_found_as_objects_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "object_settings.py").write_text(
        "from dis_logging import DISHandler\n"
        "class Mine(DISHandler): pass\n"
        "LOGGING = {'version': 1, 'handlers': {'a': {'()': Mine, 'stream_name': 's'},"
        " 'b': {'class': 'object_settings.Mine', 'stream_name': 't'}, 'c': {'class': 'logging.NullHandler'}}}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))

    assert [found.stream_name for found in find_handlers(parse("--config", "object_settings"))] == ["s", "t"]


def test_references_of_a_configuration_are_resolved(read: Read) -> None:
    found = read(
        config({"dis": {**DIS, "stream_name": "cfg://stream", "credentials": "ext://os.getcwd"}}, stream="mine")
    )

    assert found.stream_name == "mine"
    assert callable(found.given["credentials"])


def test_arguments_go_before_the_configuration(read: Read) -> None:
    found = read(config({"dis": DIS}), "other-stream", "--region", "cn-east-3")

    assert (found.given["stream_name"], found.places["stream_name"]) == ("other-stream", "STREAM")
    assert (found.given["region"], found.places["region"]) == ("cn-east-3", "--region")


def test_one_of_several_handlers_must_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "logging.json"
    path.write_text(json.dumps(config({"a": DIS, "b": {**DIS, "stream_name": "other"}})))

    with pytest.raises(ConfigurationError, match=r"several DIS handlers .*choose one with --handler"):
        find_handler(parse("--config", str(path)))
    assert find_handler(parse("--config", str(path), "--handler", "b")).stream_name == "other"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", f'{{"sk": "{SECRET}",,}}', r"is not JSON: .* \(line 1, column"),
        ("x.json", "[" * 100_000, "is not JSON that can be read"),
        ("x.json", "[]", "is no configuration for dictConfig"),
        ("x.json", '{"handlers": {"a": {"class": "logging.NullHandler"}}}', "has no handler of the class"),
        ("x.json", '{"handlers": {"a": 1}}', "has no handler of the class"),
        ("x.yaml", f"sk: '{SECRET}\n", r"is not YAML that can be read \(line"),
        ("x.toml", "", "--config must be a .json, .yaml or .py file"),
        ("broken1.py", "import nothing_of_the_kind", "No module named 'nothing_of_the_kind'"),
        ("broken2.py", f"x = 1\nraise ValueError({SECRET!r})", r"ValueError at .*broken2.py:2"),
        ("broken3.py", "raise SystemExit(0)", r"SystemExit at .*broken3.py:1$"),
        ("broken4.py", f"\nx = '{SECRET}' +", r"SyntaxError at .*broken4.py:2$"),
        (
            "broken5.py",
            "import os\nos.environ['NO_SUCH_VARIABLE']",
            r"the environment variable NO_SUCH_VARIABLE is not set at .*broken5.py:2$",
        ),
        ("broken6.py", f"{{}}[{SECRET!r}]", r"KeyError at .*broken6.py:1$"),
        ("empty5.py", "", "has no LOGGING"),
        ("empty6.py", "LOGGING = None", "is no configuration for dictConfig"),
        ("x.json", None, "No such file"),
        ("missing.py", None, "there is no such file"),
        ("x.json", b"\xff\xfe\x00", "is not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_told_without_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | bytes | None, message: str
) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(ConfigurationError, match=message) as caught:
        find_handlers(parse("--config", str(path)))
    assert SECRET not in str(caught.value)


def test_a_module_that_does_not_exist_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))
    with pytest.raises(ConfigurationError, match=r"nowhere\.settings cannot be imported: No module named.*; run it in"):
        find_handlers(parse("--config", "nowhere.settings"))


def test_a_configuration_for_file_config_is_not_taken_for_a_module() -> None:
    with pytest.raises(ConfigurationError, match=r"^--config must be a \.json, .*, not 'logging\.ini'"):
        find_handlers(parse("--config", "logging.ini"))


def test_a_handler_without_a_configuration_is_told() -> None:
    with pytest.raises(ConfigurationError, match="--handler needs --config"):
        find_handlers(parse("--handler", "dis"))


def test_a_handler_that_does_not_exist_is_told(read: Read) -> None:
    with pytest.raises(ConfigurationError, match="no DIS handler 'other', but 'dis'"):
        read(config({"dis": DIS}), "--handler", "other")


# -- errors ---------------------------------------------------------------------------------------------------------


def test_an_unknown_option_is_told_with_the_one_that_was_meant(read: Read) -> None:
    found = read(config({"dis": {**DIS, "strem_name": "x", "zzz": 1}}))

    assert found.errors == ("unknown option 'strem_name'; did you mean stream_name?", "unknown option 'zzz'")
    assert "strem_name" not in found.for_handler


def test_a_reference_that_leads_nowhere_is_told(read: Read) -> None:
    found = read(config({"dis": {**DIS, "credentials": "ext://nowhere.at_all"}}))

    assert found.errors == ("credentials cannot be resolved (ValueError)",)


@pytest.mark.parametrize("reference", ["undelivered", "cfg://handlers.undelivered"])
def test_a_fallback_that_nobody_defines_is_told(read: Read, reference: str, restored_logging: None) -> None:
    """As dictConfig finds out: it forgets the handlers that were made before."""
    earlier = logging.NullHandler()
    earlier.set_name("undelivered")
    options = {"region": "r", "project_id": "p", "ak": "a"}
    document = config({"dis": {**DIS, **options, "fallback": reference}})

    assert "fallback: there is no handler named 'undelivered'" in read(document).errors[0]
    with pytest.raises(ValueError, match="'dis'"):
        logging.config.dictConfig(document)


# -- traps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        config({"dis": DIS}, root={"level": "DEBUG", "handlers": ["dis"]}),
        config({"dis": DIS}, root={"level": 0, "handlers": ["dis"]}),
        config({"dis": DIS}, root={}, loggers={"": {"level": "DEBUG", "handlers": ["dis"]}}),
        config(
            {"dis": DIS, "queue": {"class": "logging.handlers.MemoryHandler", "capacity": 1, "target": "dis"}},
            root={"level": "DEBUG", "handlers": ["queue"]},
        ),
    ],
)
def test_debug_on_root_is_a_trap(read: Read, document: dict[str, Any]) -> None:
    assert ["root logs at DEBUG" in warning for warning in read(document).warnings] == [True]


@pytest.mark.parametrize(
    "document",
    [
        config({"dis": {**DIS, "level": "INFO"}}, root={"level": "DEBUG", "handlers": ["dis"]}),
        config({"dis": DIS}, root={"handlers": ["dis"]}),
        config({"dis": DIS}, root={"level": "DEBUG"}, loggers={"shop": {"handlers": ["dis"]}}),
        config({"dis": DIS}, loggers={"shop": {"level": "DEBUG", "handlers": ["dis"]}}),
    ],
)
def test_debug_elsewhere_is_none(read: Read, document: dict[str, Any]) -> None:
    assert read(document).warnings == ()


@pytest.mark.parametrize(
    "handlers",
    [
        {"dis": {**DIS, "fallback": "dis"}},
        {"dis": {**DIS, "fallback": "cfg://handlers.dis"}},
        {
            "dis": {**DIS, "fallback": "memory"},
            "memory": {"class": "logging.handlers.MemoryHandler", "capacity": 1, "target": "dis"},
        },
        {"dis": {**DIS, "fallback": "other"}, "other": {**DIS, "fallback": "cfg://handlers.dis"}},
        {"dis": {**DIS, "fallback": {"class": "logging.handlers.MemoryHandler", "capacity": 1, "target": "dis"}}},
        {
            "dis": {**DIS, "fallback": "queue"},
            "queue": {"class": "logging.handlers.QueueHandler", "handlers": ["file", "cfg://handlers.dis"]},
            "file": FILE,
        },
    ],
)
def test_a_fallback_that_leads_back_is_a_trap(read: Read, handlers: dict[str, Any]) -> None:
    assert ["leads back to itself" in warning for warning in read(config(handlers)).warnings] == [True]


def test_a_section_that_contains_itself_is_read(tmp_path: Path) -> None:
    path = tmp_path / "logging.yaml"
    path.write_text("handlers:\n  dis: &dis {class: dis_logging.DISHandler, stream_name: app-logs, fallback: *dis}\n")

    assert find_handler(parse("--config", str(path))).stream_name == "app-logs"


@pytest.mark.parametrize(
    "handlers",
    [
        {"dis": {**DIS, "fallback": "file"}, "file": FILE},
        {"dis": {**DIS, "fallback": "other"}, "other": {**DIS, "fallback": "file"}, "file": FILE},
        {
            "dis": {**DIS, "fallback": "memory"},
            "memory": {"class": "logging.handlers.MemoryHandler", "capacity": 1, "target": "memory"},
        },
        {"dis": {**DIS, "fallback": FILE}},
    ],
)
def test_a_fallback_that_leads_elsewhere_is_none(read: Read, handlers: dict[str, Any]) -> None:
    assert read(config(handlers)).warnings == ()


def test_a_fallback_that_is_too_quiet_is_a_trap(read: Read) -> None:
    found = read(config({"dis": {**DIS, "fallback": "file"}, "file": {**FILE, "level": "ERROR"}}))

    assert found.warnings == ("its fallback has the level ERROR: undelivered records below ERROR are written nowhere",)


def test_a_handler_without_a_logger_is_a_trap(read: Read) -> None:
    assert "no logger of the configuration has this handler" in read(config({"dis": DIS}, root={})).warnings[0]


def test_disabled_loggers_are_a_trap(read: Read) -> None:
    document = config({"dis": DIS})
    del document["disable_existing_loggers"]

    assert "disable_existing_loggers is not False" in read(document).warnings[0]


def test_the_fallback_of_a_configuration_is_not_made(read: Read) -> None:
    found = read(config({"dis": {**DIS, "fallback": FILE}}))

    assert "fallback" in found.given
    assert "fallback" not in found.for_handler
