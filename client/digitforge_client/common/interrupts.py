"""Signals that end a command: Ctrl-C, SIGTERM and a closed terminal all raise KeyboardInterrupt."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final, Self

#: The signal of a closed terminal. None on Windows.
HANGUP: Final[signal.Signals | None] = getattr(signal, "SIGHUP", None)
#: Signals that end a command cleanly: Ctrl-C, a service manager or container engine, a closed terminal.
ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP else []))
#: A second signal within this time is a copy of the first. The program timeout, for example, sends two: one to the
#: process and one to its process group.
_DUPLICATE_S: Final = 1.0

_announcements: Final[list[Callable[[], None]]] = []  # see `announcing`


class SignalHandlers:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, as Ctrl-C does.

    A second signal ends the process at once. Python runs handlers only between two bytecodes of the main thread, so a
    thread also watches for signals. It sees them during a long computation too.

    Attributes:
        number: number of the signal that raised KeyboardInterrupt; None before.
        exit_status: set it if the signal ends the process, for a quick exit; None otherwise.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.exit_status: int | None = None
        # Registered first, so that it runs last, after everything else has been closed.
        atexit.register(self._skip_teardown)
        self._raised_s = 0.0
        self._watched_s: float | None = None  # when the thread saw the first signal
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def __enter__(self) -> Self:
        handlers = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
        if threading.current_thread() is not threading.main_thread():
            handlers = {}  # only the main thread may set handlers
        # A signal that nohup or a shell made us ignore stays ignored.
        defaults = (signal.SIG_DFL, signal.default_int_handler)
        self._previous = {number: handler for number, handler in handlers.items() if handler in defaults}
        for number in self._previous:
            signal.signal(number, self._handle)
        self._previous_hook, sys.unraisablehook = sys.unraisablehook, self._handle_unraisable
        if handlers:
            self._watched, self._wakeup = socket.socketpair()
            self._wakeup.setblocking(False)
            self._previous_wakeup = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, name="signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.number is not None:
            return  # the process ends
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._previous_hook
        if hasattr(self, "_wakeup"):
            signal.set_wakeup_fd(self._previous_wakeup)
            self._wakeup.close()  # ends the thread

    def _skip_teardown(self) -> None:
        """Leave out the teardown of Python after an interrupt. With TensorFlow, it takes seconds."""
        if self.exit_status is not None:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):  # it may be closed, or None
                    stream.flush()
            os._exit(self.exit_status)

    def _watch(self) -> None:
        """Make announcements after the first signal, and end the process after the second."""
        with self._watched:
            while received := self._watched.recv(1):
                number = received[0]
                # `serve` has handlers of its own.
                if number not in self._previous or signal.getsignal(number) != self._handle:
                    continue
                if self._watched_s is not None:
                    _exit_after(self._watched_s, number)
                    continue
                self._watched_s = time.monotonic()
                if number != HANGUP:  # nobody reads a closed terminal
                    for announce in _announcements:
                        announce()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            _exit_after(self._raised_s, number)
            return
        self.number, self._raised_s = number, time.monotonic()
        if number == HANGUP:
            for terminal in self._terminals:  # writes to a closed terminal fail
                os.dup2(os.open(os.devnull, os.O_WRONLY), terminal)
        raise KeyboardInterrupt

    def _handle_unraisable(self, unraisable: Any) -> None:
        """Send the signal again if Python dropped its KeyboardInterrupt, as it does in finalizers and callbacks."""
        if self.number is None or unraisable.exc_type is not KeyboardInterrupt:
            self._previous_hook(unraisable)
            return
        number, self.number, self._watched_s = self.number, None, None
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()


def _exit_after(first_s: float, number: int) -> None:
    """End the process because of a second signal. Copies of the first signal do not count."""
    # SIGHUP may arrive more than once: from the shell and from the kernel, or from systemd after SIGTERM.
    if number != HANGUP and time.monotonic() - first_s > _DUPLICATE_S:
        os._exit(128 + number)


@contextmanager
def announcing(announce: Callable[[], None]) -> Iterator[None]:
    """Call *announce* when the first signal arrives during the block.

    A thread calls it, at once, even while the main thread computes and cannot raise KeyboardInterrupt yet. Works inside
    the command only.
    """
    _announcements.append(announce)
    try:
        yield
    finally:
        _announcements.remove(announce)


@contextmanager
def held_back() -> Iterator[None]:
    """Raise a KeyboardInterrupt that arrives during the block at the end of the block."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)

    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in received[:1]:
            signal.raise_signal(number)
