"""What others wrote, on one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dis_logging.escaping import escape


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ünïcödé \U0001f680", "plain text, ünïcödé \U0001f680"),
        ("two\nlines\r\n\tindented", "two\\nlines\\r\\n\\tindented"),
        ("\x00\x1b[31mred\x7f\x9b", "\\x00\\x1b[31mred\\x7f\\x9b"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("exe\u202etxt.gpj\u2066", "exe\\u202etxt.gpj\\u2066"),
        ("half \ud83d of a pair", "half \\ud83d of a pair"),
        ("", ""),
    ],
)
def test_unsafe_characters_become_backslash_escapes(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_a_long_text_is_cut_before_it_is_escaped() -> None:
    assert escape("x" * 30, 10) == "xxxxxxx..."
    assert escape("x" * 10, 10) == "x" * 10


@given(st.text(alphabet=st.characters()))
def test_the_result_is_one_line_that_can_be_encoded(text: str) -> None:
    shown = escape(text)

    assert len(f"<{shown}>".splitlines()) == 1
    assert shown.encode("utf-8") is not None
    assert escape(shown) == shown
