"""
What gevent asks of whoever waits, connects or starts a thread, once it has replaced `socket` and `threading`.

A thread is then a greenlet of the hub in whose thread it was started, and runs only while that hub does. Nothing in here
imports gevent; as long as nobody else has, nothing in here has an effect.
"""

from __future__ import annotations

import gc
import select
import socket
import sys
from collections.abc import Callable
from typing import Any


def are_threads_greenlets() -> bool:
    """Returns whether what `threading` starts are greenlets, in which signal handlers may run as well."""
    return _gevent() is not None


def can_wait() -> bool:
    """Returns whether the caller may wait: gevent's hub, which runs the callbacks of its loop, may not."""
    gevent = _gevent()
    return gevent is None or not isinstance(gevent.getcurrent(), gevent.hub.Hub)


def select_here() -> Callable[..., tuple[list[Any], list[Any], list[Any]]]:
    """Returns a `select.select` for the caller: gevent's lets others have their turn even if there is no time to wait."""
    if can_wait():
        return select.select
    original: Callable[..., Any] = sys.modules["gevent.monkey"].get_original("select", "select")
    return original


def run_in_running_hub(action: Callable[[], object]) -> bool:
    """
    Has a hub run *action* in a greenlet soon, and returns whether there is one; for what starts a thread.

    The caller need not wait then until the thread has started: the hub itself cannot, and in vain would it wait for a
    thread that is killed before. It is the main hub if there is one: others end with their threads, and those of gevent's
    pool stand still between tasks.
    """
    gevent = _gevent()
    if gevent is None:
        return False
    hub = gevent.get_hub()
    if not hub.main_hub:
        hub = _main_hub(gevent)
    if hub is None:
        return False
    # No Greenlet, as those may all be killed before they run.
    hub.loop.run_callback_threadsafe(gevent.spawn_raw, action)
    return True


def run_here_after(seconds: float, action: Callable[[], object]) -> None:
    """Has the caller's own hub run *action* in a greenlet after so many *seconds*, unless that is the main one."""
    gevent = _gevent()

    def run() -> None:
        gevent.sleep(seconds)
        action()

    if gevent is not None and not is_in_pool() and not gevent.get_hub().main_hub:
        gevent.spawn_raw(run)


def is_in_pool() -> bool:
    """Returns whether the calling thread is one of gevent's pool, whose hub stands still between tasks and ends with it."""
    worker: Any = getattr(sys.modules.get("gevent.threadpool"), "_WorkerGreenlet", None)
    greenlet = None if worker is None else sys.modules["gevent"].getcurrent()
    while greenlet is not None:
        if isinstance(greenlet, worker):
            return True
        greenlet = greenlet.parent
    return False


def is_kill(error: BaseException) -> bool:
    """Returns whether *error* is what gevent ends a greenlet with, and waits for."""
    gevent = _gevent()
    return gevent is not None and isinstance(error, gevent.GreenletExit)


def raise_in_main(error: BaseException) -> bool:
    """
    Raises in the main greenlet what should end the program, and returns whether that is for gevent to do.

    Python runs a signal handler in whatever greenlet of the main thread is running. The caller goes on, as for the program
    that is not the end.
    """
    gevent = _gevent()
    if gevent is None or not isinstance(error, (SystemExit, KeyboardInterrupt)):
        return False
    hub = gevent.get_hub()
    if not hub.main_hub:
        return False
    hub.handle_system_error(type(error), error, error.__traceback__)
    return True


def current_hub() -> Any:
    """Returns the hub that the calling thread's sockets wait in, None where they wait by themselves."""
    gevent = _gevent("socket")
    return None if gevent is None else gevent.get_hub()


def is_alive(hub: Any) -> bool:
    """Returns whether the thread of *hub* is there, and the hub has not been destroyed."""
    return hub.loop is not None and hub.thread_ident in sys._current_frames()  # noqa: SLF001 - the one list of all threads


def native_getaddrinfo() -> Callable[..., Any] | None:
    """Returns what gevent has replaced by the present `socket.getaddrinfo`, None if that is not gevent's."""
    gevent = _gevent("socket")
    if gevent is None or socket.getaddrinfo is not gevent.socket.getaddrinfo:
        return None
    original: Callable[..., Any] = gevent.monkey.get_original("socket", "getaddrinfo")
    return original


def start_native_thread(action: Callable[[], object]) -> None:
    """
    Runs *action*, which raises nothing and waits for nothing of gevent's, in a thread of the system where gevent has replaced
    those.

    Raises:
        RuntimeError: no thread can be had.
    """
    sys.modules["gevent.monkey"].get_original("_thread", "start_new_thread")(action, ())


def _gevent(replacing: str = "threading") -> Any:
    """Returns gevent if it has replaced that module, else None."""
    # Another thread may just be importing it, and has come so far or not.
    is_patched = getattr(sys.modules.get("gevent.monkey"), "is_module_patched", None)
    return sys.modules["gevent"] if is_patched is not None and is_patched(replacing) else None


def _main_hub(gevent: Any) -> Any:
    """Returns the hub of the main thread, None if it has none; after a fork elsewhere there is no main thread."""
    # No other thread's hub can be asked for. By its type, as some objects run code when asked for their class.
    hubs = (thing for thing in gc.get_objects() if issubclass(type(thing), gevent.hub.Hub))
    return next((hub for hub in hubs if hub.main_hub and is_alive(hub)), None)
