"""A connection: the basic requests, and retries when servers are away or busy. It does no I/O itself.

Every operation is a generator that yields steps and receives their outcomes, so both clients share the code.
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
from digitforge_client.errors import (
    InvalidInputError,
    ModelNotFoundError,
    ServerBusyError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from digitforge_client.options import Limits, Timeout
from digitforge_client.protocol import description
from digitforge_client.protocol.requests import predict_request
from digitforge_client.protocol.steps import Explain, Pause, Receive, Send, Steps
from digitforge_client.transport.rpc_errors import printable
from digitforge_client.transport.wire import GET_METADATA, GET_STATUS, PREDICT, Method, messages

#: Pause between two attempts while a server is away or busy. It doubles from the first to the longest.
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0

#: Longest pause while a server is busy. With longer pauses, other clients would take every free slot.
_LONGEST_BUSY_PAUSE_S: Final = 0.5

#: After this time without a busy server, the window grows by one request.
_CALM_S: Final = 1.0

#: Rest after an answer of a busy server, as a fraction of its response time.
_REST: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A request that was sent and not answered yet."""

    method: Method
    request: Any
    #: Index of the target.
    at: int
    pending: Any
    #: When it was sent, on the monotonic clock.
    time_s: float


class Window:
    """How many requests of one call may be in flight. The number shrinks while the server is busy.

    As in TCP, a busy server halves the number. Each second without a busy server raises it by one.

    Args:
        largest: size while the server is not busy.

    Attributes:
        size: number of requests that may be in flight now.
        rest_s: seconds to wait before the next request, so that other clients of a busy server get a turn.
    """

    def __init__(self, largest: int) -> None:
        self.size = self._largest = largest
        self.rest_s = 0.0
        self._changed_s = 0.0

    def note_busy(self, sent: Sent) -> None:
        """Shrink the window, because the server was too busy for a request. A burst of busy answers counts once."""
        if sent.time_s >= self._changed_s:
            self.size = max(1, self.size // 2)
            self._changed_s = time.monotonic()

    def note_answer(self, sent: Sent) -> None:
        """Let the window grow again after an answer."""
        now, narrowed = time.monotonic(), self.size < self._largest
        self.rest_s = min(_REST * (now - sent.time_s), _LONGEST_BUSY_PAUSE_S) if narrowed else 0.0
        if narrowed and now - self._changed_s > _CALM_S:
            self.size += 1
            self._changed_s = now


class Connection:
    """What a client knows about one model and its servers, and the requests to them.

    Args:
        model: the model's name on the server.
        version: number of the model's folder. None for the newest.
        label: the server's label for a version, instead of *version*. It is looked up for each request.
        targets: targets that take requests in turn.
        timeout: how long to wait.
        limits: how much to request at once.

    Attributes:
        cached_generator: the generator; None until the server was asked.
        window: number of requests that a call may have in flight.
    """

    def __init__(
        self,
        *,
        model: str,
        version: int | None,
        label: str | None,
        targets: Sequence[str],
        timeout: Timeout,
        limits: Limits,
    ) -> None:
        self.model_spec = _model_spec(model, version, label)
        self.targets = tuple(targets)
        self._timeout = timeout
        self.limits = limits
        self.window = Window(limits.requests_in_flight)
        self._turns = itertools.count()
        self.cached_generator: description.Generator | None = None

    def metadata(self, *, outage_s: float | None = 0.0) -> Steps[description.Metadata]:
        """Request the model's signatures."""
        request = messages.GetModelMetadataRequest(model_spec=self.model_spec, metadata_field=["signature_def"])
        return description.read_metadata((yield from self.ask(GET_METADATA, request, outage_s=outage_s)))

    def card(self, *, at: int | None = None, outage_s: float | None = 0.0) -> Steps[dict[str, Any]]:
        """Request the generator's card from the target *at*, or from any target."""
        rows = {Field.ROWS: np.zeros(1, dtype=np.int64)}
        request = predict_request(self.model_spec, Signature.CARD, rows)
        card = description.read_card((yield from self.ask(PREDICT, request, at=at, outage_s=outage_s)))
        description.describe_card(card)  # raises an error if it breaks the contract
        return card

    def generator(self, *, outage_s: float | None = 0.0) -> Steps[description.Generator]:
        """Return the generator. The server is asked only once."""
        generator = self.cached_generator
        if generator is None:
            metadata = yield from self.metadata(outage_s=outage_s)
            generator = description.describe(metadata, (yield from self.card(outage_s=outage_s)))
            self.cached_generator = generator
        return generator

    def ready(self, timeout_s: float) -> Steps[None]:
        """Wait until every target serves the model.

        Raises:
            ServerTimeoutError: a target does not serve it in time.
            TLSError: client and server do not agree on TLS, so waiting would be in vain.
        """
        end = time.monotonic() + timeout_s
        for at, target in enumerate(self.targets):
            pauses, reason, wait = _pauses(), "the server does not answer", False
            while (left := end - time.monotonic()) > 0:
                try:
                    missing = yield from self._missing(at, timeout_s=left, wait=wait)
                    if missing is None:
                        break
                    reason = f"the server answers, but has not loaded the model ({missing})"
                except (ModelNotFoundError, ServerBusyError) as error:  # the server may get the model later
                    reason = str(error)
                except ServerUnavailableError as error:
                    explained = yield Explain(at=at, error=error)
                    if not explained.retryable:
                        raise explained from error.__cause__
                    reason, wait = str(explained).partition("; ")[0], True
                except ServerTimeoutError:
                    pass
                yield Pause(seconds=max(0.0, min(next(pauses), end - time.monotonic())))
            else:
                raise ServerTimeoutError(
                    f"model {self.model_spec.name!r} at {target} is not ready after {timeout_s:g} s: {reason}; start a "
                    "server with `digitforge serve`, or wait longer with --wait or wait_ready(timeout_s=…)"
                )

    def _missing(self, at: int, *, timeout_s: float, wait: bool) -> Steps[str | None]:
        """Ask the target *at* whether it serves the model. Return None if it does, or what it says otherwise."""
        spec = messages.ModelSpec()
        spec.CopyFrom(self.model_spec)
        spec.ClearField("version_label")  # servers ignore labels in this request
        request: Any = messages.GetModelStatusRequest(model_spec=spec)
        send = Send(at=at, method=GET_STATUS, request=request, timeout_s=timeout_s, wait=wait)
        versions = (yield Receive(pending=(yield send))).model_version_status
        if not any(version.state == messages.ModelVersionStatus.AVAILABLE for version in versions):
            return printable("; ".join(version.status.error_message for version in versions))
        if self.model_spec.version_label:  # raises an error unless the label belongs to a loaded version
            request = messages.GetModelMetadataRequest(model_spec=self.model_spec, metadata_field=["signature_def"])
            yield Receive(
                pending=(yield Send(at=at, method=GET_METADATA, request=request, timeout_s=timeout_s, wait=wait))
            )
        return None

    def ask(self, method: Method, request: Any, *, at: int | None = None, outage_s: float | None = 0.0) -> Steps[Any]:
        """Send one request to the target *at*, or to any target, and wait for the answer as in `answer`."""
        sent = yield from self.send(method, request, at=at)
        return (yield from self.answer(sent, same_target=at is not None, outage_s=outage_s))[0]

    def send(self, method: Method, request: Any, *, at: int | None = None) -> Steps[Sent]:
        """Send one request to the target *at*, or to the next target in turn."""
        at = next(self._turns) % len(self.targets) if at is None else at
        pending = yield Send(at=at, method=method, request=request, timeout_s=self._timeout.request_s)
        return Sent(method=method, request=request, at=at, pending=pending, time_s=time.monotonic())

    def answer(self, sent: Sent, *, same_target: bool = False, outage_s: float | None = 0.0) -> Steps[tuple[Any, int]]:
        """Wait for the answer to a request. Repeat the request while the server is away or busy.

        If a target is away or busy, the other targets are tried before a pause. Repeating is safe, because a repeated
        request returns the same images.

        Args:
            sent: the request.
            same_target: send the request to no other target.
            outage_s: how long to wait for a server that is away or busy; None waits without limit. With 0, the request
                is still repeated for ``Timeout.request_s`` if the server is busy.

        Returns:
            The answer, and the index of the target that sent it.
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
                    self.window.note_busy(sent)
                patience_s = self._timeout.request_s if busy and outage_s == 0 else outage_s
                if away and not same_target and tried < len(self.targets):
                    tried += 1
                elif patience_s is None or now - failing_since < patience_s:
                    tried = 1
                    yield Pause(seconds=min(next(pauses), _LONGEST_BUSY_PAUSE_S) if busy else next(pauses))
                elif isinstance(error, ServerUnavailableError):
                    raise (yield Explain(at=sent.at, error=error)) from error.__cause__
                else:
                    raise
            else:
                self.window.note_answer(sent)
                return reply, sent.at
            at = sent.at if same_target else (sent.at + 1) % len(self.targets)
            sent = yield from self.send(sent.method, sent.request, at=at)


Item = TypeVar("Item")


class Pipeline(Generic[Item]):
    """Sends a bounded number of requests ahead and receives their answers in order.

    Args:
        connection: the connection to use.
        requests: pairs of an item and a request. The item comes back with the answer. Pairs are read when needed.
        outage_s: how long to wait for a server that is away or busy; None waits without limit.
    """

    def __init__(
        self, connection: Connection, requests: Iterable[tuple[Item, Any]], *, outage_s: float | None = 0.0
    ) -> None:
        self._connection = connection
        self._requests = iter(requests)
        self._outage_s = outage_s
        self._sent: deque[tuple[Item, Sent]] = deque()

    def receive(self) -> Steps[tuple[Item, Any, int] | None]:
        """The next answer, as (item, answer, index of the target). None after the last answer."""
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
        """Whether the next answer has already arrived."""
        return bool(self._sent) and self._sent[0][1].pending.arrived()

    def cancel(self) -> None:
        """Cancel the requests that are still in flight."""
        for _, sent in self._sent:
            sent.pending.cancel()


def _model_spec(model: str, version: int | None, label: str | None) -> messages.ModelSpec:
    """Name a model, and the version of it to use.

    Raises:
        InvalidInputError: a value is invalid, or both *version* and *label* are given.
    """
    for name, text in (("model", model), ("label", label)):
        if text is not None and not (isinstance(text, str) and text and text.isprintable()):
            raise InvalidInputError(f"{name} is {text!r}; expected a name")
    if version is None:
        return messages.ModelSpec(name=model, version_label=label)
    if label is not None:
        raise InvalidInputError(f"version={version} and label={label!r} were both given; give only one of them")
    if isinstance(version, bool) or not isinstance(version, int | np.integer) or not 0 <= version < 2**63:
        raise InvalidInputError(f"version is {version!r}; expected the number of a model's folder, 0 or more, or None")
    return messages.ModelSpec(name=model, version=messages.Int64Value(value=int(version)))


def _pauses() -> Iterator[float]:
    """Pauses between attempts, in seconds. They are random, so that clients do not all retry at the same time."""
    seconds = _FIRST_PAUSE_S
    while True:
        yield random.uniform(0.5, 1.0) * seconds
        seconds = min(2 * seconds, _LONGEST_PAUSE_S)
