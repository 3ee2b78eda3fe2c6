"""An authenticated request on its way to its operation, and the checked reading of what it asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from dis_logging.client import wire
from dis_logging.client.models import PutRecordsResultEntry
from dis_logging.emulator.messages import ReceivedEntry, RefusalError, Request
from dis_logging.emulator.store import Store

_DECIMAL = re.compile(r"[0-9]{1,19}")


class EntryRule(Protocol):
    """Decides which entries of a batch are refused instead of stored."""

    def refuse(self, index: int, entry: ReceivedEntry) -> PutRecordsResultEntry | None:
        """Returns the result of a refused entry, None for one that may be stored."""
        ...


class Call(NamedTuple):
    """
    What an operation works on.

    Args:
        request: as it came.
        arguments: the variable parts of its path.
        rules: which entries of an upload to refuse.
        store: what there is.
        now: the service's time in milliseconds since the epoch.
    """

    request: Request
    arguments: Mapping[str, str]
    rules: Sequence[EntryRule]
    store: Store
    now: int

    def query(self, name: str) -> str:
        """Returns a query parameter, empty when it is not there; of repeated ones the last."""
        return dict(self.request.head.query).get(name, "")

    def query_count(self, name: str, default: int, high: int) -> int:
        """
        Returns a query parameter from 1 to *high*, *default* when it is not there or empty.

        Raises:
            RefusalError: when it is something else.
        """
        value = self.query(name)
        if not value:
            return default
        number = decimal(value)
        if number is None or not 1 <= number <= high:
            raise RefusalError("DIS.4200", f"Invalid request. {name} must be 1 to {high}.")
        return number

    def fields(self) -> Mapping[str, object]:
        """
        Returns the fields of a JSON body.

        Raises:
            RefusalError: when the body is empty or no JSON object.
        """
        body = self.request.plain_body
        if not body:
            raise RefusalError("DIS.4202")
        document = wire.load_object(body)
        if document is None:
            raise RefusalError("DIS.4300")
        return document


def count_field(fields: Mapping[str, object], name: str, low: int, high: int, default: int | None = None) -> int:
    """
    Returns a number of a JSON body; null is as good as nothing.

    Raises:
        RefusalError: when it is not a number from *low* to *high*, or is missing without a *default*.
    """
    value = fields.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise RefusalError("DIS.4200", f"Invalid request. {name} must be {low} to {high}.")
    return value


def decimal(value: str) -> int | None:
    """Returns the number that *value* is, from 0 to 9223372036854775807 (API reference), None when it is none."""
    number = int(value) if _DECIMAL.fullmatch(value) else None
    return None if number is None or number > wire.MAX_HASH_KEY else number


def partition_number(identifier: str) -> int:
    """
    Returns the number in a partition id of either form.

    Raises:
        RefusalError: when it is no partition id.
    """
    number = wire.partition_number(identifier)
    if number is None:
        raise RefusalError("DIS.4201")
    return number
