"""
What gevent asks of whoever waits, connects or starts a thread, once it has replaced `socket` and `threading`.

A thread is then a greenlet of the hub in whose thread it was started, and runs only while that hub does. Nothing in here
imports gevent; as long as nobody else has, nothing in here has an effect.
"""

from __future__ import annotations

import gc
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any


def can_wait() -> bool:
    """Returns whether the caller may wait: gevent's hub, which runs the callbacks of its loop, may not."""
    gevent = _gevent()
    return gevent is None or gevent.getcurrent() is not gevent.get_hub()


def run_in_main_hub(action: Callable[[], object]) -> bool:
    """
    Has a greenlet of gevent's main hub run *action* soon, if a thread that the caller starts would not run; returns whether.

    That is so in a thread of gevent's pool, whose hub stands still as soon as the task is done, and in the hub itself, which
    cannot wait until the thread has started. False also where the main thread has no hub.
    """
    gevent = _gevent()
    if gevent is None or (gevent.get_hub().main_hub and can_wait()):
        return False
    hub = _main_hub(gevent)
    if hub is None:
        return False
    hub.loop.run_callback_threadsafe(gevent.spawn, action)
    return True


def is_kill(error: BaseException) -> bool:
    """Returns whether *error* is what gevent ends a greenlet with, and waits for."""
    gevent = _gevent()
    return gevent is not None and isinstance(error, gevent.GreenletExit)


def current_hub() -> Any:
    """Returns the hub that the calling thread's sockets wait in, None where they wait by themselves."""
    gevent = _gevent("socket")
    return None if gevent is None else gevent.get_hub()


def native_getaddrinfo() -> Callable[..., Any]:
    """Returns `socket.getaddrinfo`, or the system's own in place of gevent's."""
    gevent = _gevent("socket")
    if gevent is None or socket.getaddrinfo is not gevent.socket.getaddrinfo:
        return socket.getaddrinfo
    original: Callable[..., Any] = gevent.monkey.get_original("socket", "getaddrinfo")
    return original


def start_native_thread(action: Callable[[], object], name: str) -> None:
    """
    Runs *action*, which raises nothing, in a daemon thread of the system, even where others are greenlets.

    Args:
        name: of the thread, where it has one.

    Raises:
        RuntimeError: no thread can be had.
    """
    gevent = _gevent()
    if gevent is None:
        threading.Thread(target=action, name=name, daemon=True).start()
    else:
        gevent.monkey.get_original("_thread", "start_new_thread")(action, ())


def _gevent(replacing: str = "threading") -> Any:
    """Returns gevent if it has replaced that module, else None."""
    monkey = sys.modules.get("gevent.monkey")
    return sys.modules["gevent"] if monkey is not None and monkey.is_module_patched(replacing) else None


def _main_hub(gevent: Any) -> Any:
    here = gevent.get_hub()
    if here.main_hub:
        return here
    # No other thread's hub can be asked for. By its type, as some objects run code when asked for their class.
    hubs = (thing for thing in gc.get_objects() if issubclass(type(thing), gevent.hub.Hub))
    return next((hub for hub in hubs if hub.main_hub and hub.loop is not None), None)
