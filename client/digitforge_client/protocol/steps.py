"""The steps of an operation. `DigitClient` executes them with blocking calls, `AsyncDigitClient` awaits them."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from digitforge_client.errors import InvalidInputError, ServerError, ServerUnavailableError
from digitforge_client.transport.wire import Method


@dataclass(frozen=True, kw_only=True)
class Send:
    """Send a message. The outcome is the pending request."""

    #: Index of the target.
    at: int
    method: Method
    request: Any
    timeout_s: float | None
    #: Wait until a server listens instead of failing at once.
    wait: bool = False


@dataclass(frozen=True, kw_only=True)
class Receive:
    """Wait for an answer. The outcome is the message. If the request fails, the yield raises its ServerError."""

    pending: Any


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Pause for some seconds."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Find out why a target is unavailable. The outcome is an error that says it."""

    #: Index of the target.
    at: int
    error: ServerUnavailableError


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Report how many digits of a call have arrived."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Emit:
    """Return a finished value to the user."""

    value: Any


def out_of_memory(error: MemoryError) -> InvalidInputError:
    """The error of a call whose result does not fit into memory."""
    return InvalidInputError(f"the result does not fit into memory ({error}); request fewer images, or use stream()")


T = TypeVar("T")
Step = Send | Receive | Pause | Explain | Progress | Emit
#: A generator that yields steps, receives their outcomes, and returns a T.
Steps = Generator[Step, Any, T]


def first_emitted(steps: Steps[None]) -> Steps[Any]:
    """Execute *steps* until they emit a value, and return it."""
    try:
        step = next(steps)
        while not isinstance(step, Emit):
            try:
                outcome = yield step
            except ServerError as error:
                step = steps.throw(error)
            else:
                step = steps.send(outcome)
        return step.value
    finally:
        steps.close()
