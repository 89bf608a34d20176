"""The steps of an exchange with a server. A client carries them out: one blocks, the other awaits."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from digitforge_client.errors import ServerError
from digitforge_client.transport.wire import Method


@dataclass(frozen=True, kw_only=True)
class Send:
    """Send a message; the outcome is the pending request."""

    at: int  # number of the target
    method: Method
    request: Any
    timeout_s: float | None
    wait: bool = False  # for a server to listen, instead of failing at once


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
#: Yields steps, is sent their outcomes, and returns a T.
Steps = Generator[Step, Any, T]


def first(steps: Steps[None]) -> Steps[Any]:
    """The first value that steps emit."""
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
