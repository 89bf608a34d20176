"""Translates gRPC's errors into digitforge's errors."""

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
    text: str = ""  # regular expression to search for in the details
    error: type[ServerError]
    message: str


_BUSY: Final = (
    "the server at {target} is too busy ({details}); try again later, send fewer requests at once with "
    "Limits(requests_in_flight=…), or configure the server to accept more requests at once"
)

# TensorFlow Serving uses one code for several cases that differ only in the details. The first matching rule applies.
_RULES: Final = (
    _Rule(
        codes="UNAVAILABLE",
        text=r"queue.* full",  # the queue of a batching server
        error=ServerBusyError,
        message=_BUSY,
    ),
    _Rule(
        codes="UNAVAILABLE",
        error=ServerUnavailableError,
        message="no server answers at {target} ({details})",  # `unavailable.explain` says more
    ),
    _Rule(
        # A request that arrives while gRPC's server closes its connections. If the client itself cancels or closes the
        # connection, there is another text or another error.
        codes="CANCELLED",
        text="^CANCELLED$",
        error=ServerUnavailableError,
        message="the server at {target} canceled the request, as servers do while they are stopping",
    ),
    _Rule(
        codes="DEADLINE_EXCEEDED",
        error=ServerTimeoutError,
        message="no answer from {target} within {timeout}; wait longer with Timeout(request_s=…), or request fewer "
        "images at once with Limits(rows_per_request=…)",
    ),
    _Rule(
        codes="RESOURCE_EXHAUSTED",
        text="timeout",
        error=ServerTimeoutError,
        message="the server at {target} did not start the request in time ({details}); send fewer requests at once "
        "with Limits(requests_in_flight=…)",
    ),
    _Rule(
        codes="RESOURCE_EXHAUSTED",
        text="larger than max",
        error=RequestRejectedError,
        message="a message between the client and {target} is too large ({details}); allow larger messages with "
        "Limits(message_mib=…), or request fewer images at once with Limits(rows_per_request=…)",
    ),
    _Rule(
        codes="RESOURCE_EXHAUSTED",
        # TensorFlow Serving may send no text. The other texts are from Python's gRPC and proxies. A server that is out
        # of memory sends none of these texts.
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
        message="the answer from {target} is not a TensorFlow Serving message; is that its gRPC port (usually 8500)?",
    ),
    _Rule(
        codes="UNAUTHENTICATED PERMISSION_DENIED",
        error=RequestRejectedError,
        message="the server at {target} denies access to this client: {details}",
    ),
    _Rule(
        codes="INVALID_ARGUMENT FAILED_PRECONDITION OUT_OF_RANGE RESOURCE_EXHAUSTED",
        error=RequestRejectedError,
        message="the server at {target} rejected the request for model {model!r}: {details}",
    ),
)
_ANY_OTHER: Final = _Rule(
    codes="", error=ServerError, message="the request to {target} for model {model!r} failed with {code}: {details}"
)


class FailedCall(grpc.RpcError):
    """Code and details of a failed call. Unlike gRPC's own error, it can be pickled.

    Some libraries pickle the cause of an error too, for example tblib, which TensorFlow and Dask use.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(code, details)

    def code(self) -> grpc.StatusCode:
        """gRPC's status code."""
        return self.args[0]

    def details(self) -> str:
        """The message of the server or of gRPC."""
        return self.args[1]


def translate(error: grpc.RpcError, *, target: str, model: str, timeout_s: float | None) -> ServerError:
    """Turn gRPC's error into a ServerError with a helpful message.

    The result has a cause that can be pickled. Raise it outside the ``except`` block: inside, Python would add gRPC's
    own error as its context.

    Args:
        error: gRPC's error.
        target: target of the request.
        model: the requested model.
        timeout_s: deadline of the request, in seconds.
    """
    code, details = error.code().name, error.details() or ""
    rule = next((rule for rule in _RULES if code in rule.codes.split() and re.search(rule.text, details)), _ANY_OTHER)
    message = rule.message.format(
        target=target,
        model=model,
        timeout="its deadline" if timeout_s is None else f"{timeout_s:g} s",
        code=code,
        details=printable(details),
    )
    translated = rule.error(message, code=code, details=details)
    translated.__cause__ = FailedCall(error.code(), details)
    return translated


def printable(text: str) -> str:
    """A text of a server in one line, without commands for a terminal. TensorFlow Serving cuts texts at this length."""
    return "".join(each if each.isprintable() else " " for each in text[:1024]).strip() or "no reason given"
