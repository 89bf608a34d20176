"""One failed call in, one error of the library out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import grpc

from digitforge_client.errors import (
    ModelNotFoundError,
    RequestRejectedError,
    ServerBusyError,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
    UnexpectedReplyError,
)


@dataclass(frozen=True, kw_only=True)
class _Rule:
    codes: str  # gRPC status codes, separated by spaces
    text: str = ""  # regular expression that the details must contain
    error: type[ServerError]
    message: str


_BUSY: Final = (
    "the server at {target} is too busy ({details}); try again later, send less at once with "
    "Limits(requests_in_flight=…), or let the server take more requests at once"
)

# TensorFlow Serving uses one code for several cases, which differ only in its words. The first rule that fits counts.
_RULES: Final = (
    _Rule(
        codes="UNAVAILABLE",
        text=r"queue.* full",  # of requests that wait for a batch
        error=ServerBusyError,
        message=_BUSY,
    ),
    _Rule(
        codes="UNAVAILABLE",
        error=ServerUnavailableError,
        message="no server answers at {target} ({reason}); start one with `digitforge serve` or `docker compose up`, "
        "or name another one's target (its gRPC port, usually 8500)",
    ),
    _Rule(
        codes="DEADLINE_EXCEEDED",
        error=ServerTimeoutError,
        message="no answer from {target} within {timeout}; wait longer with Timeout(request_s=…), or ask for less",
    ),
    _Rule(
        codes="RESOURCE_EXHAUSTED",
        text="timeout",
        error=ServerTimeoutError,
        message="the server at {target} did not get to the request in time ({details}); ask for less at once",
    ),
    _Rule(
        codes="RESOURCE_EXHAUSTED",
        text="larger than max",
        error=RequestRejectedError,
        message="a message between the client and {target} is too large ({details}); accept more with "
        "Limits(message_mib=…), or ask for less at once with Limits(rows_per_request=…)",
    ),
    _Rule(
        codes="RESOURCE_EXHAUSTED",
        # TensorFlow Serving's threads (some say nothing), Python's gRPC, proxies; not a lack of memory
        text=r"^$|(?i:thread ?pool|concurrent rpc|rate.?limit)",
        error=ServerBusyError,
        message=_BUSY,
    ),
    _Rule(codes="NOT_FOUND", error=ModelNotFoundError, message="there is no model {model!r} at {target}: {details}"),
    _Rule(
        codes="INVALID_ARGUMENT",
        text="version label",
        error=ModelNotFoundError,
        message="model {model!r} at {target} has no such version label: {details}",
    ),
    _Rule(
        codes="FAILED_PRECONDITION",
        text="ignature",
        error=ModelNotFoundError,
        message="model {model!r} at {target} lacks a signature that the client needs ({details}); was it exported with "
        "`digitforge export`?",
    ),
    _Rule(
        codes="UNIMPLEMENTED",
        error=UnexpectedReplyError,
        message="the server at {target} does not speak TensorFlow Serving's protocol ({details}); is that its gRPC "
        "port (usually 8500; 8501 is REST)?",
    ),
    _Rule(
        codes="INTERNAL",
        text="deserializing",
        error=UnexpectedReplyError,
        message="the answer of {target} is no message of TensorFlow Serving's protocol",
    ),
    _Rule(
        codes="UNAUTHENTICATED PERMISSION_DENIED",
        error=RequestRejectedError,
        message="the server at {target} does not let this client in: {details}",
    ),
    _Rule(
        codes="INVALID_ARGUMENT FAILED_PRECONDITION OUT_OF_RANGE RESOURCE_EXHAUSTED",
        error=RequestRejectedError,
        message="the server at {target} refused the request for model {model!r}: {details}",
    ),
)
_ANY_OTHER: Final = _Rule(
    codes="", error=ServerError, message="the request to {target} for model {model!r} failed with {code}: {details}"
)


class FailedCall(grpc.RpcError):
    """gRPC's account of a failed call without the call and its locks, so that errors can be pickled with their cause.

    Some libraries (tblib, which TensorFlow and Dask switch on) pickle causes too.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(code, details)

    def code(self) -> grpc.StatusCode:
        """gRPC's status code."""
        return self.args[0]

    def details(self) -> str:
        """The server's words, or gRPC's."""
        return self.args[1]


def translate(error: grpc.RpcError, *, target: str, model: str, timeout_s: float | None) -> ServerError:
    """Say in the user's words what went wrong. The result has a cause, and is to be raised outside any `except`.

    Args:
        error: what gRPC raised.
        target: where the request went.
        model: the model it asked for.
        timeout_s: the deadline it had, in seconds.
    """
    code, details = error.code().name, error.details() or ""
    rule = next((rule for rule in _RULES if code in rule.codes.split() and re.search(rule.text, details)), _ANY_OTHER)
    message = rule.message.format(
        target=target,
        model=model,
        timeout="its deadline" if timeout_s is None else f"{timeout_s:g} s",
        code=code,
        details=details or "no reason given",
        reason=details.rpartition("last error: ")[2] or "no reason given",  # the end of gRPC's chain tells most
    )
    translated = rule.error(message, code=code, details=details)
    translated.__cause__ = FailedCall(error.code(), details)
    return translated
