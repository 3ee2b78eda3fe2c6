"""
The pytest plugin: the fixture `dis_emulator`, a local DIS that the handlers of the application under test log to.

pytest imports this in every run wherever the package is installed, hence as a module of its own and not of the package:
importing that brings requests and ssl, which costs a tenth of a second, and too early an import of ssl breaks programs
that gevent patches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dis_logging.testing import AssertingEmulator

_STREAM = re.compile(r"(?P<name>[\w-]{1,64})(:(?P<partitions>[1-9][0-9]{0,3}))?", re.ASCII)
_AUTOSTART = "dis_emulator_autostart"
_STREAMS = "dis_streams"
_running = pytest.StashKey["AssertingEmulator"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares the settings."""
    parser.addini(
        _STREAMS,
        "streams that dis_emulator has from the start: a NAME or NAME:PARTITIONS in each line; any other one is made with "
        "1 partition when something is logged to it",
        type="linelist",
        default=["app-logs"],
    )
    parser.addini(
        _AUTOSTART,
        "start dis_emulator before any conftest.py is read, for applications that configure logging when they are "
        "imported, such as Django's",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker."""
    config.addinivalue_line(
        "markers",
        f"{_STREAMS}(streams): partitions of each stream, by its name, that dis_emulator has beside those of the setting.",
    )


# A wrapper goes before all others: pytest-django sets up its project at the same moment.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Starts the emulator early if the settings say so."""
    if early_config.getini(_AUTOSTART):
        resources = ExitStack()
        early_config.add_cleanup(resources.close)
        early_config.stash[_running] = resources.enter_context(_emulator(_streams_of_settings(early_config)))
    return (yield)


@pytest.fixture
def dis_emulator(request: pytest.FixtureRequest) -> Iterator[AssertingEmulator]:
    """
    A local DIS, to which every DISHandler made in the test logs that is not told otherwise by its options.

    See `dis_logging.testing.AssertingEmulator` for what to ask it. What the test does to logging is undone after it.
    """
    streams = _streams_of_settings(request.config)
    for marker in reversed(list(request.node.iter_markers(_STREAMS))):  # the test's own last: it knows best
        streams |= _streams_of_marker(*marker.args, **marker.kwargs)
    with ExitStack() as resources:
        if _running in request.config.stash:
            dis = request.config.stash[_running]
            dis.reset(streams)
        else:
            dis = resources.enter_context(_emulator(streams))
        resources.enter_context(dis.isolated())
        yield dis


@contextmanager
def _emulator(streams: dict[str, int]) -> Iterator[AssertingEmulator]:
    """Runs an emulator and leads handlers to it."""
    from dis_logging.testing import AssertingEmulator, environment_for  # not before it is needed: see above

    dis = AssertingEmulator(streams, new_stream_partitions=1)
    with dis, pytest.MonkeyPatch.context() as environment:
        for name, value in environment_for(dis, next(iter(streams), "app-logs")).items():
            if value is None:
                environment.delenv(name, raising=False)
            else:
                environment.setenv(name, value)
        yield dis


def _streams_of_settings(config: pytest.Config) -> dict[str, int]:
    streams = {}
    for line in filter(None, map(str.strip, config.getini(_STREAMS))):
        match = _STREAM.fullmatch(line)
        if match is None:
            raise pytest.UsageError(f"{_STREAMS}: {line!r} is neither NAME nor NAME:PARTITIONS")
        streams[match["name"]] = int(match["partitions"] or 1)
    return streams


def _streams_of_marker(streams: Any = None, *rest: object, **options: object) -> dict[str, int]:
    if rest or options or not isinstance(streams, dict):
        raise pytest.UsageError(f'the marker {_STREAMS} takes the streams as one dict, such as {{"audit": 3}}')
    return streams
