"""What is said between client and server, in which order, and what happens when it fails. No input or output.

Every operation is a generator that yields steps and is sent their outcomes. The two clients differ only in how
they carry out a step: one blocks, the other awaits.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from digitforge_client import description, plan
from digitforge_client.contract import Field, Signature
from digitforge_client.errors import (
    GeneratorChangedError,
    InvalidInputError,
    ModelNotFoundError,
    ServerTimeoutError,
    ServerUnavailableError,
    UnexpectedReplyError,
)
from digitforge_client.options import Limits, Timeout
from digitforge_client.wire import GET_METADATA, GET_STATUS, PREDICT, Method, messages

#: Waits between attempts while a server is away double from the first to the longest.
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
#: A batch that met another generator so often met replicas that differ, not one that was replaced.
_MOST_CHANGES: Final = 3


@dataclass(frozen=True, kw_only=True)
class Send:
    """Send a message; the outcome is the pending request."""

    at: int  # number of the target
    method: Method
    request: Any
    timeout_s: float | None
    wait: bool = False


@dataclass(frozen=True, kw_only=True)
class Receive:
    """Wait for an answer; the outcome is the message, or a ServerError is thrown in."""

    pending: Any


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Emit:
    """Hand a finished value to the user."""

    value: Any


T = TypeVar("T")
Step = Send | Receive | Pause | Emit
Talk = Generator[Step, Any, T]


class _Changed(Exception):  # noqa: N818 - a signal within this module
    """Another generator answers."""


@dataclass(kw_only=True)
class _Progress:
    """How far a delivery has come."""

    delivered: int = 0  # batches
    changes: int = 0  # of the generator, since the last delivered batch


class Conversation:
    """The operations of a client, for one model at one or more targets.

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
        self._spec = messages.ModelSpec(
            name=model, version=None if version is None else messages.Int64Value(value=version)
        )
        self._targets = tuple(targets)
        self._timeout = timeout
        self._limits = limits
        self._turns = itertools.count()
        self.known: description.Generator | None = None

    # ---- small questions

    def metadata(self) -> Talk[description.Metadata]:
        """Ask for the model's signatures."""
        request = messages.GetModelMetadataRequest(model_spec=self._spec, metadata_field=["signature_def"])
        return description.read_metadata((yield from self._ask(GET_METADATA, request)))

    def card(self, at: int | None = None) -> Talk[dict[str, Any]]:
        """Ask for the generator's card, at one target or any."""
        rows = {Field.ROWS: np.zeros(1, dtype=np.int64)}
        request = plan.predict_request(self._spec, Signature.CARD, rows)
        return description.read_card((yield from self._ask(PREDICT, request, at=at)))

    def generator(self) -> Talk[description.Generator]:
        """What is known of the generator; the server is asked once."""
        if self.known is None:
            self.known = description.describe((yield from self.metadata()), (yield from self.card()))
        return self.known

    def seen(self, hashes: npt.NDArray[np.int64]) -> Talk[npt.NDArray[np.bool_]]:
        """Ask which of these images the generator was trained on."""
        rows = min(self._limits.rows_per_request, (yield from self.generator()).max_rows)
        found = [np.zeros(0, dtype=np.bool_)]
        for at in range(0, len(hashes), rows):
            part = hashes[at : at + rows]
            request = plan.predict_request(self._spec, Signature.SEEN, {Field.HASHES: part})
            reply = yield from self._ask(PREDICT, request)
            found.append(plan.output(reply, Field.SEEN, dtype="bool", shape=(len(part),)))
        return np.concatenate(found)

    def ready(self, timeout_s: float) -> Talk[None]:
        """Wait until every target serves the model.

        Raises:
            ServerTimeoutError: one of them does not in time.
        """
        end = time.monotonic() + timeout_s
        request = messages.GetModelStatusRequest(model_spec=self._spec)
        for at, target in enumerate(self._targets):
            pauses, reason = _pauses(), ""
            while (left := end - time.monotonic()) > 0:
                try:
                    send = Send(at=at, method=GET_STATUS, request=request, timeout_s=left, wait=True)
                    versions = (yield Receive(pending=(yield send))).model_version_status
                    if any(version.state == messages.ModelVersionStatus.AVAILABLE for version in versions):
                        break
                    said = "; ".join(version.status.error_message for version in versions)
                    reason = f"the server answers, but has not loaded the model {said}".rstrip()
                except (ServerUnavailableError, ServerTimeoutError):
                    reason = reason or "nothing listens there"
                except ModelNotFoundError as error:  # a server may be told of a model later
                    reason = str(error)
                yield Pause(seconds=max(0.0, min(next(pauses), end - time.monotonic())))
            else:
                raise ServerTimeoutError(
                    f"model {self._spec.name!r} at {target} is not ready after {timeout_s:g} s: {reason}; start a "
                    "server with `digitforge serve`, or wait longer"
                )

    def _ask(self, method: Method, request: Any, *, at: int | None = None, outage_s: float | None = 0.0) -> Talk[Any]:
        """Send one request and wait for the answer; see `_answer`."""
        sent_at = next(self._turns) % len(self._targets) if at is None else at
        pending = yield Send(at=sent_at, method=method, request=request, timeout_s=self._timeout.request_s)
        send = None if at is None else at
        answer, _ = yield from self._answer(method, request, pending, sent_at, only_at=send, outage_s=outage_s)
        return answer

    def _answer(
        self, method: Method, request: Any, pending: Any, at: int, *, only_at: int | None, outage_s: float | None
    ) -> Talk[tuple[Any, int]]:
        """Wait for the answer to a request that was sent, and repeat it while the server is away.

        A target that is away is waited for only after all others were tried. Repeating is safe: it gives the same
        images.

        Returns:
            The answer, and the number of the target that gave it.
        """
        pauses, failing_since, tried = _pauses(), None, 1
        while True:
            try:
                return (yield Receive(pending=pending)), at
            except (ServerUnavailableError, ServerTimeoutError) as error:
                now = time.monotonic()
                failing_since = now if failing_since is None else failing_since
                if only_at is None and isinstance(error, ServerUnavailableError) and tried < len(self._targets):
                    tried += 1
                elif outage_s is None or now - failing_since < outage_s:
                    tried = 1
                    yield Pause(seconds=next(pauses))
                else:
                    raise
            at = (at + 1) % len(self._targets) if only_at is None else only_at
            pending = yield Send(at=at, method=method, request=request, timeout_s=self._timeout.request_s)

    # ---- digits

    def batches(
        self,
        rows_of: Callable[[description.Generator], plan.Rows],
        *,
        batch_size: int,
        outage_s: float | None,
        accept_change: bool,
    ) -> Talk[None]:
        """Emit batches, in order, each from one generator.

        Args:
            rows_of: the addresses, given the generator; called again for another one.
            batch_size: rows of every batch but the last.
            outage_s: how long to wait for a server that went away.
            accept_change: go on with another generator, should the server get one.

        Raises:
            GeneratorChangedError: the server got another one, and that is not accepted.
        """
        progress = _Progress()
        generator, rows = yield from self._begin(rows_of)
        while True:
            try:
                yield from self._deliver(generator, rows, progress, batch_size=batch_size, outage_s=outage_s)
            except _Changed:
                self.known = None
                before, generator = generator, (yield from self.generator())
                progress.changes += 1
                where = ", ".join(self._targets)
                if progress.changes > _MOST_CHANGES:
                    raise GeneratorChangedError(
                        f"{where} gave different generators {progress.changes} times in a row; let all servers there "
                        "serve the same one"
                    ) from None
                if progress.delivered and not accept_change:
                    raise GeneratorChangedError(
                        f"the generator at {where} changed from {before.generator_id} to {generator.generator_id} "
                        f"after {progress.delivered * batch_size} rows: the same addresses are other images now; "
                        'begin anew, or accept it with on_change="accept"'
                    ) from None
                rows = rows_of(generator)
            else:
                return

    def _begin(
        self, rows_of: Callable[[description.Generator], plan.Rows]
    ) -> Talk[tuple[description.Generator, plan.Rows]]:
        """The generator and the rows; a refusal that rests on old knowledge is looked into first."""
        fresh = self.known is None
        generator = yield from self.generator()
        try:
            return generator, rows_of(generator)
        except InvalidInputError:
            if fresh:
                raise
        self.known = None
        generator = yield from self.generator()
        return generator, rows_of(generator)

    def _deliver(
        self,
        generator: description.Generator,
        rows: plan.Rows,
        progress: _Progress,
        *,
        batch_size: int,
        outage_s: float | None,
    ) -> Talk[None]:
        """Send requests ahead, emit batches as they are complete and the generator is found to be still the same."""
        source = plan.pieces(
            rows,
            batch_size=batch_size,
            max_rows=min(self._limits.rows_per_request, generator.max_rows),
            first_batch=progress.delivered,
        )
        joiner = plan.Joiner(generator, seed=rows.seed)
        queue: deque[tuple[plan.Piece, Any, Any, int]] = deque()
        answered: set[int] = set()  # targets that answered for the batch
        try:
            while True:
                for piece in itertools.islice(source, self._limits.requests_in_flight - len(queue)):
                    request = plan.sample_request(self._spec, piece)
                    at = next(self._turns) % len(self._targets)
                    pending = yield Send(at=at, method=PREDICT, request=request, timeout_s=self._timeout.request_s)
                    queue.append((piece, request, pending, at))
                if not queue:
                    return
                piece, request, pending, at = queue.popleft()
                reply, at = yield from self._answer(PREDICT, request, pending, at, only_at=None, outage_s=outage_s)
                answered.add(at)
                try:
                    joiner.add(piece, reply)
                except UnexpectedReplyError:  # perhaps because another generator sent it
                    yield from self._check(generator, answered, outage_s)
                    raise
                if piece.last:
                    yield from self._check(generator, answered, outage_s)
                    answered.clear()
                    yield Emit(value=joiner.batch())
                    progress.delivered, progress.changes = progress.delivered + 1, 0
        finally:
            for _, _, pending, _ in queue:
                pending.cancel()

    def _check(self, generator: description.Generator, answered: set[int], outage_s: float | None) -> Talk[None]:
        """Ask those who answered for their card, and signal if it is another generator's.

        The version number in a reply would not do: a restarted server may hold another generator under the same one.
        """
        rows = {Field.ROWS: np.zeros(1, dtype=np.int64)}
        request = plan.predict_request(self._spec, Signature.CARD, rows)
        for at in sorted(answered):
            reply = yield from self._ask(PREDICT, request, at=at, outage_s=outage_s)
            if description.read_card(reply).get("generator_id") != generator.generator_id:
                raise _Changed


def _pauses() -> Generator[float, None, None]:
    """Seconds to wait before each further attempt."""
    seconds = _FIRST_PAUSE_S
    while True:
        yield seconds
        seconds = min(2 * seconds, _LONGEST_PAUSE_S)
