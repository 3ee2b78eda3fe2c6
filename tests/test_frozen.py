"""Values that never change behave as frozen dataclasses do."""

import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest

from dis_logging import HandlerStats, PutRecordsRequestEntry, PutRecordsResult, PutRecordsResultEntry


@pytest.mark.parametrize(
    "model",
    [
        PutRecordsRequestEntry(b"x", "key", "1", "0", 2),
        PutRecordsResultEntry("x", "0", "code", "message"),
        PutRecordsResult(1, (PutRecordsResultEntry(),)),
        HandlerStats(1, 2, 3, 4, 5, 6, 7),
    ],
    ids=repr,
)
def test_models_are_compared_by_their_fields_and_survive_a_pickle(model: Any) -> None:
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), dataclasses.replace(model)):
        assert copied == model
        assert isinstance(model, HandlerStats) or hash(copied) == hash(model)
        assert repr(copied) == repr(model)

    first, *_ = dataclasses.fields(model)
    changed = dataclasses.replace(model, **{first.name: "changed"})
    assert changed != model
    assert dataclasses.asdict(changed)[first.name] == "changed"


@pytest.mark.parametrize("kind", [PutRecordsRequestEntry, PutRecordsResultEntry, PutRecordsResult, HandlerStats])
def test_a_constructor_takes_the_fields_in_their_order(kind: type) -> None:
    names = [field.name for field in dataclasses.fields(kind)]

    assert list(inspect.signature(kind).parameters) == names
    assert [getattr(kind(*names), name) for name in names] == names


def test_a_field_is_neither_changed_nor_deleted() -> None:
    stats = HandlerStats(1, 2, 3, 4, 5, 6, 7)

    with pytest.raises(dataclasses.FrozenInstanceError, match="emitted"):
        stats.emitted = 8
    with pytest.raises(dataclasses.FrozenInstanceError, match="emitted"):
        del stats.emitted
    assert stats.emitted == 1


def test_a_value_whose_constructor_was_interrupted_can_be_shown() -> None:
    half_made = PutRecordsResult.__new__(PutRecordsResult)

    assert repr(half_made) == "PutRecordsResult()"
