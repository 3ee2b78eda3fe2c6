"""Reads one option at a time: the right type, within its range, or a `ConfigurationError` that names it."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, ParamSpec, TypeVar

from dis_logging.errors import ConfigurationError
from dis_logging.escaping import escape

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
# What others call our options.
_OTHER_WORDS = {
    "access_key": "ak",
    "access_key_id": "ak",
    "secret": "sk",
    "secret_key": "sk",
    "secret_access_key": "sk",
    "token": "auth_token",
    "host": "endpoint",
    "url": "endpoint",
    "batch_size": "max_batch_records",
    "buffer_size": "max_buffer_records",
    "queue_size": "max_buffer_records",
    "timeout": "request_timeout",
}
_SETTERS = {"level": "setLevel", "formatter": "setFormatter", "filters": "addFilter"}

EnumType = TypeVar("EnumType", bound=Enum)
Parameters = ParamSpec("Parameters")


def hide_arguments(constructor: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """
    Makes *constructor* raise without the frames in which its arguments are local variables.

    Some of them are secrets, and error reports show local variables. Of an argument that it does not have, the error says
    what may have been meant.
    """

    known = tuple(inspect.signature(constructor).parameters)[1:]

    @functools.wraps(constructor)
    def construct(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            constructor(*args, **kwargs)
            return
        except Exception as error:
            unknown = (
                next((name for name in kwargs if name not in known), None) if isinstance(error, TypeError) else None
            )
            failure = error.with_traceback(None) if unknown is None else _unknown_option(unknown, known)
        del args, kwargs
        failure.__context__ = failure.__cause__ = None
        try:
            raise failure
        finally:
            del failure  # else its traceback and this frame would keep each other alive, and all that calls this one

    return construct


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Returns the rest of a sentence that asks for the name most like *name*, empty if there is none."""
    from difflib import get_close_matches  # a millisecond that only a mistake should cost

    # The first that begins so: 'stream' is more like 'stream_id', and means 'stream_name'.
    similar = [_OTHER_WORDS[name]] if _OTHER_WORDS.get(name) in known else []
    similar = similar or [each for each in known if each.startswith(f"{name}_")] or get_close_matches(name, known, 1)
    return f"; did you mean {similar[0]}?" if similar else ""


def _unknown_option(name: str, known: Sequence[str]) -> TypeError:
    # dictConfig takes these from the handler's section, so they look like options.
    setter = _SETTERS.get(name)
    hint = f"; call {setter} on the handler" if setter and name not in known else did_you_mean(name, known)
    return TypeError(f"unknown option {shown(name)}{hint}")


def shown(value: object) -> str:
    """Returns *value* as an error message may show it: on one line, not endlessly long."""
    return escape(repr(value), 120)


def reason(error: BaseException) -> str:
    """
    Returns what can be told of an error that a configuration has led to: that may hold secrets, and so may the error's text.
    """
    kind = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{kind}: {error.strerror}" + (f": {shown(error.filename)}" if error.filename else "")
    missing = error if isinstance(error, ImportError) else error.__cause__
    if isinstance(missing, ImportError):
        return escape(str(missing), 200)
    if isinstance(error, KeyError) and error.args == ("class",):
        return "it has no class"
    told = re.search(_ARGUMENTS if isinstance(error, TypeError) else _TEXTS_OF_LOGGING, str(error))
    return f"{kind}: {escape(told[0], 200)}" if told else kind


# What Python says of arguments that do not fit; it names them, but does not show their values.
_ARGUMENTS = r"unexpected keyword argument '\w+'|missing (?:a|\d+) required .*arguments?: [\w', ]+"
# What logging says of references, levels and formats.
_TEXTS_OF_LOGGING = r"^(?:Unable to (?:set (?:formatter|target handler)|add filter) '|Unknown level: '|Invalid format '|Style must be ).{0,100}"


def seconds(name: str, value: Any, *, low: float = 0.0, exclusive: bool = False, high: float = 86_400.0) -> float:
    """Returns a duration in seconds between *low* and *high*; numeric strings are accepted."""
    number: float = _number(name, value, float, "a number of seconds")
    if not (low < number if exclusive else low <= number) or number > high:
        bound = "more than" if exclusive else "at least"
        raise ConfigurationError(f"{name} must be {bound} {low:g} s and at most {high:g} s, not {shown(value)}")
    return number


def count(name: str, value: Any, *, low: int = 1, high: int = 2**40, unit: str = "entries") -> int:
    """Returns a whole number of *unit* between *low* and *high*; numeric strings are accepted."""
    number: int = _number(name, value, int, f"a whole number of {unit}")
    if not low <= number <= high:
        raise ConfigurationError(f"{name} must be from {low} to {high} {unit}, not {shown(value)}")
    return number


def _number(name: str, value: Any, kind: type, what: str) -> Any:
    # bool is an int in Python, yet max_batch_records=True is a mistake; so is 1.5 where a whole number is due.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigurationError(f"{name} must be {what}, not {shown(value)}")
    try:
        number = kind(value)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{name} must be {what}, not {shown(value)}") from None
    if not math.isfinite(number) or (isinstance(value, float) and number != value):
        raise ConfigurationError(f"{name} must be {what}, not {shown(value)}")
    return number


def switch(name: str, value: Any) -> bool:
    """Returns a boolean; the strings of `.ini` files and environment variables are accepted."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ConfigurationError(f"{name} must be true or false, not {shown(value)}")


def choice(name: str, value: Any, choices: type[EnumType]) -> EnumType:
    """Returns the member of *choices* that *value* names."""
    if isinstance(value, choices):
        return value
    for member in choices:
        if member.value == value:
            return member
    names = ", ".join(repr(member.value) for member in choices)
    raise ConfigurationError(f"{name} must be one of {names}, not {shown(value)}")


def missing_extra(name: str, extra: str) -> ConfigurationError:
    """Returns the error to raise when the libraries of *extra*, which option *name* asks for, cannot be imported."""
    return ConfigurationError(f"{name}={extra!r} needs libraries that are missing: pip install 'dis-logging[{extra}]'")


def level(name: str, value: Any) -> int:
    """Returns a logging level given as a number, a numeric string or a name known to `logging`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value.strip().isdigit():
            return int(value)
        known = logging.getLevelName(value.strip().upper())
        if isinstance(known, int):
            return known
    raise ConfigurationError(f"{name} must be a logging level such as 'ERROR' or 40, not {shown(value)}")


def text(name: str, value: Any) -> str:
    """Returns a non-empty string without surrounding white space."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be a non-empty string, not {shown(value)}")
    return value.strip()


def secret(name: str, value: Any) -> str:
    """Returns a secret that is fit for an HTTP header; the value is never part of the error."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a string, not {type(value).__name__}")
    stripped = value.strip()
    if not stripped or not stripped.isascii() or not stripped.isprintable():
        raise ConfigurationError(f"{name} must be non-empty printable ASCII (its value is not shown)")
    return stripped


def from_environment(*names: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Returns the first of the environment variables *names* that is set and not empty, else None."""
    environ = os.environ if environ is None else environ
    return next((environ[name] for name in names if environ.get(name)), None)
