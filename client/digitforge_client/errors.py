"""Every error that digitforge raises on purpose, in one tree.

    DigitforgeError                 exit status 1   something failed; the message says what to do
    ├── InvalidInputError           exit status 2   an argument or an array is not what was expected
    ├── MissingExtraError           exit status 2   an optional dependency is not installed
    ├── DataError                   exit status 4   data or a file cannot be had, read, trusted or written
    └── ServerError                 exit status 3   the server could not answer
        ├── ServerUnavailableError                  nothing listens there, or it went away
        │   └── ServerBusyError                     it listens, and has too much to do
        ├── ServerTimeoutError                      no answer within the deadline
        ├── ModelNotFoundError                      the server has no such model, version or signature
        ├── RequestRejectedError                    the server understood the request and refused it
        ├── UnexpectedReplyError                    the answer is not what the contract promises
        └── GeneratorChangedError                   another generator answers than the one that began

A command that ends with one of these prints one line and exits with its status. Ctrl-C exits with 130, SIGTERM with
143, and a closed terminal with 129.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class DigitforgeError(Exception):
    """Root of all errors raised on purpose by any part of digitforge."""

    exit_status: ClassVar[int] = 1


class InvalidInputError(DigitforgeError, ValueError):
    """An argument or an array is not what was expected."""

    exit_status = 2


class MissingExtraError(DigitforgeError, ImportError):
    """A command needs an optional dependency that is not installed."""

    exit_status = 2


class DataError(DigitforgeError):
    """A data set or a file cannot be found, read, trusted or written."""

    exit_status = 4


class ServerError(DigitforgeError):
    """The server could not answer.

    Attributes:
        code: gRPC's status code by name, such as ``"NOT_FOUND"``; None where no call failed.
        details: the server's own words, or gRPC's; None where no call failed.
        retryable: whether the same request may succeed later. A repeated request gives the same images, so
            repeating is always safe.
    """

    exit_status = 3
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, code: str | None = None, details: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class ServerUnavailableError(ServerError):
    """Nothing listens at the target, or it went away."""

    retryable = True


class ServerBusyError(ServerUnavailableError):
    """The server has more requests than it takes, and stayed so for as long as the client asked again."""


class ServerTimeoutError(ServerError, TimeoutError):
    """No answer within the deadline."""

    retryable = True


class ModelNotFoundError(ServerError):
    """The server has no such model, version, label or signature."""


class RequestRejectedError(ServerError):
    """The server understood the request and refused it."""


class UnexpectedReplyError(ServerError):
    """The answer is not what the contract promises."""


class GeneratorChangedError(ServerError):
    """Another generator answers than the one that began: same server, other images for the same addresses."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message on a *word* that is none of the known ones: one that it begins, the nearest, or nothing."""
    names = sorted(known)
    nearest = [name for name in names if word and name.startswith(word)] or difflib.get_close_matches(word, names, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
