"""Each fault as a client sees it, and what the ledger holds afterwards."""

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dis_logging.emulator import DISEmulator
from dis_logging.emulator.app import Operation
from dis_logging.emulator.call import EntryRule
from dis_logging.emulator.faults import (
    Behave,
    Drip,
    Exchange,
    Fault,
    Hang,
    Informational,
    Mangle,
    Refuse,
    RefuseEntries,
    Reply,
    Reset,
    Truncate,
    times,
)
from dis_logging.emulator.messages import Response

Put = Callable[..., tuple[int, Any]]
Connect = Callable[[DISEmulator], socket.socket]
MakeRequest = Callable[..., bytes]
ReadAnswer = Callable[[socket.socket], tuple[int, Any]]


def ledger(dis: DISEmulator) -> list[str]:
    return [stored.text for stored in dis.records("app-logs")]


def codes(result: Any) -> list[str | None]:
    return [each.get("error_code") for each in result["records"]]


class RecordedExchange:
    """Writes down what a fault sends and how long it waits."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.actions: list[bytes | float | None] = []

    def read(self, fraction: float = 1.0) -> None: ...
    def close(self) -> None: ...
    def reset(self) -> None: ...

    def answer(self, *rules: EntryRule) -> Response:
        return Response(200)

    def render(self, response: Response) -> bytes:
        return self._answer

    def send(self, response: Response) -> None:
        self.write(self._answer)

    def write(self, data: bytes) -> None:
        self.actions.append(data)

    def hold(self, seconds: float | None) -> None:
        self.actions.append(seconds)


def read_until_closed(sock: socket.socket) -> bytes:
    chunks = iter(lambda: sock.recv(65536), b"")
    return b"".join(chunks)


# -- one fault ------------------------------------------------------------------------------------------------------


def test_behave_answers_properly(dis: DISEmulator, put: Put) -> None:
    dis.play(Behave())

    status, result = put(dis, "a")

    assert (status, result["failed_record_count"], ledger(dis)) == (200, 0, ["a"])


def test_behave_can_hang_up_after_the_answer(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest, read_answer: ReadAnswer
) -> None:
    dis.play(Behave(hang_up=True))
    sock = connect(dis)
    sock.sendall(make_request(dis, "a"))

    answer = read_answer(sock)

    assert answer[0] == 200
    assert sock.recv(1) == b""


def test_refuse_stores_nothing(dis: DISEmulator, put: Put) -> None:
    dis.play(Refuse(400, "DIS.4303"))

    status, error = put(dis, "a")

    assert (status, error) == (400, {"errorCode": "DIS.4303", "message": "Exceeded traffic control limit."})
    assert ledger(dis) == []
    assert dis.requests[0].error_code == "DIS.4303"


def test_refuse_can_speak_like_the_gateway(dis: DISEmulator, put: Put) -> None:
    dis.play(Refuse(401, "APIGW.0301", "Incorrect IAM authentication information", gateway=True))

    status, error = put(dis, "a")

    assert (status, error["error_code"], error["error_msg"]) == (
        401,
        "APIGW.0301",
        "Incorrect IAM authentication information",
    )


def test_refuse_can_set_headers_and_body(dis: DISEmulator, connect: Connect, make_request: MakeRequest) -> None:
    dis.play(Refuse(503, headers={"retry-after": "3", "content-type": "text/html", "Date": None}, body=b"<html>"))
    sock = connect(dis)
    sock.sendall(make_request(dis, "a", extra="Connection: close\r\n"))

    head, _, body = read_until_closed(sock).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 503 ")
    assert body == b"<html>"
    assert b"\r\nretry-after: 3" in head
    assert head.lower().count(b"content-type") == 1
    assert b"Date:" not in head
    assert dis.refused == {"http_503": 1}


def test_refuse_entries_stores_the_others(dis: DISEmulator, put: Put) -> None:
    dis.play(RefuseEntries("DIS.5000", "busy", where=lambda entry: entry.text == "b"))

    status, result = put(dis, "a", "b", "c")

    assert (status, result["failed_record_count"]) == (200, 1)
    assert result["records"][1] == {"error_code": "DIS.5000", "error_message": "busy"}
    assert ledger(dis) == ["a", "c"]
    assert dis.requests[0].entry_codes == ("DIS.5000",)


def test_refuse_entries_by_place_and_all_of_them(dis: DISEmulator, put: Put) -> None:
    dis.play(RefuseEntries(where={0, 2}), RefuseEntries())

    _, by_place = put(dis, "a", "b", "c")
    _, everything = put(dis, "d", "e")

    assert codes(by_place) == ["DIS.4303", None, "DIS.4303"]
    assert codes(everything) == ["DIS.4303", "DIS.4303"]
    assert ledger(dis) == ["b"]


def test_hang_keeps_silent_and_stores_nothing(dis: DISEmulator, connect: Connect, make_request: MakeRequest) -> None:
    dis.play(Hang())
    sock = connect(dis)
    sock.sendall(make_request(dis, "a"))
    arrived = dis.wait_for(lambda dis: dis.requests and dis.requests[0].entry_count == 1)

    dis.stop()

    assert arrived
    assert sock.recv(1) == b""
    assert ledger(dis) == []
    assert dis.requests[0].status is None


def test_hang_can_store_first(dis: DISEmulator, connect: Connect, make_request: MakeRequest) -> None:
    dis.play(Hang(store=True))
    connect(dis).sendall(make_request(dis, "a"))

    assert dis.wait_for(lambda dis: ledger(dis) == ["a"])
    assert dis.requests[0].status is None


def test_hang_ends_when_the_client_leaves(dis: DISEmulator, connect: Connect, make_request: MakeRequest) -> None:
    before = threading.active_count()
    dis.play(Hang())
    sock = connect(dis)
    sock.sendall(make_request(dis, "a"))
    dis.wait_for(lambda dis: threading.active_count() > before)

    sock.close()

    assert dis.wait_for(lambda dis: threading.active_count() == before)
    assert ledger(dis) == []


def test_hang_for_a_while_answers_late(dis: DISEmulator, put: Put) -> None:
    dis.play(Hang(0.01), Hang(0.01, store=True))

    first, _ = put(dis, "a")
    second, _ = put(dis, "b")

    assert (first, second, ledger(dis)) == (200, 200, ["a", "b"])


@pytest.mark.parametrize(("when", "stored", "entries"), [("before", [], 0), ("body", [], 0), ("after", ["a"], 1)])
def test_reset_breaks_the_connection(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest, when: Any, stored: list[str], entries: int
) -> None:
    dis.play(Reset(when))
    sock = connect(dis)
    sock.sendall(make_request(dis, "a"))

    with pytest.raises(ConnectionResetError):
        sock.recv(1)

    assert ledger(dis) == stored
    assert (dis.requests[0].entry_count, dis.requests[0].status) == (entries, None)


def test_reset_within_the_body_happens_before_it_is_complete(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest
) -> None:
    dis.play(Reset("body"))
    sock = connect(dis)
    request = make_request(dis, "a" * 1000)
    sock.sendall(request[:-100])

    with pytest.raises(ConnectionResetError):
        sock.recv(1)


def test_reset_before_the_body_does_not_wait_for_it(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest
) -> None:
    dis.play(Reset("before"))
    sock = connect(dis)
    head, blank, _ = make_request(dis, "a").partition(b"\r\n\r\n")
    sock.sendall(head + blank)

    with pytest.raises(ConnectionResetError):
        sock.recv(1)


def test_drip_sends_the_proper_answer(dis: DISEmulator, put: Put) -> None:
    dis.play(Drip(0.0))

    status, result = put(dis, "a")

    assert (status, codes(result), ledger(dis)) == (200, [None], ["a"])


def test_drip_sends_single_bytes_with_a_pause_after_each() -> None:
    """Read from a socket, bytes may come together again, so this looks at what the fault does."""
    exchange = RecordedExchange(b"HTTP")

    Drip(0.5).play(exchange)

    assert exchange.actions == [b"H", 0.5, b"T", 0.5, b"T", 0.5, b"P", 0.5]


def test_drip_without_storing_does_not_claim_to_have_stored(dis: DISEmulator, put: Put) -> None:
    dis.play(Drip(0.0, store=False))

    _, result = put(dis, "a")

    assert codes(result) == ["DIS.4303"]
    assert ledger(dis) == []


def test_drip_ends_with_the_emulator(dis: DISEmulator, connect: Connect, make_request: MakeRequest) -> None:
    dis.play(Drip(1000))
    sock = connect(dis)
    sock.sendall(make_request(dis, "a"))
    first = sock.recv(65536)

    dis.stop()

    assert first == b"H"
    assert sock.recv(65536) == b""


@pytest.mark.parametrize("store", [False, True])
def test_reply_is_what_the_test_wants(dis: DISEmulator, put: Put, store: bool) -> None:
    dis.play(Reply(status=202, headers={"X-Custom": "1"}, body=b'{"odd": true}', store=store))

    assert put(dis, "a") == (202, {"odd": True})
    assert ledger(dis) == (["a"] if store else [])
    assert dis.requests[0].status == 202


@pytest.mark.parametrize("store", [False, True])
def test_raw_reply_is_sent_as_it_is(dis: DISEmulator, connect: Connect, make_request: MakeRequest, store: bool) -> None:
    dis.play(Reply(raw=b"not HTTP at all", store=store))
    sock = connect(dis)
    sock.sendall(make_request(dis, "a"))

    assert read_until_closed(sock) == b"not HTTP at all"
    assert ledger(dis) == (["a"] if store else [])


def test_mangle_changes_the_result_of_a_stored_batch(dis: DISEmulator, put: Put) -> None:
    def drop_one(result: dict[str, Any]) -> object:
        del result["records"][0]
        return result

    dis.play(Mangle(drop_one), Mangle(lambda result: [result["failed_record_count"]]))

    _, shorter = put(dis, "a", "b")
    _, other = put(dis, "c")

    assert len(shorter["records"]) == 1
    assert other == [0]
    assert ledger(dis) == ["a", "b", "c"]


def test_mangle_leaves_a_refusal_alone(dis: DISEmulator, put: Put) -> None:
    dis.play(Mangle(lambda result: "mangled"))

    assert put(dis, "a", stream="nope")[1]["errorCode"] == "DIS.4301"


def test_informational_head_comes_first_and_the_answer_late(
    dis: DISEmulator, connect: Connect, make_request: MakeRequest, read_answer: ReadAnswer
) -> None:
    release = threading.Event()
    dis.play(Informational(103, delay=0.001, until=release))
    sock = connect(dis)
    sock.sendall(make_request(dis, "a"))

    first = sock.recv(65536)
    stored = ledger(dis)
    status_before = dis.requests[0].status
    release.set()
    answer = read_answer(sock)

    assert first == b"HTTP/1.1 103 Informational\r\n\r\n"
    assert (stored, status_before) == (["a"], None)
    assert answer[0] == 200


def test_truncate_cuts_the_body_short(dis: DISEmulator, connect: Connect, make_request: MakeRequest) -> None:
    dis.play(Truncate(7))
    sock = connect(dis)
    sock.sendall(make_request(dis, "a"))

    head, _, body = read_until_closed(sock).partition(b"\r\n\r\n")

    assert body == b'{"faile'
    assert b"Content-Length: 7\r\n" not in head
    assert ledger(dis) == ["a"]


def test_a_test_can_write_its_own_fault(dis: DISEmulator, put: Put) -> None:
    class Twice:
        def play(self, exchange: Exchange) -> None:
            exchange.answer()
            exchange.send(exchange.answer())

    dis.play(Twice())

    put(dis, "a")

    assert ledger(dis) == ["a", "a"]


# -- scripts and rules ----------------------------------------------------------------------------------------------


def test_script_is_played_in_order_and_then_the_emulator_behaves(dis: DISEmulator, put: Put) -> None:
    dis.play(*times(2, Refuse(500)), Behave(), Refuse(429))

    statuses = [put(dis, str(number))[0] for number in range(5)]

    assert statuses == [500, 500, 200, 429, 200]
    assert ledger(dis) == ["2", "4"]
    assert dis.unplayed == ()


def test_script_is_for_uploads_only(dis: DISEmulator, put: Put) -> None:
    dis.play(Refuse(500))

    status, _ = put(dis, method="GET", resource="streams/app-logs")

    assert status == 200
    assert dis.unplayed == (Refuse(500),)


def test_rule_holds_until_its_context_ends(dis: DISEmulator, put: Put) -> None:
    with dis.rule(Refuse(503)):
        during = [put(dis, "a")[0], put(dis, "b")[0]]
    after = put(dis, "c")[0]

    assert (during, after) == ([503, 503], 200)


def test_rule_can_be_removed_without_a_context(dis: DISEmulator, put: Put) -> None:
    rule = dis.rule(Refuse(503))
    before = put(dis, "a")[0]

    rule.close()

    assert (before, put(dis, "b")[0]) == (503, 200)


def test_rule_can_look_at_the_request(dis: DISEmulator, put: Put) -> None:
    dis.create_stream("other")

    with dis.rule(Refuse(503), where=lambda request: request.stream_name == "other"):
        statuses = put(dis, "a")[0], put(dis, "a", stream="other")[0]

    assert statuses == (200, 503)


def test_newest_rule_plays_alone(dis: DISEmulator, put: Put) -> None:
    with dis.rule(Refuse(500)), dis.rule(Refuse(503)):
        assert put(dis, "a")[0] == 503


@pytest.mark.parametrize("fault", [Behave(), Drip(0.0), RefuseEntries(where={0})])
def test_rules_for_entries_hold_for_scripted_faults_too(dis: DISEmulator, put: Put, fault: Fault) -> None:
    dis.rule(RefuseEntries("DIS.4302", where=lambda entry: b"poison" in entry.data))
    dis.rule(RefuseEntries("DIS.5000", where=lambda entry: b"venom" in entry.data))
    dis.play(fault)

    _, result = put(dis, "a", "poison", "venom")

    assert codes(result)[1:] == ["DIS.4302", "DIS.5000"]
    assert set(ledger(dis)) <= {"a"}


def test_rule_for_entries_can_look_at_the_request(dis: DISEmulator, put: Put) -> None:
    dis.rule(RefuseEntries(), where=lambda request: request.entry_count > 1)

    assert codes(put(dis, "a")[1]) == [None]
    assert codes(put(dis, "a", "b")[1]) == ["DIS.4303", "DIS.4303"]


def test_set_rule_replaces_all_rules(dis: DISEmulator, put: Put) -> None:
    dis.rule(Refuse(500))
    dis.rule(RefuseEntries())

    dis.set_rule(Refuse(503))
    replaced = put(dis, "a")[0]
    dis.set_rule(None)
    _, result = put(dis, "b")

    assert replaced == 503
    assert codes(result) == [None]


# -- other operations -----------------------------------------------------------------------------------------------


def test_faults_of_another_operation_leave_uploads_alone(dis: DISEmulator, put: Put) -> None:
    dis.play(Refuse(400, "DIS.4303"), operation=Operation.DESCRIBE_STREAM)

    assert put(dis, "x")[0] == 200
    assert put(dis, method="GET", resource="streams/app-logs")[1]["errorCode"] == "DIS.4303"
    assert put(dis, method="GET", resource="streams/app-logs")[0] == 200
    assert dis.unplayed == ()


def test_rule_of_another_operation_leaves_uploads_alone(dis: DISEmulator, put: Put) -> None:
    with dis.rule(Refuse(400, "DIS.4303"), operation=Operation.DESCRIBE_STREAM):
        assert put(dis, "x")[0] == 200
        assert put(dis, method="GET", resource="streams/app-logs")[0] == 400
    assert put(dis, method="GET", resource="streams/app-logs")[0] == 200
