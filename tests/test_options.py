"""One option at a time: the right type, within its range, or an error that names it."""

import logging
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest

from dis_logging import ConfigurationError, options


class Colour(str, Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("value", "expected"), [(2, 2.0), (0.5, 0.5), ("1.5", 1.5), (" 3 ", 3.0), ("1e1", 10.0), (0, 0.0)]
)
def test_seconds_are_numbers_or_numeric_strings(value: object, expected: float) -> None:
    assert options.seconds("wait", value) == expected


@pytest.mark.parametrize(
    "value", [-1, "-0.1", float("nan"), "nan", float("inf"), "inf", "soon", "", None, True, False, [1], 86_401, 10**400]
)
def test_other_seconds_are_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^wait must be"):
        options.seconds("wait", value)


def test_a_bound_may_be_exclusive() -> None:
    with pytest.raises(ConfigurationError, match="wait must be more than 0 s"):
        options.seconds("wait", 0, exclusive=True)

    assert options.seconds("wait", 0.001, exclusive=True) == 0.001


@pytest.mark.parametrize(("value", "expected"), [(1, 1), ("500", 500), (" 7 ", 7), (3.0, 3), ("1_000", 1000)])
def test_counts_are_whole_numbers_or_numeric_strings(value: object, expected: int) -> None:
    assert options.count("size", value) == expected


@pytest.mark.parametrize(
    "value", [0, -5, "0", 1.5, "1.5", float("nan"), float("inf"), "many", "", None, True, b"5", 2**41, "9" * 5000]
)
def test_other_counts_are_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^size must be"):
        options.count("size", value)


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), (False, False), ("yes", True), (" OFF ", False), ("1", True), (0, False)]
)
def test_switches_take_the_words_of_ini_files(value: object, expected: bool) -> None:
    assert options.switch("flag", value) is expected


@pytest.mark.parametrize("value", ["maybe", "", None, 2, []])
def test_other_switches_are_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigurationError, match="flag must be true or false"):
        options.switch("flag", value)


def test_a_choice_is_a_member_or_its_value() -> None:
    assert options.choice("colour", "red", Colour) is Colour.RED
    assert options.choice("colour", Colour.BLUE, Colour) is Colour.BLUE


@pytest.mark.parametrize("value", ["green", "RED", None, 1, ["red"]])
def test_another_choice_is_refused_with_what_there_is(value: object) -> None:
    with pytest.raises(ConfigurationError, match="colour must be one of 'red', 'blue', not"):
        options.choice("colour", value, Colour)


@pytest.mark.parametrize(
    ("value", "expected"), [("ERROR", 40), ("warning", 30), (35, 35), ("35", 35), (0, 0), (" info ", 20)]
)
def test_levels_are_numbers_or_known_names(value: object, expected: int) -> None:
    assert options.level("level", value) == expected


def test_a_level_may_be_one_that_the_application_added() -> None:
    logging.addLevelName(25, "NOTICE")

    assert options.level("level", "notice") == 25


@pytest.mark.parametrize("value", ["LOUD", "", None, True, 1.5])
def test_other_levels_are_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigurationError, match="level must be a logging level"):
        options.level("level", value)


@pytest.mark.parametrize("value", ["", "   ", None, 5, b"text"])
def test_text_must_not_be_empty(value: object) -> None:
    with pytest.raises(ConfigurationError, match="where must be a non-empty string"):
        options.text("where", value)


def test_text_and_secrets_lose_the_white_space_around_them() -> None:
    assert options.text("where", " here\n") == "here"
    assert options.secret("sk", "key\n") == "key"


@pytest.mark.parametrize("value", ["", "  ", "canary\nwith a line break", "canary\x00", "canäry", b"canary", 5, None])
def test_an_unfit_secret_is_refused_without_being_shown(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^sk must be") as caught:
        options.secret("sk", value)

    assert "canary" not in str(caught.value)
    assert "canäry" not in str(caught.value)


@pytest.mark.parametrize("read", [options.seconds, options.count, options.level, options.switch, options.text])
def test_an_offending_value_is_shown_on_one_short_line(read: Callable[[str, Any], object]) -> None:
    value = ["first line\nsecond line\u2028" + "x" * 1000]

    with pytest.raises(ConfigurationError) as caught:
        read("option", value)

    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 300
    assert "first line" in message


def test_the_first_variable_that_is_set_and_not_empty_counts() -> None:
    environ = {"EMPTY": "", "SECOND": "two", "THIRD": "three"}

    assert options.from_environment("MISSING", "EMPTY", "SECOND", "THIRD", environ=environ) == "two"
    assert options.from_environment("MISSING", "EMPTY", environ=environ) is None
