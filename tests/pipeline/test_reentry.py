"""Which records are refused because their thread is delivering."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from dis_logging import DISHandler
from dis_logging.emulator import DISEmulator
from dis_logging.pipeline import reentry
from dis_logging.pipeline.reentry import Inside, inside, is_delivering, run_delivering
from tests.conftest import STREAM, RememberingHandler, assert_accounts_balance
from tests.interrupts import interrupt_after


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """No thread leaves its mark behind."""
    yield
    assert threading.get_ident() not in inside


def test_a_thread_is_delivering_while_the_action_runs() -> None:
    def within() -> bool:
        assert is_delivering()
        assert run_delivering(is_delivering, fallback_of=7)
        return is_delivering()

    assert not is_delivering()

    assert run_delivering(within)

    assert not is_delivering()


def test_an_error_ends_it_too() -> None:
    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        run_delivering(fail)

    assert not is_delivering()


def test_an_interrupt_anywhere_leaves_no_mark() -> None:
    places = itertools.count()

    while interrupt_after(next(places), KeyboardInterrupt, lambda: run_delivering(is_delivering, fallback_of=7)):
        assert threading.get_ident() not in inside

    assert next(places) > 4


def test_other_threads_are_not_delivering() -> None:
    seen: list[bool] = []

    def look_from_another() -> None:
        thread = threading.Thread(target=lambda: seen.append(is_delivering()))
        thread.start()
        thread.join()

    run_delivering(look_from_another)

    assert seen == [False]


def test_fallbacks_within_one_another_leave_their_trail() -> None:
    trail = run_delivering(lambda: run_delivering(own_trail, fallback_of=2), fallback_of=1)

    assert trail == (1, 2)


def own_trail() -> tuple[int, ...]:
    """Returns the handlers whose fallbacks the calling thread is running."""
    return inside[threading.get_ident()].trail


@pytest.mark.parametrize("name", ["urllib3", "urllib3.connectionpool", "requests", "tenacity.retry", "dis_logging"])
def test_the_libraries_we_send_with_are_refused_while_delivering(name: str) -> None:
    assert Inside(0, (), delivering=True).refuses(name)
    assert not Inside(1, (), delivering=False).refuses(name)


@pytest.mark.parametrize("name", ["web", "urllib3x", "app.urllib3", "dis_logging_demo", "root", ""])
def test_the_application_is_not_refused_while_delivering(name: str) -> None:
    assert not Inside(0, (), delivering=True).refuses(name)


def test_after_a_fork_only_the_calling_thread_counts_and_it_delivers_no_more() -> None:
    inside[-1] = Inside(0, (), delivering=True)

    def fork() -> None:
        reentry.reset_after_fork()
        assert inside == {threading.get_ident(): Inside(1, (7,), delivering=False)}

    inside[threading.get_ident()] = Inside(1, (), delivering=False)
    try:
        run_delivering(fork, fallback_of=7)
    finally:
        del inside[threading.get_ident()]
    assert not inside


# -- through the handler --------------------------------------------------------------------------------------------


@pytest.fixture
def make(dis: DISEmulator, fallback: RememberingHandler, logger: logging.Logger) -> Callable[[], DISHandler]:
    """Returns a function that attaches a handler to *logger*."""

    def make() -> DISHandler:
        handler = DISHandler(**dis.handler_options(STREAM), flush_interval=0.01, fallback=fallback)
        logger.addHandler(handler)
        return handler

    return make


def test_a_formatter_may_log_to_its_own_logger(
    dis: DISEmulator, make: Callable[[], DISHandler], logger: logging.Logger, fallback: RememberingHandler
) -> None:
    class Chatty(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.msg == "one":
                logger.info("formatting")
            return super().format(record)

    handler = make()
    handler.setFormatter(Chatty())

    logger.info("one")

    assert assert_accounts_balance(handler, dis, fallback, ["formatting", "one"]).delivered == 2


def test_a_thread_that_logs_while_another_finds_out_about_a_fork_is_not_disturbed(
    dis: DISEmulator, make: Callable[[], DISHandler], logger: logging.Logger, fallback: RememberingHandler
) -> None:
    """In a child that Python was not told of, several may be about to log before one of them finds out."""

    class Forked(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.msg == "one":
                logger.info("formatting")
            other = threading.Thread(target=reentry.reset_after_fork)
            other.start()
            other.join()
            return super().format(record)

    handler = make()
    handler.setFormatter(Forked())

    logger.info("one")

    assert not inside
    assert assert_accounts_balance(handler, dis, fallback, ["formatting", "one"]).delivered == 2


def test_a_formatter_that_logs_without_end_does_not_recurse_for_ever(
    dis: DISEmulator, make: Callable[[], DISHandler], logger: logging.Logger
) -> None:
    class Endless(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            logger.info("formatting %s", record.getMessage())
            return super().format(record)

    handler = make()
    handler.setFormatter(Endless())

    logger.info("one")
    handler.close()

    texts = [record.text for record in dis.records(STREAM)]
    assert texts[-1] == "one"
    assert len(texts) < 5
    assert handler.stats().buffered == 0


def test_a_filter_that_logs_without_end_does_not_recurse_for_ever(
    dis: DISEmulator, make: Callable[[], DISHandler], logger: logging.Logger
) -> None:
    handler = make()

    def chatty(record: logging.LogRecord) -> bool:
        logger.info("filtering")
        return True

    handler.addFilter(chatty)

    logger.info("one")
    handler.close()

    texts = [record.text for record in dis.records(STREAM)]
    assert texts[-1] == "one"
    assert len(texts) < 5


@pytest.mark.usefixtures("restored_logging")
def test_what_the_http_library_logs_while_sending_does_not_feed_the_handler(
    dis: DISEmulator, fallback: RememberingHandler
) -> None:
    handler = DISHandler(**dis.handler_options(STREAM), flush_interval=0.01, fallback=fallback)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)

    logging.getLogger("web").info("one")
    assert handler.flush(20)
    logging.getLogger("urllib3.connectionpool").debug("the application's own use")
    root.removeHandler(handler)

    assert_accounts_balance(handler, dis, fallback, ["one", "the application's own use"])
