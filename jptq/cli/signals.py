"""SIGTERM and SIGINT end the program, whatever it is doing.

Both raise an exception in the main thread, so that work is left in order. Python swallows one that
arrives inside a callback (of its garbage collector, of JAX), and none arrives while the main thread
is inside a library. So a thread watches: it raises the exception again as long as nobody has caught
it, and ends the process after a while, or at a second signal.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Final

from jptq import files

INTERRUPTED, TERMINATED = 130, 143

_AGAIN_S: Final = 1.0
"""Until the exception is raised again, if nobody has caught it."""

_LEAVE_S: Final = 20.0
"""From the signal to the end of the process, at the latest."""


class Terminated(BaseException):
    """SIGTERM came; not an `Exception`, so that no handler of ours or of the user swallows it."""


_CODES: Final = {signal.SIGTERM: TERMINATED, signal.SIGINT: INTERRUPTED}
_caught = threading.Event()


def install() -> None:
    """Let both signals end the program from now on."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    for number in _CODES:
        signal.signal(number, _raise)
    # The number of a signal is written when it arrives, whatever the main thread does.
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(read,), name="signals", daemon=True).start()


def caught() -> None:
    """Say that an exception of a signal has come to its end: it need not be raised again."""
    _caught.set()


def _raise(number: int, frame: FrameType | None) -> None:
    if _caught.is_set():
        return
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _watch(read: int) -> None:
    first = _next(read)
    threading.Thread(target=_end, args=(first,), name="end", daemon=True).start()
    second = _next(read)
    while second == 0:  # what `_end` has sent
        second = _next(read)
    _leave(second)


def _next(read: int) -> int:
    """Return the number of the next signal that this module knows; 0 for one of its own."""
    while True:
        number = os.read(read, 1)[0]
        if number in _CODES:
            return 0 if _own.acquire(blocking=False) else number


_own = threading.Semaphore(0)
"""How many signals on their way are sent by `_end`."""


def _end(number: int) -> None:
    started = time.monotonic()
    while not _caught.wait(_AGAIN_S) and time.monotonic() - started < _LEAVE_S:
        _own.release()
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    time.sleep(max(0.0, started + _LEAVE_S - time.monotonic()))
    _leave(number)


def _leave(number: int) -> None:
    files.discard()
    word = "interrupted" if number == signal.SIGINT else "terminated"
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{word}, at once\n".encode())
    os._exit(_CODES[signal.Signals(number)])
