"""What a client asks its servers, and what happens when they do not answer. No input or output.

Every operation is a generator that yields steps and is sent their outcomes, so that both clients share it.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np

from digitforge_client.contract import Field, Signature
from digitforge_client.errors import ModelNotFoundError, ServerBusyError, ServerTimeoutError, ServerUnavailableError
from digitforge_client.options import Limits, Timeout
from digitforge_client.protocol import description
from digitforge_client.protocol.requests import predict_request
from digitforge_client.protocol.steps import Pause, Receive, Send, Steps
from digitforge_client.transport.wire import GET_METADATA, GET_STATUS, PREDICT, Method, messages

#: Waits between attempts while a server is away or busy double from the first to the longest.
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0

#: The longest wait while a server is busy: a client that seldom asks finds that others took every free place.
_LONGEST_BUSY_PAUSE_S: Final = 0.5

#: So long after a server was busy, one more request is sent ahead.
_CALM_S: Final = 1.0

#: Rest after an answer of a busy server, as a share of the time that the answer took.
_REST: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A request that is under way."""

    method: Method
    request: Any
    at: int  # number of the target
    pending: Any
    time_s: float  # when, by the monotonic clock


class Window:
    """How many requests of one call may be under way: fewer while the server is busy.

    As with TCP, a refusal halves the number, and calm lets it grow by one at a time.

    Args:
        most: while the server is not busy.

    Attributes:
        size: how many may be under way now.
        rest_s: seconds to wait before the next request, so that other clients of a busy server have their turn.
    """

    def __init__(self, most: int) -> None:
        self.size = self._most = most
        self.rest_s = 0.0
        self._changed_s = 0.0

    def refused(self, sent: Sent) -> None:
        """Take note that the server was too busy for a request; refusals of one burst count once."""
        if sent.time_s >= self._changed_s:
            self.size = max(1, self.size // 2)
            self._changed_s = time.monotonic()

    def answered(self, sent: Sent) -> None:
        """Take note that the server answered a request."""
        now, narrowed = time.monotonic(), self.size < self._most
        self.rest_s = min(_REST * (now - sent.time_s), _LONGEST_BUSY_PAUSE_S) if narrowed else 0.0
        if narrowed and now - self._changed_s > _CALM_S:
            self.size += 1
            self._changed_s = now


class Connection:
    """Questions about one model, for one or more targets.

    Args:
        model: name under which the server keeps the generator.
        version: number of its folder, or None for the newest.
        targets: where to send requests, in turn.
        timeout: how long to wait.
        limits: how much at once.
    """

    def __init__(
        self, *, model: str, version: int | None, targets: Sequence[str], timeout: Timeout, limits: Limits
    ) -> None:
        self.model_spec = messages.ModelSpec(
            name=model, version=None if version is None else messages.Int64Value(value=version)
        )
        self.targets = tuple(targets)
        self._timeout = timeout
        self.limits = limits
        self.window = Window(limits.requests_in_flight)
        self._turns = itertools.count()
        self.known: description.Generator | None = None

    def metadata(self, *, outage_s: float | None = 0.0) -> Steps[description.Metadata]:
        """Ask for the model's signatures."""
        request = messages.GetModelMetadataRequest(model_spec=self.model_spec, metadata_field=["signature_def"])
        return description.read_metadata((yield from self.ask(GET_METADATA, request, outage_s=outage_s)))

    def card(self, *, at: int | None = None, outage_s: float | None = 0.0) -> Steps[dict[str, Any]]:
        """Ask for the generator's card, at one target or any."""
        rows = {Field.ROWS: np.zeros(1, dtype=np.int64)}
        request = predict_request(self.model_spec, Signature.CARD, rows)
        return description.read_card((yield from self.ask(PREDICT, request, at=at, outage_s=outage_s)))

    def generator(self, *, outage_s: float | None = 0.0) -> Steps[description.Generator]:
        """What is known of the generator; the server is asked once."""
        known = self.known
        if known is None:
            metadata = yield from self.metadata(outage_s=outage_s)
            known = description.describe(metadata, (yield from self.card(outage_s=outage_s)))
            self.known = known
        return known

    def ready(self, timeout_s: float) -> Steps[None]:
        """Wait until every target serves the model.

        Raises:
            ServerTimeoutError: one of them does not in time.
        """
        end = time.monotonic() + timeout_s
        request = messages.GetModelStatusRequest(model_spec=self.model_spec)
        for at, target in enumerate(self.targets):
            pauses, reason = _pauses(), ""
            while (left := end - time.monotonic()) > 0:
                try:
                    send = Send(at=at, method=GET_STATUS, request=request, timeout_s=left, wait=True)
                    versions = (yield Receive(pending=(yield send))).model_version_status
                    if any(version.state == messages.ModelVersionStatus.AVAILABLE for version in versions):
                        break
                    said = "; ".join(version.status.error_message for version in versions)
                    reason = f"the server answers, but has not loaded the model {said}".rstrip()
                except (ModelNotFoundError, ServerBusyError) as error:  # a server may be told of a model later
                    reason = str(error)
                except (ServerUnavailableError, ServerTimeoutError):
                    reason = reason or "nothing listens there"
                yield Pause(seconds=max(0.0, min(next(pauses), end - time.monotonic())))
            else:
                raise ServerTimeoutError(
                    f"model {self.model_spec.name!r} at {target} is not ready after {timeout_s:g} s: {reason}; start a "
                    "server with `digitforge serve`, or wait longer"
                )

    def ask(self, method: Method, request: Any, *, at: int | None = None, outage_s: float | None = 0.0) -> Steps[Any]:
        """Send one request, to one target or any, and wait for its answer; see `answer`."""
        sent = yield from self.send(method, request, at=at)
        return (yield from self.answer(sent, only_there=at is not None, outage_s=outage_s))[0]

    def send(self, method: Method, request: Any, *, at: int | None = None) -> Steps[Sent]:
        """Send one request, to one target or to the next in turn."""
        at = next(self._turns) % len(self.targets) if at is None else at
        pending = yield Send(at=at, method=method, request=request, timeout_s=self._timeout.request_s)
        return Sent(method=method, request=request, at=at, pending=pending, time_s=time.monotonic())

    def answer(self, sent: Sent, *, only_there: bool = False, outage_s: float | None = 0.0) -> Steps[tuple[Any, int]]:
        """Wait for the answer to a request, and repeat it while the server is away or busy.

        A target that is away or busy is waited for only after all others were tried. Repeating is safe: it gives the
        same images.

        Args:
            sent: the request.
            only_there: ask no other target.
            outage_s: how long to wait for a server that went away or is busy; None for as long as it takes. With 0, a
                busy one is still given the time of a request.

        Returns:
            The answer, and the number of the target that gave it.
        """
        pauses, failing_since, tried = _pauses(), None, 1
        while True:
            try:
                reply = yield Receive(pending=sent.pending)
            except (ServerUnavailableError, ServerTimeoutError) as error:
                now = time.monotonic()
                failing_since = now if failing_since is None else failing_since
                away, busy = isinstance(error, ServerUnavailableError), isinstance(error, ServerBusyError)
                if busy:
                    self.window.refused(sent)
                patience_s = self._timeout.request_s if busy and outage_s == 0 else outage_s
                if away and not only_there and tried < len(self.targets):
                    tried += 1
                elif patience_s is None or now - failing_since < patience_s:
                    tried = 1
                    yield Pause(seconds=min(next(pauses), _LONGEST_BUSY_PAUSE_S) if busy else next(pauses))
                else:
                    raise
            else:
                self.window.answered(sent)
                return reply, sent.at
            at = sent.at if only_there else (sent.at + 1) % len(self.targets)
            sent = yield from self.send(sent.method, sent.request, at=at)


Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """Sends requests ahead, a bounded number of them, and receives their answers in order.

    Args:
        connection: with whom.
        requests: what to send, made when its turn comes, each with something to know it by.
        outage_s: how long to wait for a server that went away or is busy; None for as long as it takes.
    """

    def __init__(
        self, connection: Connection, requests: Iterable[tuple[Item, Any]], *, outage_s: float | None = 0.0
    ) -> None:
        self._connection = connection
        self._requests = iter(requests)
        self._outage_s = outage_s
        self._sent: deque[tuple[Item, Sent]] = deque()

    def receive(self) -> Steps[tuple[Item, Any, int] | None]:
        """The next answer, with what it is known by and who gave it; None after the last."""
        window = self._connection.window
        if window.rest_s:
            yield Pause(seconds=window.rest_s)
        free = window.size - len(self._sent)
        for item, request in itertools.islice(self._requests, max(0, free)):
            self._sent.append((item, (yield from self._connection.send(PREDICT, request))))
        if not self._sent:
            return None
        item, sent = self._sent.popleft()
        reply, at = yield from self._connection.answer(sent, outage_s=self._outage_s)
        return item, reply, at

    def arrived(self) -> bool:
        """Whether the next answer is there already."""
        return bool(self._sent) and self._sent[0][1].pending.arrived()

    def cancel(self) -> None:
        """Wait for none of the answers that are still to come."""
        for _, sent in self._sent:
            sent.pending.cancel()


def _pauses() -> Iterator[float]:
    """Seconds to wait before each further attempt, at random, so that clients that failed together part."""
    seconds = _FIRST_PAUSE_S
    while True:
        yield random.uniform(0.5, 1.0) * seconds
        seconds = min(2 * seconds, _LONGEST_PAUSE_S)
