"""Identify each request, and log the slow ones."""

from __future__ import annotations

import logging
import re
import secrets
from typing import Final

log = logging.getLogger("digitforge.serving")

#: Name of the header, and of the gRPC metadata, that carries the id of a request.
HEADER: Final = "x-request-id"
#: With ``--verbose``, requests that take at least this long are logged, in seconds.
SLOW_S: Final = 1.0
_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


def request_id(given: object) -> str:
    """The id that a client has *given*, if it is 1 to 128 visible ASCII characters; otherwise a new one."""
    return given if isinstance(given, str) and _ID.fullmatch(given) else secrets.token_hex(8)


def log_slow(identity: str, method: str, model: str, status: str, seconds: float) -> None:
    """Log a request if it was slow.

    Args:
        identity: the request's id.
        method: what was called, such as ``Predict``.
        model: the model's name in the request.
        status: name of the gRPC status, such as ``OK``.
        seconds: time from arrival to answer.
    """
    if seconds >= SLOW_S:
        fields = {"request_id": identity, "method": method, "model": model[:128], "status": status, "seconds": seconds}
        log.info(
            "slow request %s: %s of model %r took %.1f s (%s)",
            identity,
            method,
            model[:128],
            seconds,
            status,
            extra={"fields": fields},
        )
