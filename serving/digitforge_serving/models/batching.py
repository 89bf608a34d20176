"""Requests that arrive together are computed together, as TensorFlow Serving's batching session does.

A request that finds a computing thread free starts at once. While all are busy, requests gather in batches; whoever
finishes a batch hands the next one to the thread of a request that waits in it. So nothing passes through a thread of
its own, and a lone request pays nothing for being batched.

Nothing is computed for a caller who has gone: a cancelled or expired request leaves its queue, and its thread, at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt

from digitforge_serving.config.options import BatchingOptions
from digitforge_serving.models import refusal

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
#: feeds, names of the tensors wanted => their values
Run = Callable[[Feeds, Sequence[str]], list[Array]]

_WAITED_TOO_LONG: Final = "Run() timeout exceeded while waiting in batching queue"


class Caller:
    """Whoever waits for an answer, until a deadline or until they leave. Safe to use from any thread."""

    def __init__(self, deadline: float | None = None, *, hung_up: Callable[[], bool] = lambda: False) -> None:
        """Begin to wait.

        Args:
            deadline: when the caller gives up, by `time.monotonic`; None: never.
            hung_up: says whether they left without a word; asked before anything is computed for them.
        """
        self._deadline = deadline
        self._hung_up = hung_up
        self._left = False
        self._woken = threading.Event()

    def leave(self) -> None:
        """Stop waiting: the call was cancelled."""
        self._left = True
        self.wake()

    def wake(self) -> None:
        """End `wait`, now or as soon as it begins."""
        self._woken.set()

    def wait(self) -> None:
        """Wait to be woken, until the deadline at most."""
        self._woken.wait(None if self._deadline is None else max(0.0, self._deadline - time.monotonic()))

    @property
    def gone(self) -> bool:
        """Whether nobody would read an answer."""
        return self._left or self._hung_up()

    def refused(self) -> refusal.RefusedError | None:
        """Why nothing should be computed for the caller any more; None while they wait."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return refusal.RefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        return refusal.cancelled() if self.gone else None


#: feeds, names of the tensors wanted, for whom => their values
Compute = Callable[[Feeds, Sequence[str], Caller], list[Array]]


class OneByOne:
    """Computes requests as they are, at most so many at a time, in the order in which they came."""

    def __init__(self, run: Run, *, at_once: int) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._free = at_once
        self._waiting: deque[Caller] = deque()

    def __call__(self, feeds: Feeds, fetches: Sequence[str], caller: Caller) -> list[Array]:
        """Compute a request.

        Raises:
            RefusedError: the caller has gone, or the deadline has passed.
            tf.errors.OpError: an operation refused this request's input.
        """
        if not self._enter(caller):
            self._wait(caller)
        try:
            refused = caller.refused()
            if refused is not None:
                raise refused
            return self._run(feeds, fetches)
        finally:
            self._pass_on()

    def _enter(self, caller: Caller) -> bool:
        """Take a turn; false where it must be waited for."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            self._waiting.append(caller)
            return False

    def _wait(self, caller: Caller) -> None:
        while True:
            caller.wait()
            with self._lock:
                if caller not in self._waiting:  # whose turn it is
                    return
                refused = caller.refused()
                if refused is not None:
                    self._waiting.remove(caller)
                    raise refused

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().wake()
            else:
                self._free += 1


@dataclass(eq=False)
class _Task:
    """A request in a batch; its own thread waits until it is told of a result or of a batch to compute."""

    feeds: Feeds
    rows: int
    caller: Caller
    entered: float = field(default_factory=time.monotonic)
    told: bool = False
    to_lead: _Batch | None = None
    values: list[Array] | None = None
    error: BaseException | None = None

    def tell(self) -> None:
        """Wake the thread of this request."""
        self.told = True
        self.caller.wake()


@dataclass(eq=False)
class _Batch:
    tasks: list[_Task]
    rows: int
    led: bool = False  # a thread waits for others to join, and will compute it
    full: threading.Event = field(default_factory=threading.Event)


class _Queue:
    """Batches of one kind: same tensors, same shapes beyond the first dimension."""

    def __init__(self) -> None:
        self.waiting: deque[_Batch] = deque()
        self.running = 0


class Batcher:
    """Merges the requests for one version of a model."""

    def __init__(
        self, run: Run, options: BatchingOptions, observe: Callable[[int, list[float]], None] | None = None
    ) -> None:
        """Merge calls of *run*; *observe* is told a batch's rows and how many microseconds its requests waited."""
        self._run = run
        self._options = options
        self._observe = observe
        self._lock = threading.Lock()
        self._queues: dict[Any, _Queue] = {}

    def __call__(self, feeds: Feeds, fetches: Sequence[str], caller: Caller) -> list[Array]:
        """Compute a request together with others.

        Args:
            feeds: tensor name => value; the first dimension of all of them is the number of rows.
            fetches: names of the tensors wanted.
            caller: who waits for it.

        Returns:
            The values of this request's rows.

        Raises:
            RefusedError: too many rows, too many batches waiting, a tensor without rows, the deadline passed, or the
                caller has gone.
            tf.errors.OpError: an operation refused this request's input.
        """
        task = _Task(feeds, _rows(feeds), caller)
        if task.rows > self._options.max_batch_size:
            raise refusal.invalid_argument(
                f"Task size {task.rows} is larger than maximum input batch size {self._options.max_batch_size}"
            )
        key = (tuple(fetches), tuple((name, value.dtype, value.shape[1:]) for name, value in feeds.items()))
        with self._lock:
            queue = self._queues.setdefault(key, _Queue())
            batch = self._enter(queue, task)
        if batch is None:
            batch = self._wait(queue, task)
        elif self._options.batch_timeout_micros:
            self._let_others_join(queue, batch)
        if batch is not None:
            try:
                self._compute(batch, tuple(fetches))
            finally:
                self._pass_on(queue, key)
        if task.error is not None:
            raise task.error
        assert task.values is not None  # a task that is told of neither an error nor a batch has its values
        return task.values

    def _enter(self, queue: _Queue, task: _Task) -> _Batch | None:
        """The batch that this thread computes; None when another will."""
        if queue.waiting and queue.waiting[-1].rows + task.rows <= self._options.max_batch_size:
            batch = queue.waiting[-1]
            batch.tasks.append(task)
            batch.rows += task.rows
            if batch.rows == self._options.max_batch_size:
                batch.full.set()
            return None
        batch = _Batch([task], task.rows)
        if queue.running < self._options.threads():
            queue.running += 1
            if self._options.batch_timeout_micros:
                batch.led = True
                queue.waiting.append(batch)
            return batch
        if len(queue.waiting) >= self._options.max_enqueued_batches:
            raise refusal.RefusedError(
                grpc.StatusCode.UNAVAILABLE,
                "The batch scheduling queue to which this task was submitted is full: "
                f"{len(queue.waiting)} batches wait",
            )
        queue.waiting.append(batch)
        return None

    def _let_others_join(self, queue: _Queue, batch: _Batch) -> None:
        batch.full.wait(self._options.batch_timeout_micros / 1e6)
        with self._lock:
            queue.waiting.remove(batch)

    def _wait(self, queue: _Queue, task: _Task) -> _Batch | None:
        """Wait for the result, or for a batch to compute."""
        while True:
            task.caller.wait()
            with self._lock:
                if task.told:
                    return task.to_lead
                refused = task.caller.refused()
                if refused is None:
                    continue
                if self._withdraw(queue, task) and refused.code == grpc.StatusCode.DEADLINE_EXCEEDED:
                    refused = refusal.RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, _WAITED_TOO_LONG)
                raise refused

    def _withdraw(self, queue: _Queue, task: _Task) -> bool:
        """Take a task out of the batch in which it waits; false where that is being computed."""
        for batch in queue.waiting:
            if task in batch.tasks:
                batch.tasks.remove(task)
                batch.rows -= task.rows
                if not batch.tasks:
                    queue.waiting.remove(batch)
                return True
        return False

    def _pass_on(self, queue: _Queue, key: Any) -> None:
        """Hand the next batch to a thread that waits in it."""
        with self._lock:
            batch = next((batch for batch in queue.waiting if not batch.led), None)
            if batch is not None:
                queue.waiting.remove(batch)
                leader = batch.tasks[0]
                leader.to_lead = batch
                leader.tell()
                return
            queue.running -= 1
            if not queue.running and not queue.waiting:
                self._queues.pop(key, None)  # shapes come and go; queues for them must not pile up

    def _compute(self, batch: _Batch, fetches: tuple[str, ...]) -> None:
        """Give every task of a batch its values or its error, and wake its thread."""
        try:
            self._compute_together(batch.tasks, fetches)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the tasks
            if len(batch.tasks) == 1:
                batch.tasks[0].error = error
            else:  # one of them may have spoilt it for the others: each for itself
                for task in batch.tasks:
                    try:
                        self._compute_together([task], fetches)
                    except Exception as own:  # noqa: BLE001
                        task.error = own
        finally:
            for task in batch.tasks:
                task.tell()

    def _compute_together(self, tasks: list[_Task], fetches: tuple[str, ...]) -> None:
        for task in tasks:
            task.error = task.caller.refused()
        tasks = [task for task in tasks if task.error is None]
        if not tasks:
            return
        rows = sum(task.rows for task in tasks)
        padding = self._options.padded(rows) - rows
        feeds: Feeds = {}
        for name, first in tasks[0].feeds.items():
            parts = [task.feeds[name] for task in tasks]
            if padding:
                parts.append(np.repeat(first[:1], padding, axis=0))
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
    """The first dimension that all inputs share."""
    if not feeds:
        raise refusal.invalid_argument("Batching session Run() must have at least one input tensor")
    if any(value.ndim == 0 for value in feeds.values()):
        raise refusal.invalid_argument("Batching session Run() input tensors must have at least one dimension")
    sizes = {len(value) for value in feeds.values()}
    if len(sizes) > 1:
        raise refusal.invalid_argument("Batching session Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def _check_rows(value: Array, rows: int) -> None:
    if value.ndim == 0:
        raise refusal.failed_precondition("Batched output tensor has 0 dimensions")
    if len(value) != rows:
        raise refusal.failed_precondition(
            "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
            "tensors"
        )
