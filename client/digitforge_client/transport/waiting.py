"""Threads that wait for answers, one for each request that is under way.

gRPC's own futures of one channel share a thread that hands every event on: that takes twice the processor time of calls
that wait for themselves, and leaves gRPC in disorder if Ctrl-C strikes the main thread in the midst of it. Python waits
for the threads of a `concurrent.futures.ThreadPoolExecutor` before it ends, so a process would outlive Ctrl-C for as
long as a server is silent.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_Job = tuple["Future[Any]", Callable[[], Any]]


class Waiters:
    """As many threads as requests were ever under way at once; they end with `end`, or when this is forgotten.

    Its methods are not to be called at the same time.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Call *call* in a thread that has nothing else to do; cancelling works until it has begun."""
        future: Future[Any] = Future()
        self._jobs.put((future, call))
        if not self._idle.acquire(blocking=False):
            # daemons: a process may end while a server is silent
            threading.Thread(target=_work, args=(self._jobs, self._idle), name="digitforge-wait", daemon=True).start()
            self._threads += 1
        return future

    def end(self) -> None:
        """Let the threads end as soon as they have what they wait for; `submit` begins new ones."""
        self.__del__()
        self._begin()

    def __del__(self) -> None:
        for _ in range(self._threads):
            self._jobs.put(None)


def _work(jobs: queue.SimpleQueue[_Job | None], idle: threading.Semaphore) -> None:
    while (job := jobs.get()) is not None:
        future, call = job
        if not future.set_running_or_notify_cancel():
            idle.release()
            continue
        # counted as idle before whoever waits is told, who would begin another thread otherwise
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            idle.release()
            future.set_exception(error)
        else:
            idle.release()
            future.set_result(result)
            del result
        del job, future, call  # or they would live until the next
