"""Reads a logging configuration from a file of JSON or YAML, or from a Django settings module."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import traceback
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from dis_logging import options
from dis_logging.errors import ConfigurationError
from dis_logging.escaping import escape

_MODULE_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def load_logging_config(source: str) -> Mapping[str, Any]:
    """
    Returns the configuration for dictConfig in *source*.

    Args:
        source: the path of a ``.json``, ``.yaml`` or ``.yml`` file, the name of a Django settings module, or the path of
            its ``.py`` file. In a file, the configuration may stand below a key ``logging`` or ``LOGGING``.

    Raises:
        ConfigurationError: it cannot be read, or is no such configuration. The content of a file is never shown.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in _READERS:
        document = _READERS[suffix](_text_of(path), source)
        _import_from(Path.cwd())  # it may name the user's own classes
    elif suffix == ".py" and path.name != suffix:
        document = _settings(*_place_of(path), source)
    elif _MODULE_NAME.fullmatch(source) and not path.is_file() and suffix not in _OTHER_FORMATS:
        document = _settings(source, Path.cwd(), source)
    else:
        raise ConfigurationError(
            f"--config must be a .json, .yaml or .py file or the name of a settings module, not {options.shown(source)}"
        )
    if isinstance(document, Mapping) and "handlers" not in document:
        document = next((document[key] for key in ("logging", "LOGGING") if key in document), document)
    if not isinstance(document, Mapping) or not isinstance(document.get("handlers"), Mapping):
        raise ConfigurationError(f"{_shown(source)} is no configuration for dictConfig: it has no handlers")
    return document


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{_shown(str(path))} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{_shown(str(path))} is not UTF-8") from None


def _read_json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigurationError(f"{_shown(source)} is not JSON: {error.msg} ({where})") from None
    except RecursionError:
        raise ConfigurationError(f"{_shown(source)} is not JSON that can be read: it is nested too deep") from None


def _read_yaml(text: str, source: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigurationError(f"{_shown(source)} needs a library that is missing: pip install pyyaml") from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Its text quotes the line, which may hold a key.
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigurationError(f"{_shown(source)} is not YAML that can be read{where}") from None


# They look like the names of modules when there is no such file.
_OTHER_FORMATS = frozenset({".ini", ".cfg", ".conf", ".toml"})
_READERS = {".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml}


def _place_of(path: Path) -> tuple[str, Path]:
    """Returns the name of the module in *path*, and the directory that its package is imported from."""
    if not path.is_file():
        raise ConfigurationError(f"{_shown(str(path))} cannot be read: there is no such file")
    path = path.resolve()
    names = [] if path.stem == "__init__" else [path.stem]
    directory = path.parent
    while (directory / "__init__.py").is_file():
        names.insert(0, directory.name)
        directory = directory.parent
    return ".".join(names), directory


def _import_from(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _settings(name: str, directory: Path, source: str) -> Any:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", name)  # Django's filters and handlers ask for them
    module = _import(name, directory, source)
    try:
        return module.LOGGING
    except AttributeError:
        raise ConfigurationError(f"{_shown(source)} has no LOGGING") from None


def _import(name: str, directory: Path, source: str) -> ModuleType:
    _import_from(directory)
    try:
        with redirect_stdout(sys.stderr):  # what the module prints is not our data
            return importlib.import_module(name)
    except ImportError as error:
        top = name.partition(".")[0]
        is_elsewhere = isinstance(error, ModuleNotFoundError) and error.name == top
        hint = f"; run it in the directory that holds {escape(top, 100)}, or set PYTHONPATH" if is_elsewhere else ""
        raise ConfigurationError(f"{_shown(source)} cannot be imported: {escape(str(error), 200)}{hint}") from None
    except (Exception, SystemExit) as error:
        # The text of the error is the module's own, and might quote a secret.
        raise ConfigurationError(
            f"{_shown(source)} cannot be imported: {_reason(error)}{_whereabouts(error)}"
        ) from None


def _reason(error: BaseException) -> str:
    is_of_environment = isinstance(error, KeyError) and error.__traceback__ is not None and error.args
    if is_of_environment and traceback.extract_tb(error.__traceback__)[-1].filename in (os.__file__, "<frozen os>"):
        return f"the environment variable {escape(str(error.args[0]), 100)} is not set"
    return type(error).__name__


def _whereabouts(error: BaseException) -> str:
    """Returns where in the user's own files an error came up."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {_shown(error.filename)}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen ")]
    frames = [frame for frame in frames if frame.filename not in (__file__, os.__file__, importlib.__file__)]
    return f" at {_shown(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def _shown(source: str) -> str:
    return escape(source, 200)
