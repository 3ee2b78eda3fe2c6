"""How much the emulator remembers of what came."""

from dis_logging.emulator.app import Operation
from dis_logging.emulator.journal import Journal, ReceivedRequest
from dis_logging.emulator.messages import Head, Request, Response

HEAD = Head("POST", "/v2/p/records", {})


def journal_with(max_requests: int = 100, max_body_bytes: int = 1000) -> Journal:
    return Journal(lambda: None, max_requests, max_body_bytes)


def arrive(journal: Journal, body: bytes = b"") -> ReceivedRequest:
    received = journal.arrived(HEAD, 1, Operation.PUT_RECORDS)
    return journal.completed(received, Request(HEAD, body))


def numbers(journal: Journal) -> list[int]:
    return [request.number for request in journal.requests()]


def test_oldest_requests_are_forgotten_by_their_count() -> None:
    journal = journal_with(max_requests=3)

    for _ in range(5):
        arrive(journal)

    assert numbers(journal) == [3, 4, 5]


def test_oldest_requests_are_forgotten_by_their_size() -> None:
    journal = journal_with(max_body_bytes=1000)

    for size in (400, 400, 200, 300):
        arrive(journal, bytes(size))

    assert numbers(journal) == [2, 3, 4]


def test_newest_request_is_remembered_however_large() -> None:
    journal = journal_with(max_body_bytes=1000)

    for _ in range(2):
        arrive(journal, bytes(2000))

    assert numbers(journal) == [2]


def test_forgotten_request_may_still_be_answered_and_is_counted() -> None:
    """It may have been kept waiting by a fault while many others came."""
    journal = journal_with(max_requests=2)
    waiting = journal.arrived(HEAD, 1, Operation.PUT_RECORDS)
    for _ in range(2):
        arrive(journal)

    waiting = journal.completed(waiting, Request(HEAD, bytes(2000)))
    journal.answered(waiting, Response(400, error_code="DIS.4300"))
    arrive(journal, bytes(900))

    assert numbers(journal) == [3, 4]
    assert journal.refused() == {"DIS.4300": 1}


def test_answer_is_noted_with_what_was_known_of_the_request() -> None:
    journal = journal_with()

    journal.answered(arrive(journal, b"{"), Response(400, error_code="DIS.4300"))

    (request,) = journal.requests()
    assert (request.body_bytes, request.status, request.error_code) == (1, 400, "DIS.4300")
