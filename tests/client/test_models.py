"""The shapes of a PutRecords call."""

import dataclasses

import pytest

from dis_logging import PutRecordsRequestEntry, PutRecordsResult, PutRecordsResultEntry


def test_a_stored_entry_reads_as_the_official_sample_prints_it() -> None:
    entry = PutRecordsResultEntry("shardId-0000000000", "0")

    assert (
        str(entry) == "PutRecordsResultEntry [shardId=shardId-0000000000, sequenceNumber=0, errorCode=, errorMessage=]"
    )


def test_a_refused_entry_reads_the_same_way() -> None:
    entry = PutRecordsResultEntry(error_code="DIS.4303", error_message="Exceeded traffic control limit.")

    assert str(entry) == (
        "PutRecordsResultEntry [shardId=, sequenceNumber=, errorCode=DIS.4303, "
        "errorMessage=Exceeded traffic control limit.]"
    )


def test_a_request_entry_takes_the_arguments_of_the_official_sample() -> None:
    entry = PutRecordsRequestEntry(data="hello", partition_key="1", explicit_hash_key="123")

    assert (entry.data, entry.partition_key, entry.explicit_hash_key) == ("hello", "1", "123")
    assert (entry.partition_id, entry.timestamp) == (None, None)


def test_the_repr_of_a_request_entry_leaves_out_its_payload() -> None:
    entry = PutRecordsRequestEntry(data="personal data", partition_key="k")

    assert "personal" not in repr(entry)
    assert "partition_key='k'" in repr(entry)


@pytest.mark.parametrize(
    "model", [PutRecordsRequestEntry("x"), PutRecordsResultEntry("x"), PutRecordsResult(0, ())], ids=repr
)
def test_models_do_not_change(model: object) -> None:
    name = dataclasses.fields(model)[0].name  # type: ignore[arg-type] # each of them is a dataclass

    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(model, name, "changed")
