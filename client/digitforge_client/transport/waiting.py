"""Threads that wait for answers, one per pending request.

We avoid gRPC's own futures. They pass every event through one thread per channel, which takes twice the CPU time of
blocking calls. They also leave gRPC in an inconsistent state if Ctrl-C interrupts the main thread at a bad moment.

We avoid ``concurrent.futures.ThreadPoolExecutor`` too. Python waits for its threads at exit, so Ctrl-C would not end a
process while a server is silent.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_Job = tuple["Future[Any]", Callable[[], Any]]


class WaitingThreads:
    """A pool of threads that grows with the number of pending requests.

    The threads end after `end`, or when the pool is garbage-collected. The methods are not thread-safe.
    """

    #: Number of threads. An interrupt can end the constructor before it sets one, and `__del__` needs it.
    _count = 0

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Run *call* in an idle thread. The future can be canceled until the call starts."""
        future: Future[Any] = Future()
        self._jobs.put((future, call))
        if not self._idle.acquire(blocking=False):
            # daemon threads, so that the process can end while a server is silent
            threading.Thread(target=_work, args=(self._jobs, self._idle), name="digitforge-wait", daemon=True).start()
            self._count += 1
        return future

    def end(self) -> None:
        """End each thread as soon as its call returns. A later `submit` starts new threads."""
        self.__del__()
        self._reset()

    def __del__(self) -> None:
        for _ in range(self._count):
            self._jobs.put(None)


def _work(jobs: queue.SimpleQueue[_Job | None], idle: threading.Semaphore) -> None:
    while (job := jobs.get()) is not None:
        future, call = job
        if not future.set_running_or_notify_cancel():
            idle.release()
            continue
        # Count this thread as idle before the future is done. Otherwise the caller could start another thread.
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - the future reports it
            idle.release()
            future.set_exception(error)
        else:
            idle.release()
            future.set_result(result)
            del result
        del job, future, call  # otherwise they stay alive until the next job
