"""
Scripted misbehaviour: what a test tells the emulator to do wrong.

Faults play for PutRecords requests, unless another operation is named. They are played in order, one for each request
(`DISEmulator.play`), or stand as a rule until it is removed (`DISEmulator.rule`). What the emulator has stored when a fault
is over, and so what `DISEmulator.records` tells, is in each docstring under *Ledger*; other operations store nothing.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from dis_logging.client.models import PutRecordsResultEntry
from dis_logging.emulator.app import Operation
from dis_logging.emulator.call import EntryRule
from dis_logging.emulator.journal import ReceivedRequest
from dis_logging.emulator.messages import ReceivedEntry, Response, message_of, refusal

# How often a fault that waits for a test's event looks at it: short enough not to slow a test down.
_EVENT_POLL = 0.01


class Exchange(Protocol):
    """One request being served, as a fault sees it. Every method raises OSError when the peer leaves or the emulator stops."""

    def read(self, fraction: float = 1.0) -> None:
        """Reads that part of the body, the whole of it by default."""
        ...

    def answer(self, *rules: EntryRule) -> Response:
        """Reads the body, stores what is to be stored and returns the proper answer, not yet sent."""
        ...

    def render(self, response: Response) -> bytes:
        """Notes *response* as the answer and returns its bytes."""
        ...

    def send(self, response: Response) -> None:
        """Notes and sends *response*."""
        ...

    def write(self, data: bytes) -> None:
        """Sends bytes as they are."""
        ...

    def hold(self, seconds: float | None) -> None:
        """Waits, for ever with None."""
        ...

    def close(self) -> None:
        """Closes the connection in the regular way."""
        ...

    def reset(self) -> None:
        """Closes the connection with a TCP reset."""
        ...


class Fault(Protocol):
    """A way to treat one request; a test may write its own."""

    def play(self, exchange: Exchange) -> None:
        """Serves the request; when it returns with the connection open, the next request is read from it."""
        ...


@dataclass(frozen=True, slots=True)
class Behave:
    """
    Answers properly: a placeholder in a script.

    Ledger: the batch, unless it is refused for a reason of its own.

    Args:
        hang_up: closes the connection right after the answer without having said so, as an idle timeout of a load
            balancer does; the client finds out with its next request.
    """

    hang_up: bool = False

    def play(self, exchange: Exchange) -> None:
        exchange.send(exchange.answer())
        if self.hang_up:
            exchange.close()


@dataclass(frozen=True, slots=True)
class Refuse:
    """
    Refuses the whole request, whoever signed it.

    Ledger: nothing of it.

    Args:
        status: HTTP status, such as 400, 429, 441 or 503.
        code: DIS's error code, such as ``"DIS.4301"``.
        message: text; empty stands for DIS's own text for that code.
        headers: on top of the usual ones, such as ``{"Retry-After": "3"}``; None leaves a usual one out.
        gateway: gives the error in the API gateway's form instead of DIS's own.
        body: sent instead of either form.
    """

    status: int
    code: str = ""
    message: str = ""
    headers: Mapping[str, str | None] = field(default_factory=dict, kw_only=True)
    gateway: bool = field(default=False, kw_only=True)
    body: bytes | None = field(default=None, kw_only=True)

    def play(self, exchange: Exchange) -> None:
        exchange.read()
        message = self.message or message_of(self.code)
        exchange.send(
            refusal(self.status, self.code, message, gateway=self.gateway, headers=self.headers, body=self.body)
        )


@dataclass(frozen=True, slots=True)
class RefuseEntries:
    """
    Answers 200, with some entries refused.

    As a standing rule it holds for every batch, also for one that a scripted fault stores.

    Ledger: the entries that are not refused.

    Args:
        code: error code of the refused entries.
        message: text; empty stands for DIS's own text for that code.
        where: which entries: a function of the entry (``.data``, ``.text``, ``.partition_key``, ...), their places in the
            request from 0, or None for all.
    """

    code: str = "DIS.4303"
    message: str = ""
    where: Callable[[ReceivedEntry], bool] | Collection[int] | None = None

    def play(self, exchange: Exchange) -> None:
        exchange.send(exchange.answer(self))

    def refuse(self, index: int, entry: ReceivedEntry) -> PutRecordsResultEntry | None:
        """Returns the result of a refused entry, None for one that may be stored."""
        if not self._concerns(index, entry):
            return None
        return PutRecordsResultEntry(error_code=self.code, error_message=self.message or message_of(self.code))

    def _concerns(self, index: int, entry: ReceivedEntry) -> bool:
        if self.where is None:
            return True
        return self.where(entry) if callable(self.where) else index in self.where


@dataclass(frozen=True, slots=True)
class Hang:
    """
    Reads the request and keeps silent, until the client closes, the emulator stops, or the time is over.

    Ledger: with *store* the batch, before the silence; without, nothing, unless the time runs out: then the request is
    served as usual, late.

    Args:
        seconds: how long to keep silent before the proper answer; None for ever.
        store: whether the batch is stored before the silence: an outcome that the client cannot know.
    """

    seconds: float | None = None
    store: bool = False

    def play(self, exchange: Exchange) -> None:
        exchange.read()
        response = exchange.answer() if self.store else None
        exchange.hold(self.seconds)
        exchange.send(response or exchange.answer())


@dataclass(frozen=True, slots=True)
class Reset:
    """
    Ends the connection with a TCP reset instead of an answer.

    Ledger: nothing of it with ``"before"`` and ``"body"``, the batch with ``"after"``.

    Args:
        when: ``"before"``: as soon as the headers are there; ``"body"``: with half of the body read; ``"after"``: when the
            batch is stored.
    """

    when: Literal["before", "body", "after"] = "after"

    def play(self, exchange: Exchange) -> None:
        if self.when == "body":
            exchange.read(0.5)
        elif self.when == "after":
            exchange.answer()
        exchange.reset()


@dataclass(frozen=True, slots=True)
class Drip:
    """
    Answers properly, but one byte at a time, head included: every read of the client succeeds, the whole takes ages.

    Ledger: with *store* the batch. Without, nothing; the client reads that all its entries were refused with DIS.4303.

    Args:
        interval: seconds between two bytes.
        store: whether to store the batch.
    """

    interval: float = 0.05
    store: bool = True

    def play(self, exchange: Exchange) -> None:
        response = exchange.answer() if self.store else exchange.answer(RefuseEntries())
        for byte in exchange.render(response):
            exchange.write(bytes((byte,)))
            exchange.hold(self.interval)


@dataclass(frozen=True, slots=True)
class Reply:
    """
    Answers whatever the test wants.

    Ledger: the batch with *store*, else nothing of it.

    Args:
        raw: these bytes as they are, after which the connection is closed; the other parts of the answer are ignored.
        status: HTTP status.
        headers: on top of the usual ones; None leaves a usual one out.
        body: the bytes after the head, declared in Content-Length unless *headers* says otherwise.
        store: whether to store the batch first.
    """

    raw: bytes | None = field(default=None, kw_only=True)
    status: int = field(default=200, kw_only=True)
    headers: Mapping[str, str | None] = field(default_factory=dict, kw_only=True)
    body: bytes = field(default=b"", kw_only=True)
    store: bool = field(default=False, kw_only=True)

    def play(self, exchange: Exchange) -> None:
        exchange.read()
        if self.store:
            exchange.answer()
        if self.raw is None:
            exchange.send(Response(self.status, self.body, self.headers))
            return
        exchange.write(self.raw)
        exchange.close()


@dataclass(frozen=True, slots=True)
class Mangle:
    """
    Stores the batch and answers 200 with a result that a function has changed; for JSON requests only.

    A request that is refused for a reason of its own gets the refusal unchanged.

    Ledger: the batch.

    Args:
        change: gets the result as decoded JSON (``{"failed_record_count": 0, "records": [...]}``) and returns what to send
            as JSON instead; it may change the result in place and return it.
    """

    change: Callable[[dict[str, Any]], object]

    def play(self, exchange: Exchange) -> None:
        response = exchange.answer()
        if response.status == 200:
            response = replace(response, body=json.dumps(self.change(json.loads(response.body))).encode())
        exchange.send(response)


@dataclass(frozen=True, slots=True)
class Informational:
    """
    Sends a 1xx head first and the proper answer late, on the same connection.

    A client that takes the first for the answer reads the second as the answer to its next request.

    Ledger: the batch, before the 1xx head is sent.

    Args:
        status: of the first head, 100 to 199.
        delay: seconds between the two.
        until: when given, the second waits for this event first.
    """

    status: int = 103
    delay: float = 0.0
    until: threading.Event | None = None

    def play(self, exchange: Exchange) -> None:
        response = exchange.answer()
        exchange.write(f"HTTP/1.1 {self.status} Informational\r\n\r\n".encode())
        while self.until is not None and not self.until.is_set():
            exchange.hold(_EVENT_POLL)
        if self.delay:
            exchange.hold(self.delay)
        exchange.send(response)


@dataclass(frozen=True, slots=True)
class Truncate:
    """
    Answers properly up to a point, then closes the connection in the regular way.

    Ledger: the batch.

    Args:
        size: how many bytes of the answer's body to send; the head declares all of them.
    """

    size: int = 10

    def play(self, exchange: Exchange) -> None:
        response = exchange.answer()
        whole = exchange.render(response)
        exchange.write(whole[: len(whole) - len(response.body) + self.size])
        exchange.close()


def times(count: int, fault: Fault) -> tuple[Fault, ...]:
    """Returns *fault* so many times over: ``dis.play(*times(3, Refuse(500)), Behave())``."""
    return (fault,) * count


@dataclass(frozen=True, slots=True, eq=False)  # two equal rules are still two
class _Rule:
    fault: Fault
    where: Callable[[ReceivedRequest], bool] | None
    operation: Operation

    def concerns(self, look: Callable[[], ReceivedRequest]) -> bool:
        return self.where is None or self.where(look())


class Script:
    """
    Which fault plays next. Every method may be called from any thread.

    A scripted fault goes before the rules, and of the rules the newest that concerns the request plays, alone.
    `RefuseEntries` rules are no such choice: all of them hold wherever entries are stored.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()  # guards both below
        self._scripted: defaultdict[Operation, deque[Fault]] = defaultdict(deque)
        self._rules: list[_Rule] = []

    def play(self, *faults: Fault, operation: Operation) -> None:
        """Puts faults at the end of the script for *operation*."""
        with self._lock:
            self._scripted[operation].extend(faults)

    def unplayed(self) -> tuple[Fault, ...]:
        """Returns what is left of the script."""
        with self._lock:
            return tuple(fault for faults in self._scripted.values() for fault in faults)

    def add_rule(
        self, fault: Fault, where: Callable[[ReceivedRequest], bool] | None, operation: Operation
    ) -> Callable[[], None]:
        """Adds a standing rule for *operation* and returns the function that removes it."""
        rule = _Rule(fault, where, operation)
        with self._lock:
            self._rules.append(rule)
        return lambda: self._remove(rule)

    def clear_rules(self) -> None:
        """Removes all rules."""
        with self._lock:
            self._rules.clear()

    def clear(self) -> None:
        """Forgets what is left of the script, and all rules."""
        with self._lock:
            self._scripted.clear()
            self._rules.clear()
        self._on_change()

    def next_fault(self, operation: Operation, look: Callable[[], ReceivedRequest]) -> Fault:
        """
        Returns the fault for a request that has just arrived.

        Args:
            operation: what it asks for.
            look: returns the request with its body; only called when a rule wants to see it, because a fault may depend
                on the body not having been read.
        """
        with self._lock:
            scripted = self._scripted[operation].popleft() if self._scripted[operation] else None
            rules = tuple(rule for rule in reversed(self._rules) if rule.operation is operation)
        if scripted is not None:
            self._on_change()
            return scripted
        standing = (rule.fault for rule in rules if not isinstance(rule.fault, RefuseEntries) and rule.concerns(look))
        return next(standing, Behave())

    def entry_rules(self, look: Callable[[], ReceivedRequest]) -> tuple[RefuseEntries, ...]:
        """Returns the standing `RefuseEntries` that concern a request."""
        with self._lock:
            rules = tuple(self._rules)
        return tuple(rule.fault for rule in rules if isinstance(rule.fault, RefuseEntries) and rule.concerns(look))

    def _remove(self, rule: _Rule) -> None:
        with self._lock:
            if rule in self._rules:
                self._rules.remove(rule)
