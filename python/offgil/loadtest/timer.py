"""A timer that an event loop serves to the microsecond.

The loops' own timers are rounded to a millisecond, by epoll's timeout: too coarse to say when a
job should have started. The kernel's timerfd is not, and a loop watches it like a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import Callable

_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK
_ABSOLUTE = 1


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class PreciseTimer:
    """Calls a function on the running loop at a time on ``time.monotonic_ns``'s clock.

    A time that has passed means the loop's next turn. Used and closed on the loop's own thread.
    """

    # Python has these as os.timerfd_create from 3.13 on.
    _libc = ctypes.CDLL(None, use_errno=True)

    def __init__(self, callback: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._callback = callback
        self._fd = self._checked(self._libc.timerfd_create(time.CLOCK_MONOTONIC, _CLOEXEC_NONBLOCK))
        # Made once: an open loop sets its timer tens of thousands of times a second.
        setting = _Setting()
        self._value = setting.value
        self._setting = ctypes.byref(setting)
        self._set_time = self._libc.timerfd_settime
        self._loop.add_reader(self._fd, self._expired)

    def set(self, when_ns: int) -> None:
        """Replace the time that it is set to."""
        # Zero would switch it off.
        value = self._value
        value.seconds, value.nanoseconds = divmod(max(when_ns, 1), 1_000_000_000)
        self._checked(self._set_time(self._fd, _ABSOLUTE, self._setting, None))

    def close(self) -> None:
        """Never call again."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _expired(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it was set anew meanwhile
            os.read(self._fd, 8)
            self._callback()

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"timerfd: {os.strerror(code)}")
        return result
