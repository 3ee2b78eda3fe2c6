"""Finds the options of DIS handlers: in the arguments of a command, in a logging configuration, or left to the environment."""

from __future__ import annotations

import argparse
import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from logging.config import DictConfigurator
from typing import Any

from dis_logging import options
from dis_logging.client.client import DISClient
from dis_logging.commands.config_files import load_logging_config
from dis_logging.errors import ConfigurationError, MissingOptionError
from dis_logging.escaping import escape
from dis_logging.handler import DISHandler

# What dictConfig itself takes from a handler's section.
_KEYS_OF_DICT_CONFIG = frozenset({"class", "()", ".", "level", "formatter", "filters"})
_OPTIONS = tuple(inspect.signature(DISHandler.__init__).parameters)[1:]
_CLIENT_OPTIONS = frozenset(inspect.signature(DISClient.__init__).parameters)
_FLAGS = ("endpoint", "region", "project_id")
_ARGUMENTS = {"stream_name": "STREAM", **{name: "--" + name.replace("_", "-") for name in _FLAGS}}
_CFG = "cfg://handlers."


@dataclass(frozen=True)
class HandlerOptions:
    """
    The options of one handler.

    Args:
        label: which handler that is, for people; empty when no configuration names one.
        given: the options by name; what is not here is left to the environment.
        places: where each given option stands, such as ``--region`` or the name of a file.
        errors: why the handler cannot be made, beyond what its constructor says.
        warnings: traps that it can be made with.
    """

    label: str = ""
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)
    places: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def stream_name(self) -> str | None:
        """The option of that name."""
        return self.given.get("stream_name")

    @property
    def for_client(self) -> dict[str, Any]:
        """Those of the given options that a `DISClient` has too."""
        return {name: value for name, value in self.given.items() if name in _CLIENT_OPTIONS}

    @property
    def for_handler(self) -> dict[str, Any]:
        """The given options without a fallback that stands in a configuration: making it could create its file."""
        known = {name: value for name, value in self.given.items() if name in _OPTIONS}
        if isinstance(known.get("fallback"), str | Mapping):
            del known["fallback"]
        return known


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `find_handlers` reads to *parser*."""
    parser.add_argument("stream", nargs="?", metavar="STREAM", help="name of the stream; default: as for the handler")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="take the options of the DIS handler from a dictConfig file (.json, .yaml) or a Django settings module "
        "(mysite.settings, or its .py file, which is executed)",
    )
    parser.add_argument("--handler", metavar="NAME", help="which handler of the configuration, if it has several")
    for name in _FLAGS:
        parser.add_argument(_ARGUMENTS[name], metavar="VALUE", help=f"the option {name}; default: as for the handler")


def find_handlers(arguments: argparse.Namespace, config: Mapping[str, Any] | None = None) -> list[HandlerOptions]:
    """
    Returns the options of each DIS handler that *arguments* mean: those of the configuration, or one made of the
    arguments and the environment.

    Args:
        config: the configuration that they name, if it has been read.

    Raises:
        ConfigurationError: the configuration cannot be read, or has no such handler.
    """
    flags = {name: getattr(arguments, name) for name in _FLAGS}
    flags["stream_name"] = arguments.stream
    overrides = {name: value for name, value in flags.items() if value is not None}
    if arguments.config is None:
        if arguments.handler is not None:
            raise ConfigurationError("--handler needs --config, which names the configuration that has the handler")
        return [HandlerOptions("", overrides, {name: _ARGUMENTS[name] for name in overrides})]
    config = load_logging_config(arguments.config) if config is None else config
    found = _Configuration(config, arguments.config).handlers(arguments.handler)
    return [
        HandlerOptions(
            each.label,
            {**each.given, **overrides},
            {**each.places, **{name: _ARGUMENTS[name] for name in overrides}},
            each.errors,
            each.warnings,
        )
        for each in found
    ]


def find_handler(arguments: argparse.Namespace) -> HandlerOptions:
    """
    Returns the options of the one handler that *arguments* mean.

    Raises:
        ConfigurationError: there is none, there are several, or it cannot be made.
    """
    first, *others = find_handlers(arguments)
    if others:
        labels = ", ".join(each.label for each in (first, *others))
        raise ConfigurationError(f"there are several DIS handlers ({labels}): choose one with --handler")
    if first.errors:
        raise ConfigurationError(f"{first.label}: {first.errors[0]}")
    return first


def how_to_give(missing: MissingOptionError, arguments: Mapping[str, str] = _ARGUMENTS) -> str:
    """Returns what to do about a missing option for who runs a command, which takes few of them as *arguments*."""
    where = arguments.get(missing.option)
    argument = f"give {where}, or " if where else ""
    return f"{missing.option} is missing: {argument}set {' or '.join(missing.variables)}"


class _Configuration:
    """A logging configuration in the form of dictConfig; *source* is what the user called it."""

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        self._config = config
        self._source = escape(source, 200)
        self._sections = _mapping(config.get("handlers"))

    def handlers(self, wanted: str | None) -> list[HandlerOptions]:
        """Returns the options of the DIS handler of that name, or of all."""
        names = [name for name, section in self._sections.items() if _is_dis_handler(section)]
        if not names:
            raise ConfigurationError(f"{self._source} has no handler of the class dis_logging.DISHandler")
        if wanted is not None and wanted not in names:
            raise ConfigurationError(
                f"{self._source} has no DIS handler {options.shown(wanted)}, but {', '.join(map(repr, names))}"
            )
        return [self._read(name) for name in names if wanted in (None, name)]

    def _read(self, name: str) -> HandlerOptions:
        section = self._sections[name]
        given, errors = self._options(name)
        unknown = [option for option in given if option not in _OPTIONS]
        errors += [_unknown(option) for option in unknown]
        errors += self._fallback_errors(section)
        return HandlerOptions(
            f"handler {name!r}",
            given,
            dict.fromkeys(given, self._source),
            tuple(errors),
            tuple(self._warnings(name, section)),
        )

    def _options(self, name: str) -> tuple[dict[str, Any], list[str]]:
        """Returns the options of a handler as dictConfig would pass them, and what cannot be resolved."""
        # It resolves ext:// and cfg:// when an item is taken out. The fallback is taken as it stands: it means a handler.
        section = DictConfigurator({**self._config}).config["handlers"][name]
        given: dict[str, Any] = {}
        errors = []
        for option in self._sections[name]:
            if option in _KEYS_OF_DICT_CONFIG:
                continue
            try:
                given[option] = self._sections[name][option] if option == "fallback" else section[option]
            except Exception as error:  # whatever importing the user's module raises
                errors.append(f"{option} cannot be resolved ({type(error).__name__})")
        return given, errors

    # -- traps --------------------------------------------------------------------------------------------------------

    def _warnings(self, name: str, section: Mapping[str, Any]) -> list[str]:
        fallback = self._referred(section.get("fallback"))
        found = [
            self._warning_of_root(name, section),
            self._warning_of_loops(name, section),
            self._warning_of_quiet_fallback(section, fallback),
            self._warning_of_no_logger(name),
            self._warning_of_disabled_loggers(),
        ]
        return [warning for warning in found if warning]

    def _warning_of_root(self, name: str, section: Mapping[str, Any]) -> str:
        root = self._root()
        level = _level(root.get("level"), logging.WARNING)
        if not self._reaches(root, name) or max(level, _level(section.get("level"), logging.NOTSET)) > logging.DEBUG:
            return ""
        return (
            "root logs at DEBUG into this handler: the debug records of every library go to DIS, and whatever secrets "
            "they hold; give the handler or root the level INFO"
        )

    def _warning_of_loops(self, name: str, section: Mapping[str, Any]) -> str:
        if "fallback" not in section or not self._leads_to(section["fallback"], name, set()):
            return ""
        return (
            "its fallback leads back to itself: what DIS does not take ends as lines on stderr; "
            "let the fallback write to a file"
        )

    def _warning_of_quiet_fallback(self, section: Mapping[str, Any], fallback: Mapping[str, Any]) -> str:
        quiet = _level(fallback.get("level"), logging.NOTSET)
        if quiet <= _level(section.get("level"), logging.NOTSET):
            return ""
        lost = logging.getLevelName(quiet)
        return f"its fallback has the level {lost}: undelivered records below {lost} are written nowhere"

    def _warning_of_no_logger(self, name: str) -> str:
        loggers = [self._root(), *map(_mapping, _mapping(self._config.get("loggers")).values())]
        if any(self._reaches(logger, name) for logger in loggers) or self._is_fallback(name):
            return ""
        return "no logger of the configuration has this handler: add it to the handlers of root or of a logger"

    def _warning_of_disabled_loggers(self) -> str:
        if self._config.get("incremental") or self._config.get("disable_existing_loggers", True) is False:
            return ""
        return (
            "disable_existing_loggers is not False: loggers that exist before the configuration, such as those of modules "
            "imported earlier, fall silent"
        )

    def _fallback_errors(self, section: Mapping[str, Any]) -> list[str]:
        """Returns what is wrong with a fallback that is named: nobody holds a handler that the configuration lacks."""
        target = _name_of(section.get("fallback"))
        if target is None or target in self._sections:
            return []
        missing = f"fallback: there is no handler named {options.shown(target)} in the configuration"
        return [f"{missing}, and dictConfig forgets those that were made before; define it there"]

    def _root(self) -> Mapping[str, Any]:
        loggers = _mapping(self._config.get("loggers"))
        return _mapping(self._config.get("root")) or _mapping(loggers.get("")) or _mapping(loggers.get("root"))

    def _reaches(self, logger: Mapping[str, Any], name: str) -> bool:
        """Returns whether the records of a logger come to a handler, directly or through others."""
        return any(
            self._leads_to(handler, name, set(), through_fallback=False) for handler in _list(logger.get("handlers"))
        )

    def _is_fallback(self, name: str) -> bool:
        others = (section for other, section in self._sections.items() if other != name)
        return any(_name_of(_mapping(section).get("fallback")) == name for section in others)

    def _leads_to(self, reference: Any, name: str, seen: set[str | int], *, through_fallback: bool = True) -> bool:
        """Returns whether what is given to the handler that *reference* means may arrive at the handler *name*."""
        target = _name_of(reference)
        if target == name:
            return True
        known_by = id(reference) if target is None else target  # a section may contain itself
        if known_by in seen:
            return False
        seen.add(known_by)
        section = self._referred(reference)
        onward = [section.get("target"), *_list(section.get("handlers"))]  # of a MemoryHandler, of a QueueHandler
        if through_fallback and _is_dis_handler(section):
            onward.append(section.get("fallback"))
        return any(self._leads_to(each, name, seen, through_fallback=through_fallback) for each in onward if each)

    def _referred(self, reference: Any) -> Mapping[str, Any]:
        """Returns the section of the handler that *reference* means: its name, a cfg:// reference, or the section itself."""
        target = _name_of(reference)
        return _mapping(reference) if target is None else _mapping(self._sections.get(target))


def _is_dis_handler(section: Any) -> bool:
    factory = _mapping(section).get("()", _mapping(section).get("class"))
    if isinstance(factory, str):
        if factory.startswith("logging."):
            return False
        try:
            factory = DictConfigurator({"version": 1}).resolve(factory)
        except Exception:  # another handler, whose module cannot be imported here
            return False
    return isinstance(factory, type) and issubclass(factory, DISHandler)


def _unknown(option: str) -> str:
    return f"unknown option {options.shown(option)}{options.did_you_mean(str(option), _OPTIONS)}"


def _name_of(reference: Any) -> str | None:
    """Returns the name of the handler in a reference, None when it is something else."""
    if not isinstance(reference, str):
        return None
    return reference.removeprefix(_CFG) if not reference.startswith(("ext://",)) else None


def _level(value: Any, default: int) -> int:
    try:
        return default if value is None else options.level("level", value)
    except ConfigurationError:  # dictConfig says so itself
        return default


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
