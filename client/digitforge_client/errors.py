"""Every error that digitforge raises on purpose, in one tree.

::

    DigitforgeError                 exit status 1   something failed; the message says what to do
    ├── InvalidInputError           exit status 2   an argument or an array is invalid
    ├── MissingExtraError           exit status 2   an optional dependency is not installed
    ├── DataError                   exit status 4   data cannot be found, read, trusted or written
    └── ServerError                 exit status 3   the server could not answer
        ├── ServerUnavailableError                  no server listens at the target, or it went away
        │   ├── ServerBusyError                     the server is too busy
        │   └── TLSError                            client and server do not agree on TLS
        ├── ServerTimeoutError                      no answer within the deadline
        ├── ModelNotFoundError                      the server lacks the model, version or signature
        ├── RequestRejectedError                    the server rejected the request
        ├── UnexpectedReplyError                    the answer breaks the contract
        └── GeneratorChangedError                   the server switched to another generator

A command that ends with one of these errors prints one line and exits with its status. Ctrl-C exits with 130, SIGTERM
with 143, and a closed terminal with 129.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class DigitforgeError(Exception):
    """Root of all errors raised on purpose by any part of digitforge."""

    exit_status: ClassVar[int] = 1


class InvalidInputError(DigitforgeError, ValueError):
    """An argument or an array is invalid."""

    exit_status = 2


class MissingExtraError(DigitforgeError, ImportError):
    """An optional dependency is needed and not installed."""

    exit_status = 2


class DataError(DigitforgeError):
    """A data set or a file cannot be found, read, trusted or written."""

    exit_status = 4


class ServerError(DigitforgeError):
    """The server could not answer.

    Attributes:
        code: gRPC's status code by name, such as ``"NOT_FOUND"``. None if no gRPC call failed.
        details: the message of the server or of gRPC. None if no gRPC call failed.
        retryable: whether the same request may succeed later. Retrying is always safe, because a repeated request
            returns the same images.
    """

    exit_status = 3
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None, details: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class ServerUnavailableError(ServerError):
    """No server listens at the target, or the server went away."""

    retryable = True


class ServerBusyError(ServerUnavailableError):
    """The server is too busy, and stayed busy while the client retried."""


class TLSError(ServerUnavailableError):
    """Client and server do not agree on TLS: only one of them uses it, or one does not trust the other."""

    retryable = False


class ServerTimeoutError(ServerError, TimeoutError):
    """The server did not answer within the deadline."""

    retryable = True


class ModelNotFoundError(ServerError):
    """The server does not have the model, version, version label or signature."""


class RequestRejectedError(ServerError):
    """The server rejected the request."""


class UnexpectedReplyError(ServerError):
    """The answer breaks the contract."""


class GeneratorChangedError(ServerError):
    """The server switched to another generator, which gives other images for the same addresses."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown *word*: a suggestion, or an empty string if no name is similar."""
    names = sorted(known)
    similar = [name for name in names if word and name.startswith(word)] or difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {similar[0]!r}?" if similar else ""
