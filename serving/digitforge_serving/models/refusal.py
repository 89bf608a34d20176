"""How a request is refused: a gRPC status code and the text that TensorFlow Serving would send."""

from __future__ import annotations

from typing import Final

import grpc

#: TensorFlow Serving cuts longer texts and says so.
LONGEST_TEXT: Final = 1024


class RefusedError(Exception):
    """A request that gets a status other than OK.

    Attributes:
        code: gRPC status code.
        text: what the client is told, at most 1 024 characters and a mark where it was cut.
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}...TRUNCATED"


def invalid_argument(text: str) -> RefusedError:
    """The client sent something that no state of the server could make acceptable."""
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)


def not_found(text: str) -> RefusedError:
    """The client named a model or a version that is not served."""
    return RefusedError(grpc.StatusCode.NOT_FOUND, text)


def failed_precondition(text: str) -> RefusedError:
    """The request does not fit what is being served now."""
    return RefusedError(grpc.StatusCode.FAILED_PRECONDITION, text)


def cancelled() -> RefusedError:
    """The client went away, or the server gave up: nobody waits for the answer."""
    return RefusedError(grpc.StatusCode.CANCELLED, "Cancelled")


def unimplemented(text: str) -> RefusedError:
    """This server cannot do what is asked, whoever asks."""
    return RefusedError(grpc.StatusCode.UNIMPLEMENTED, text)


def from_number(number: int, text: str) -> RefusedError:
    """A refusal with the canonical code of that number, as TensorFlow's own errors carry it."""
    for code in grpc.StatusCode:
        if code.value[0] == number:
            return RefusedError(code, text)
    return RefusedError(grpc.StatusCode.UNKNOWN, text)
