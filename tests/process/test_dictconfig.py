"""Logging is configured anew while records are pending: it takes no longer than it may, and loses nothing."""

from collections import Counter

import pytest

from dis_logging.emulator import DISEmulator
from dis_logging.emulator.faults import Hang
from tests.process.programs import Programs, numbered

SHUTDOWN_TIMEOUT = 2.0
GRACE = 0.5  # what the promise adds to it


def test_configuring_again_and_again_under_load_loses_nothing(programs: Programs) -> None:
    """A record that finds no handler, between the old one and the new, is printed on stderr by logging itself."""
    ended = programs.run(
        """
        import logging, logging.config, threading, time
        from application import make_config
        logging.config.dictConfig(make_config())
        stopping = threading.Event()
        counts = [0] * 4
        def chat(thread):
            logger = logging.getLogger(f"app.{thread}")
            while not stopping.wait(0.0005):
                logger.warning("thread-%d %d", thread, counts[thread])
                counts[thread] += 1
        threads = [threading.Thread(target=chat, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(40):
            logging.config.dictConfig(make_config())
        stopping.set()
        for thread in threads:
            thread.join()
        print(*counts)
        """,
        flush_interval=0.01,
    )

    counts = [int(count) for count in ended.output.split()]
    expected = sum((numbered(f"thread-{thread}", count) for thread, count in enumerate(counts)), Counter[str]())
    application = Counter({text: count for text, count in ended.accounted.items() if text.startswith("thread-")})
    assert ended.returncode == 0
    assert application + Counter(ended.errors.splitlines()) == expected
    assert set(ended.codes) <= {"closed"}


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.1], ids=["quick", "slower", "slow"])
def test_configuring_at_once_with_cold_level_caches_waits_for_nobody(
    dis: DISEmulator, programs: Programs, seconds: float
) -> None:
    """
    `dictConfig` holds logging's module lock while it closes the old handler.

    A thread that sends needs that lock to learn the level of urllib3's loggers whenever their caches are cold.
    """
    with dis.rule(Hang(seconds)):
        ended = programs.run(
            """
            import logging, logging.config, time
            from application import make_config
            logging.config.dictConfig(make_config())
            logger = logging.getLogger("app")
            worst = 0.0
            for turn in range(12):
                for number in range(5):
                    logger.error("turn-%d %d", turn, number)
                time.sleep(0.002 * turn)  # another moment in the life of the batch each time
                logging.Logger.manager._clear_cache()
                started = time.monotonic()
                logging.config.dictConfig(make_config())
                worst = max(worst, time.monotonic() - started)
            print(worst)
            """,
            flush_interval=0.005,
            shutdown_timeout=SHUTDOWN_TIMEOUT,
        )

    texts = Counter({text: count for text, count in ended.delivered.items() if text.startswith("turn-")})
    assert (ended.returncode, ended.errors) == (0, "")
    assert texts == sum((numbered(f"turn-{turn}", 5) for turn in range(12)), Counter[str]())
    assert not ended.reported
    assert float(ended.output) < SHUTDOWN_TIMEOUT


def test_closing_under_loggings_lock_is_not_held_up_by_threads_that_log_on(programs: Programs) -> None:
    """What they hand over by themselves is no sign that the sender gets on, which waits for that lock."""
    ended = programs.run(
        """
        import logging, logging.config, threading, time
        from application import make_config
        logging.config.dictConfig(make_config())
        logger = logging.getLogger("app")
        stopping = threading.Event()
        def chat():
            while not stopping.is_set():
                logger.warning("more")
        thread = threading.Thread(target=chat)
        with logging._lock:
            for name in ("urllib3", "urllib3.connectionpool", "urllib3.util.retry", "dis_logging"):
                logging.getLogger(name)._cache.clear()
            logger.warning("first")
            thread.start()
            started = time.monotonic()
            logging.getLogger().handlers[0].close()
            print(time.monotonic() - started)
        stopping.set()
        thread.join()
        """,
        flush_interval=0.001,
        shutdown_timeout=20,
    )

    assert ended.returncode == 0
    assert float(ended.output) < 10


def test_configuring_with_a_batch_in_flight_to_a_service_that_hangs_is_bounded(
    dis: DISEmulator, programs: Programs
) -> None:
    with dis.rule(Hang()):
        program = programs.start(
            """
            import logging, logging.config, time
            from application import make_config
            logging.config.dictConfig(make_config())
            logger = logging.getLogger("app")
            for number in range(5):
                logger.error("record %d", number)
            input()
            started = time.monotonic()
            logging.config.dictConfig(make_config())
            print(time.monotonic() - started)
            """,
            shutdown_timeout=0.5,
        )
        assert dis.wait_for(lambda dis: len(dis.requests) > 0)
        program.go_on()
        ended = program.wait()

    assert float(ended.output) < 0.5 + GRACE
    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.reported == numbered("record", 5)
    assert ended.codes == {"closed": 5}


@pytest.mark.parametrize("disable", [True, False], ids=["disabled", "kept"])
def test_loggers_of_the_old_configuration_are_disabled_or_kept_as_asked(programs: Programs, disable: bool) -> None:
    ended = programs.run(
        f"""
        import logging, logging.config
        from application import make_config
        old = logging.getLogger("old")
        logging.config.dictConfig(make_config() | {{"disable_existing_loggers": {disable}}})
        old.info("from the old logger")
        logging.getLogger("new").info("from a new logger")
        logging.config.dictConfig(make_config() | {{"disable_existing_loggers": {disable}}})
        logging.getLogger("newer").info("from a newer logger")
        """,
        flush_interval=60,
    )

    texts = {text for text in ended.delivered if text.startswith("from ")}
    always = {"from a new logger", "from a newer logger"}
    assert (ended.returncode, ended.errors) == (0, "")
    assert texts == (always if disable else always | {"from the old logger"})
    assert not ended.reported
