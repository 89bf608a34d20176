"""Merge concurrent requests into batches, like TensorFlow Serving's batching session.

A request joins the newest waiting batch if it has room. Otherwise it starts a new batch. While fewer than
``num_batch_threads`` batches run, a new batch runs at once, or after ``batch_timeout_micros`` if that is above 0. Other
batches wait. When a batch ends, its thread wakes the thread of a request in the next batch, and that thread computes
the batch. So there are no extra threads, and without a timeout a single request is as fast as without batching. The
threads of a computed batch wake each other one by one, because Python is slow when many threads want to run.

A request that is canceled or expires leaves its queue at once and is not computed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt

from digitforge_serving.config.options import BatchingOptions
from digitforge_serving.models import refusal

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
#: (feeds, names of the tensors to compute) => their values
Run = Callable[[Feeds, Sequence[str]], list[Array]]

_QUEUE_TIMEOUT: Final = "Run() timeout exceeded while waiting in batching queue"


class Caller:
    """The client that sent a request. Knows whether the client still waits for the answer. Thread-safe."""

    def __init__(self, deadline: float | None = None) -> None:
        """Create a caller.

        Args:
            deadline: when the client stops waiting, by `time.monotonic`; None: never.
        """
        self._deadline = deadline
        self._cancelled = False
        self._wakes: SimpleQueue[None] = SimpleQueue()  # takes a third of the time of a threading.Event

    def cancel(self) -> None:
        """Mark the call as canceled or ended, and wake its thread."""
        self._cancelled = True
        self.wake()

    def wake(self) -> None:
        """End the current or the next `wait`."""
        self._wakes.put(None)

    def wait(self) -> None:
        """Block until `wake` is called or the deadline passes."""
        with suppress(Empty):
            self._wakes.get(timeout=None if self._deadline is None else max(0.0, self._deadline - time.monotonic()))

    @property
    def gone(self) -> bool:
        """Whether the call was canceled or has ended."""
        return self._cancelled

    def error(self) -> refusal.RefusedError | None:
        """The error for a request that has expired or was canceled. None if the client still waits."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return refusal.RefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        return refusal.cancelled() if self.gone else None


#: (feeds, names of the tensors to compute, caller) => their values
Compute = Callable[[Feeds, Sequence[str], Caller], list[Array]]


class Unbatched:
    """Computes each request alone, in order of arrival, and at most *max_running* of them at the same time."""

    def __init__(self, run: Run, *, max_running: int) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._free = max_running
        self._waiting: dict[Caller, None] = {}  # in order of arrival

    def __call__(self, feeds: Feeds, fetches: Sequence[str], caller: Caller) -> list[Array]:
        """Compute a request.

        Raises:
            RefusedError: the call was canceled, or its deadline has passed.
            tf.errors.OpError: an operation failed.
        """
        if not self._enter(caller):
            self._wait(caller)
        try:
            error = caller.error()
            if error is not None:
                raise error
            return self._run(feeds, fetches)
        finally:
            self._release()

    def _enter(self, caller: Caller) -> bool:
        """Reserve a free slot. If there is none, queue the caller and return False."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            self._waiting[caller] = None
            return False

    def _wait(self, caller: Caller) -> None:
        while True:
            caller.wait()
            with self._lock:
                if caller not in self._waiting:  # `_release` gave it a slot
                    return
                error = caller.error()
                if error is not None:
                    del self._waiting[caller]
                    raise error

    def _release(self) -> None:
        """Give this slot to the next caller, or free it."""
        with self._lock:
            following = next(iter(self._waiting), None)
            if following is None:
                self._free += 1
            else:
                del self._waiting[following]
                following.wake()


@dataclass(eq=False)
class _Task:
    """A request. Its thread computes its batch, or waits until another thread has done that."""

    feeds: Feeds
    rows: int
    caller: Caller
    entered: float = field(default_factory=time.monotonic)
    waits: bool = True  # for `wake`
    batch: _Batch = field(init=False)
    values: list[Array] | None = None
    error: BaseException | None = None

    def wake(self) -> None:
        """Wake the thread of this request."""
        self.waits = False
        self.caller.wake()


@dataclass(eq=False)
class _Batch:
    tasks: deque[_Task]
    rows: int
    computed: bool = False
    #: Not None: a thread waits for more requests to join, or for this event, and then computes the batch.
    full: threading.Event | None = None


class _Queue:
    """Batches with the same tensors, dtypes and shapes, apart from the first dimension."""

    def __init__(self) -> None:
        self.waiting: deque[_Batch] = deque()
        self.running = 0


class Batcher:
    """Merges concurrent requests for one version of a model."""

    def __init__(
        self, run: Run, options: BatchingOptions, observe: Callable[[int, list[float]], None] | None = None
    ) -> None:
        """Create a batcher.

        Args:
            run: computes a batch.
            options: how to batch.
            observe: called for each batch with its number of rows, padding included, and how long each of its requests
                waited, in microseconds.
        """
        self._run = run
        self._options = options
        self._observe = observe
        self._lock = threading.Lock()
        self._queues: dict[Any, _Queue] = {}

    def __call__(self, feeds: Feeds, fetches: Sequence[str], caller: Caller) -> list[Array]:
        """Compute a request together with others.

        Args:
            feeds: tensor name => value; all have the number of rows as their first dimension.
            fetches: names of the tensors to compute.
            caller: the client that waits.

        Returns:
            The values for the rows of this request, in the order of *fetches*.

        Raises:
            RefusedError: the request has too many rows, its inputs or outputs cannot be batched, the queue is full, its
                deadline has passed, or it was canceled.
            tf.errors.OpError: an operation failed for this request.
        """
        task = _Task(feeds, _rows(feeds), caller)
        if task.rows > self._options.max_batch_size:
            raise refusal.invalid_argument(
                f"Task size {task.rows} is larger than maximum input batch size {self._options.max_batch_size}"
            )
        key = (tuple(fetches), tuple((name, value.dtype, value.shape[1:]) for name, value in feeds.items()))
        with self._lock:
            queue = self._queues.setdefault(key, _Queue())
            waits = self._enter(queue, task)
        batch = task.batch
        if waits:
            self._wait(queue, task)
        elif batch.full is not None:
            self._collect(queue, batch, batch.full)
        try:
            if not batch.computed:
                try:
                    self._compute(batch, tuple(fetches))
                finally:
                    self._start_next(queue, key)
        finally:
            self._wake_next(batch)
        if task.error is not None:
            raise task.error
        assert task.values is not None  # a finished task has an error or its values
        return task.values

    def _enter(self, queue: _Queue, task: _Task) -> bool:
        """Put a task into a batch. Return False if this thread must compute the batch now."""
        if queue.waiting and queue.waiting[-1].rows + task.rows <= self._options.max_batch_size:
            batch = task.batch = queue.waiting[-1]
            batch.tasks.append(task)
            batch.rows += task.rows
            if batch.full is not None and batch.rows == self._options.max_batch_size:
                batch.full.set()
            return True
        batch = task.batch = _Batch(deque([task]), task.rows)
        if queue.running < self._options.threads():
            queue.running += 1
            task.waits = False
            if self._options.batch_timeout_micros:
                batch.full = threading.Event()
                queue.waiting.append(batch)
            return False
        if len(queue.waiting) >= self._options.max_enqueued_batches:
            raise refusal.RefusedError(
                grpc.StatusCode.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full; currently "
                f"{len(queue.waiting)} batches enqueued and max_enqueued_batches is "
                f"{self._options.max_enqueued_batches}",
            )
        queue.waiting.append(batch)
        return True

    def _collect(self, queue: _Queue, batch: _Batch, full: threading.Event) -> None:
        """Wait until the batch is full or its timeout is over."""
        full.wait(self._options.batch_timeout_micros / 1e6)
        with self._lock:
            queue.waiting.remove(batch)

    def _wait(self, queue: _Queue, task: _Task) -> None:
        """Wait until the batch is computed, or until this thread must compute it."""
        while True:
            task.caller.wait()
            with self._lock:
                if not task.waits:
                    return
                error = task.caller.error()
                if error is None:
                    continue
                task.waits = False
                if self._withdraw(queue, task) and error.code == grpc.StatusCode.DEADLINE_EXCEEDED:
                    error = refusal.RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, _QUEUE_TIMEOUT)
                raise error

    def _withdraw(self, queue: _Queue, task: _Task) -> bool:
        """Remove a task from its batch. Return False if the batch is already being computed."""
        batch = task.batch
        if batch not in queue.waiting:
            return False
        batch.tasks.remove(task)
        batch.rows -= task.rows
        if not batch.tasks:
            queue.waiting.remove(batch)
        return True

    def _start_next(self, queue: _Queue, key: Any) -> None:
        """Take the next batch, and let the thread of its first task compute it."""
        with self._lock:
            batch = next((batch for batch in queue.waiting if batch.full is None), None)
            if batch is not None:
                queue.waiting.remove(batch)
                batch.tasks[0].wake()
                return
            queue.running -= 1
            if not queue.running and not queue.waiting:
                self._queues.pop(key, None)  # otherwise each new shape would leave a queue in memory

    def _compute(self, batch: _Batch, fetches: tuple[str, ...]) -> None:
        """Set the values or the error of each task in a batch."""
        try:
            self._compute_together(list(batch.tasks), fetches)
        except Exception as error:  # noqa: BLE001 - each task raises its error in its own thread
            if len(batch.tasks) == 1:
                batch.tasks[0].error = error
            else:  # one task may have made the whole batch fail: compute each task alone
                for task in batch.tasks:
                    try:
                        self._compute_together([task], fetches)
                    except Exception as own:  # noqa: BLE001
                        task.error = own
        finally:
            batch.computed = True

    def _wake_next(self, batch: _Batch) -> None:
        """Wake one thread that waits for this batch. It wakes the next one."""
        with self._lock:
            while batch.tasks:
                task = batch.tasks.popleft()
                if task.waits:
                    task.wake()
                    return

    def _compute_together(self, tasks: Sequence[_Task], fetches: tuple[str, ...]) -> None:
        for task in tasks:
            task.error = task.caller.error()
        tasks = [task for task in tasks if task.error is None]
        if not tasks:
            return
        rows = sum(task.rows for task in tasks)
        # Some operations fail for 0 rows, so a batch has at least one.
        padding = self._options.padded(max(1, rows)) - rows
        feeds: Feeds = {}
        for name in tasks[0].feeds:
            parts = [task.feeds[name] for task in tasks]
            if padding:
                parts.append(_padding(parts, padding))
            feeds[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if self._observe is not None:
            now = time.monotonic()
            self._observe(rows + padding, [1e6 * (now - task.entered) for task in tasks])
        values = self._run(feeds, fetches)
        for value in values:
            _check_rows(value, rows + padding)
        start = 0
        for task in tasks:
            task.values = [value[start : start + task.rows] for value in values]
            start += task.rows


def _rows(feeds: Feeds) -> int:
    """The number of rows: the first dimension, which must be the same for all inputs."""
    if not feeds:
        raise refusal.invalid_argument("Batching Run() must have at least one input tensor")
    if any(value.ndim == 0 for value in feeds.values()):
        raise refusal.invalid_argument("Batching Run() input tensors must have at least one dimension")
    sizes = {len(value) for value in feeds.values()}
    if len(sizes) > 1:
        raise refusal.invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def _padding(parts: list[Array], rows: int) -> Array:
    """Copies of the batch's first row. Zeros or empty strings, if the batch has no row."""
    for part in parts:
        if len(part):
            return np.repeat(part[:1], rows, axis=0)
    return np.full((rows, *parts[0].shape[1:]), b"" if parts[0].dtype.kind == "O" else 0, parts[0].dtype)


def _check_rows(value: Array, rows: int) -> None:
    if value.ndim == 0:
        raise refusal.failed_precondition("Batched output tensor has 0 dimensions")
    if len(value) != rows:
        raise refusal.failed_precondition(
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
            "tensors"
        )
