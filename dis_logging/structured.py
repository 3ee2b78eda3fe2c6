"""JSON for structured logs: a serialiser that no value defeats, for the formatters of python-json-logger and structlog."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

# Far below what Python's recursion limit leaves, and deeper than anybody reads.
_MAX_DEPTH = 50
_LEAVES = str | int | float | None
# Options of json.dumps that concern single values; they have had their say by the time everything is plain.
_ABOUT_VALUES = {"default", "cls", "skipkeys", "check_circular"}


def to_json(fields: object, **options: Any) -> str:
    """
    Returns *fields* as JSON and raises nothing because of what is in them, so that an odd value costs no other one.

    What JSON cannot hold becomes text: an object without an encoding is its ``str``, NaN is ``"nan"``, a key that is no
    text is its ``str``, and a container within itself is ``"<dict within itself>"``. The result is JSON by the standard, in
    which `json.dumps` would write NaN.

    Meant as ``json_serializer`` of ``pythonjsonlogger.json.JsonFormatter`` and as ``serializer`` of
    ``structlog.processors.JSONRenderer``; both hand over their own *default*, which is asked first.

    Args:
        fields: what a log record says, mostly a dictionary.
        options: those of `json.dumps`.
    """
    options["allow_nan"] = False
    try:
        return json.dumps(fields, **options)
    except Exception:
        plain = _Plain(_default_of(options)).value(fields)
        return json.dumps(plain, **{name: value for name, value in options.items() if name not in _ABOUT_VALUES})


def _default_of(options: dict[str, Any]) -> Callable[[Any], Any]:
    """Returns what turns an object into something that JSON can hold, or raises."""
    encoder: json.JSONEncoder = (options.get("cls") or json.JSONEncoder)(default=options.get("default"))
    return encoder.default


class _Plain:
    """Makes a value one of those that JSON can hold, piece by piece; *default* is asked for pieces that it cannot hold."""

    def __init__(self, default: Callable[[Any], Any]) -> None:
        self._default = default
        self._around: list[int] = []  # ids of the containers that the value is in

    def value(self, value: object) -> object:
        if isinstance(value, _LEAVES):
            return _leaf(value)
        if id(value) in self._around:
            return f"<{type(value).__name__} within itself>"
        if len(self._around) >= _MAX_DEPTH:
            return _text(value)
        self._around.append(id(value))
        try:
            return self._container(value)
        except Exception:
            return _text(value)
        finally:
            self._around.pop()

    def _container(self, value: object) -> object:
        if isinstance(value, dict):
            return {_text(key): self.value(item) for key, item in list(value.items())}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return self.value(self._default(value))


def _leaf(value: _LEAVES) -> object:
    try:
        json.dumps(value, allow_nan=False)
    except Exception:  # NaN, infinity, an integer of too many digits
        return _text(value)
    return value


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} without text>"
