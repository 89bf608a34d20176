"""Errors that reject a request, with TensorFlow Serving's status codes and messages."""

from __future__ import annotations

from typing import Final

import grpc

#: Maximum characters of a message. TensorFlow Serving cuts longer ones too.
MAX_TEXT: Final = 1024

#: Message for requests that arrive after the server was told to stop.
STOPPING: Final = "the server is stopping; send the request again to another server, or later"


class RefusedError(Exception):
    """The server rejects a request.

    Attributes:
        code: the gRPC status code, not OK.
        text: the message for the client. After 1 024 characters it is cut and ends in ``...TRUNCATED``.
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}...TRUNCATED"


def invalid_argument(text: str) -> RefusedError:
    """The request is invalid, whatever the state of the server."""
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, text)


def not_found(text: str) -> RefusedError:
    """The model or version does not serve."""
    return RefusedError(grpc.StatusCode.NOT_FOUND, text)


def failed_precondition(text: str) -> RefusedError:
    """The request does not fit the server's current state."""
    return RefusedError(grpc.StatusCode.FAILED_PRECONDITION, text)


def permission_denied(text: str) -> RefusedError:
    """The server's configuration does not allow the request."""
    return RefusedError(grpc.StatusCode.PERMISSION_DENIED, text)


def cancelled() -> RefusedError:
    """The client no longer waits for the answer."""
    return RefusedError(grpc.StatusCode.CANCELLED, "Cancelled")


def unimplemented(text: str) -> RefusedError:
    """This server does not support the request."""
    return RefusedError(grpc.StatusCode.UNIMPLEMENTED, text)


def from_number(number: int, text: str) -> RefusedError:
    """Create an error from the number of a status code, as in TensorFlow's own errors."""
    for code in grpc.StatusCode:
        if code.value[0] == number:
            return RefusedError(code, text)
    return RefusedError(grpc.StatusCode.UNKNOWN, text)
