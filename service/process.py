"""What a process that serves sets for itself, before its first model.

What each of it gave is in docs/performance.md.
"""

import asyncio
import ctypes
import ctypes.util
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import jax

try:
    import uvloop
except ImportError:  # not for this platform
    uvloop = None


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a server's coroutine to its end, on the quickest event loop there is."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        (uvloop or asyncio).run(main)
    finally:
        for number, handler in before.items():  # uvloop would keep them
            signal.signal(number, handler)


class Signals:
    """What signals mean to a process that serves, from before it reads its first model.

    SIGTERM and SIGINT ask it to stop; before it serves they end it at once, since nothing has been
    accepted yet. (Python's own SIGINT would leave a trace, and Linux keeps a SIGTERM from the first
    process of a container unless it asks for it.) SIGHUP asks it to look for what has changed.
    """

    def __init__(self, hasty: bool = True) -> None:
        """Take the signals over from Python.

        Args:
          hasty: a second SIGTERM or SIGINT ends the process at once.
        """
        self.stop = asyncio.Event()
        self._hasty = hasty
        self._look_again: Callable[[], None] | None = None
        self._changed = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_change)

    def serving(self, look_again: Callable[[], None]) -> None:
        """From here on a stop is a graceful one; `look_again` is called at each SIGHUP."""
        self._look_again = look_again
        if self._changed:
            look_again()

    def _on_stop(self, number: int) -> None:
        if self._look_again is None:
            os._exit(0)  # the thread that compiles a model would hold up any other end
        if self.stop.is_set() and self._hasty:
            os._exit(128 + number)  # a person who asks twice does not want to wait
        self.stop.set()

    def _on_change(self) -> None:
        if self._look_again is None:
            self._changed = True
        else:
            self._look_again()


def prepare() -> None:
    """Makes computing prompt and large messages cheap."""
    # An answer is wanted at once: handing each computation to a thread only costs time.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    _keep_memory()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("service").setLevel(logging.INFO)


def _keep_memory() -> None:
    """Lets malloc keep what large messages free, where it is glibc's.

    Otherwise each message above 128 kB is mapped anew and its pages are faulted in one by one,
    which costs more than all the rest of such a request.
    """
    name = ctypes.util.find_library("c")
    mallopt = getattr(ctypes.CDLL(name), "mallopt", None) if name else None
    if mallopt:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        mallopt(mmap_threshold, 2**30)
        mallopt(trim_threshold, 2**30)
