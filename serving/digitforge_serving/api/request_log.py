"""Identify each request, log the slow ones, and record OpenTelemetry spans."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from digitforge_client.common.extras import needs_extra

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

log = logging.getLogger("digitforge.serving")

#: Name of the header, and of the gRPC metadata, that carries the id of a request.
HEADER: Final = "x-request-id"
#: With ``--verbose``, requests that take at least this long are logged, in seconds.
SLOW_S: Final = 1.0
_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_MAX_TEXT: Final = 128  # characters of a model's name or a path that a client chose
#: gRPC statuses that are the server's fault, by OpenTelemetry's conventions.
_FAULTS: Final = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


@dataclass
class Entry:
    """What the log and the span say about a request. The code that answers the request completes it."""

    identity: str  #: the request's id
    method: str  #: what was called, such as ``Predict``
    model: str = ""  #: name of the model in the request
    status: str | int = ""  #: name of a gRPC status, or number of an HTTP status


def new_identity() -> str:
    """An id for a request whose client sent none."""
    return secrets.token_hex(8)


class RequestLog:
    """Logs requests. Thread-safe."""

    def __init__(self, *, verbose: bool = False, otel: bool = False) -> None:
        """Choose what to log.

        Args:
            verbose: log requests that take `SLOW_S` or longer.
            otel: record a span of each request with OpenTelemetry's global tracer provider.

        Raises:
            MissingExtraError: OpenTelemetry is not installed.
        """
        self._verbose = verbose
        self._tracer: Tracer | None = None
        if otel:
            with needs_extra("otel", "recording spans"):
                from opentelemetry.trace import get_tracer
            self._tracer = get_tracer("digitforge")

    @contextmanager
    def request(self, method: str, headers: Mapping[str, Any], attributes: Mapping[str, str]) -> Iterator[Entry]:
        """Log the request that the ``with`` block answers.

        Args:
            method: what is called, such as ``Predict``.
            headers: the request's headers or gRPC metadata, with names in lower case. Its id is used if it has 1 to 128
                visible ASCII characters.
            attributes: attributes of the span.
        """
        given = headers.get(HEADER)
        entry = Entry(given if isinstance(given, str) and _ID.fullmatch(given) else new_identity(), method)
        start = time.monotonic()
        try:
            with _span(self._tracer, entry, headers, attributes) if self._tracer else nullcontext():
                yield entry
        finally:
            if self._verbose:
                _log_slow(entry, time.monotonic() - start)


def _log_slow(entry: Entry, seconds: float) -> None:
    if seconds < SLOW_S:
        return
    fields = {
        "request_id": entry.identity,
        "method": entry.method,
        "model": entry.model[:_MAX_TEXT],
        "status": str(entry.status),
        "seconds": seconds,
    }
    log.info(
        "slow request %s: %s of model %r took %.1f s (%s)",
        *(fields[name] for name in ("request_id", "method", "model", "seconds", "status")),
        extra={"fields": fields},
    )


@contextmanager
def _span(tracer: Tracer, entry: Entry, headers: Mapping[str, Any], attributes: Mapping[str, str]) -> Iterator[None]:
    """Record a span. It continues the client's trace if the headers contain one."""
    from opentelemetry import propagate, trace

    with tracer.start_as_current_span(
        entry.method,
        context=propagate.extract(headers),
        kind=trace.SpanKind.SERVER,
        attributes={name: value[:_MAX_TEXT] for name, value in attributes.items()},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        finally:
            http = isinstance(entry.status, int)
            span.update_name(entry.method)
            span.set_attribute("http.response.status_code" if http else "rpc.response.status_code", entry.status)
            span.set_attribute("digitforge.model", entry.model[:_MAX_TEXT])
            span.set_attribute("digitforge.request_id", entry.identity)
            if entry.status >= 500 if isinstance(entry.status, int) else entry.status in _FAULTS:
                span.set_status(trace.StatusCode.ERROR)
