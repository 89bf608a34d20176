"""The steps of which a conversation with a server consists. A client carries them out: one blocks, the other awaits."""

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
Talk = Generator[Step, Any, T]


def first(talk: Talk[None]) -> Talk[Any]:
    """The first value that a conversation emits."""
    try:
        step = next(talk)
        while not isinstance(step, Emit):
            try:
                outcome = yield step
            except ServerError as error:
                step = talk.throw(error)
            else:
                step = talk.send(outcome)
        return step.value
    finally:
        talk.close()
