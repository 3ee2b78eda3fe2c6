"""Log records that share a DIS record come apart as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dis_logging.pipeline.aggregation import join, split
from dis_logging.pipeline.entry import Entry

TEXTS = st.lists(st.text(st.sampled_from('ab"\n\\\r\t{é\u2028'), min_size=1, max_size=8), min_size=1, max_size=8)


def entry(text: str) -> Entry:
    return (text.encode(), "key", None, 0, "name", 20, 0.0, "path", 1, None, None, ())


@given(TEXTS, st.integers(1, 60))
def test_records_come_apart_as_they_were_joined(texts: list[str], max_bytes: int) -> None:
    records, _ = join([entry(text) for text in texts], max_bytes)

    assert [part.decode() for record in records for part in split(record[0])] == texts


@pytest.mark.parametrize("line", [b'"not closed', b'"a" b', b'"\xff"'])
def test_what_only_looks_like_json_stands_for_itself(line: bytes) -> None:
    assert split(line) == [line]


def test_an_escape_without_a_character_stays_one() -> None:
    assert split(b'"\\ud800"') == [b"\\ud800"]
