"""Worker processes deliver what they log, however they were started and however their pool works."""

from collections import Counter

import pytest

from tests.process.programs import Programs, numbered

START_METHODS = ["fork", "spawn", "forkserver"]


@pytest.mark.parametrize("method", START_METHODS)
def test_processes_and_pools_deliver_what_they_log(programs: Programs, method: str) -> None:
    ended = programs.run(
        """
        import multiprocessing, sys
        from application import make_logger
        logger = make_logger("app")
        def work(name, number):
            logger.info("%s %d", name, number)
        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            work("parent", 0)
            processes = [context.Process(target=work, args=("process", number)) for number in range(2)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            pool = context.Pool(2)
            pool.starmap(work, [("pool", number) for number in range(20)], chunksize=1)
            pool.close()
            pool.join()
            work("parent", 1)
        """,
        method,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("parent", 2) + numbered("process", 2) + numbered("pool", 20)
    assert not ended.reported


@pytest.mark.parametrize("method", START_METHODS)
def test_a_process_pool_executor_delivers_what_its_workers_log(programs: Programs, method: str) -> None:
    ended = programs.run(
        """
        import multiprocessing, sys
        from concurrent.futures import ProcessPoolExecutor
        from application import make_logger
        logger = make_logger("app")
        def work(number):
            logger.info("record %d", number)
        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            with ProcessPoolExecutor(2, mp_context=context) as executor:
                list(executor.map(work, range(20)))
        """,
        method,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 20)


def test_a_pool_of_billiard_celerys_multiprocessing_delivers_what_its_workers_log(programs: Programs) -> None:
    pytest.importorskip("billiard", reason="comes with Celery")

    ended = programs.run(
        """
        import warnings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import billiard
            from billiard.pool import Pool
        from application import make_logger
        logger = make_logger("app")
        def work(name, number):
            logger.info("%s %d", name, number)
        if __name__ == "__main__":
            warnings.simplefilter("ignore")
            work("parent", 0)
            process = billiard.Process(target=work, args=("process", 0))
            process.start()
            process.join()
            pool = Pool(2)
            pool.starmap(work, [("pool", number) for number in range(20)])
            pool.close()
            pool.join()
        """,
        flush_interval=60,
    )

    assert ended.returncode == 0, ended.errors
    assert ended.delivered == numbered("parent", 1) + numbered("process", 1) + numbered("pool", 20)


def test_a_child_that_fails_or_exits_still_delivers(programs: Programs) -> None:
    ended = programs.run(
        """
        import multiprocessing, sys
        from application import make_logger
        logger = make_logger("app")
        def work(number):
            logger.info("record %d", number)
            if number == 0:
                sys.exit(3)
            raise LookupError("unforeseen")
        if __name__ == "__main__":
            context = multiprocessing.get_context("fork")
            for number in range(2):
                process = context.Process(target=work, args=(number,))
                process.start()
                process.join()
                print(process.exitcode)
        """,
        flush_interval=60,
    )

    assert ended.output.split() == ["3", "1"]
    assert ended.delivered == numbered("record", 2)


def test_a_thread_that_outlives_the_childs_main_function_delivers_too(programs: Programs) -> None:
    """Up to Python 3.12 multiprocessing waits for such threads after all that it lets run at the end of a child."""
    ended = programs.run(
        """
        import multiprocessing, threading
        from application import make_logger
        logger = make_logger("app")
        def outlive():
            main_is_over.wait(1)
            for number in range(1, 5):
                logger.info("record %d", number)
        def work():
            logger.info("record 0")
            threading.Thread(target=outlive).start()
            multiprocessing.util.Finalize(None, main_is_over.set, exitpriority=-200)
        main_is_over = threading.Event()
        if __name__ == "__main__":
            process = multiprocessing.get_context("fork").Process(target=work)
            process.start()
            process.join()
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 5)


def test_a_child_started_by_a_thread_delivers(programs: Programs) -> None:
    ended = programs.run(
        """
        import multiprocessing, threading
        from application import make_logger
        logger = make_logger("app")
        def start():
            process = multiprocessing.get_context("fork").Process(target=logger.info, args=("record 1",))
            process.start()
            process.join()
        if __name__ == "__main__":
            logger.info("record 0")
            thread = threading.Thread(target=start)
            thread.start()
            thread.join()
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == numbered("record", 2)


def test_a_record_from_a_fork_hook_does_not_cost_the_child_its_end(programs: Programs) -> None:
    """At that moment the child does not know yet what it is, and it forgets its exit functions afterwards."""
    ended = programs.run(
        """
        import multiprocessing, os
        from application import make_logger
        logger = make_logger("app")
        os.register_at_fork(after_in_child=lambda: logger.info("forked"))
        if __name__ == "__main__":
            process = multiprocessing.get_context("fork").Process(target=logger.info, args=("worked",))
            process.start()
            process.join()
        """,
        flush_interval=60,
    )

    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.delivered == Counter(["forked", "worked"])


def test_children_of_children_do_not_pile_up_what_is_to_be_done_at_their_end(programs: Programs) -> None:
    ended = programs.run(
        """
        import multiprocessing
        from multiprocessing import util
        from application import make_logger
        logger = make_logger("app")
        fork = multiprocessing.get_context("fork")
        def live(generation):
            logger.info("record %d", generation)
            print(len(util._finalizer_registry), flush=True)
            if generation < 4:
                child = fork.Process(target=live, args=(generation + 1,))
                child.start()
                child.join()
        if __name__ == "__main__":
            live(0)
        """,
        flush_interval=60,
    )

    _parent, child, *others = ended.output.split()
    assert (ended.returncode, ended.errors) == (0, "")
    assert others == [child] * 3
    assert ended.delivered == numbered("record", 5)
