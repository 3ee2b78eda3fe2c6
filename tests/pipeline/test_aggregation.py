"""Log records that share a DIS record come apart as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dis_logging.pipeline.aggregation import join, split
from dis_logging.pipeline.entry import Entry

PIECES = st.sampled_from(
    [b"a", b'"', b"\n", b"\\", b"\r", b"\t", b"{", "é".encode(), "\u2028".encode(), b"\xff", b"\xed\xb3\xbf"]
)
TEXTS = st.lists(st.lists(PIECES, min_size=1, max_size=8).map(b"".join), min_size=1, max_size=8)


def entry(text: bytes) -> Entry:
    return (text, "key", None, 0, "name", 20, 0.0, "path", 1, None, None, ())


@given(TEXTS, st.integers(1, 60))
def test_records_come_apart_as_they_were_joined(texts: list[bytes], max_bytes: int) -> None:
    records, _ = join([entry(text) for text in texts], max_bytes)

    assert [part for record in records for part in split(record[0])] == texts


@pytest.mark.parametrize("line", [b'"not closed', b'"a" b', b'"\xff"', b'"\\ud800"'])
def test_what_only_looks_like_json_stands_for_itself(line: bytes) -> None:
    assert split(line) == [line]
