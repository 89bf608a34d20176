"""Options of a client: timeouts, retries, limits, keepalive, compression and TLS."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from digitforge_client.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class Timeout:
    """How long to wait, in seconds. None waits without limit."""

    #: Deadline of one request, including gRPC's retries. If the server is busy, the client also repeats the request for
    #: this long.
    request_s: float | None = 30.0
    #: How long a stream waits for a server that went away or is busy.
    outage_s: float | None = 60.0

    def __post_init__(self) -> None:
        for name, value in (("request_s", self.request_s), ("outage_s", self.outage_s)):
            if value is not None and not value >= 0:
                raise InvalidInputError(f"{name} is {value}; expected 0 or more seconds, or None for no limit")


@dataclass(frozen=True, kw_only=True)
class Retry:
    """gRPC's own retries, on UNAVAILABLE only. Retrying is safe, because the same address gives the same image."""

    #: Attempts in total: 1 to 5, because gRPC allows at most 5. 1 means no retries.
    attempts: int = 4
    #: Seconds before the first retry. Each later wait doubles, and gRPC varies each wait at random.
    first_wait_s: float = 0.1
    #: Longest wait, in seconds.
    longest_wait_s: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= 5:
            raise InvalidInputError(f"attempts is {self.attempts}; expected 1 to 5")
        if not 0 < self.first_wait_s <= self.longest_wait_s:
            raise InvalidInputError(
                f"first_wait_s is {self.first_wait_s} and longest_wait_s {self.longest_wait_s}; "
                "expected 0 < first_wait_s <= longest_wait_s"
            )


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much to request at once."""

    #: Rows of one request; the generator's card may set a lower limit. Small requests help a slow server to meet the
    #: deadline, and a batching server merges them.
    rows_per_request: int = 256
    #: Pending requests of one call. The client sends fewer while the server is busy. The memory of a call grows with
    #: this number and with the batch size.
    requests_in_flight: int = 4
    #: Largest message, in MiB. gRPC's own limit is 4, about 5 300 digits.
    message_mib: int = 64
    #: Rows of the largest sample: 784 MB of MNIST-sized digits. A stream has no limit.
    sample_rows: int = 1_000_000

    def __post_init__(self) -> None:
        for name in ("rows_per_request", "requests_in_flight", "message_mib", "sample_rows"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} is {getattr(self, name)}; expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class Keepalive:
    """Pings on an idle connection. They detect a dead server while the client waits for its answer.

    gRPC servers, including TensorFlow Serving, close a connection that pings more than once in 300 s without sending
    data. For more frequent pings, set ``grpc.http2.min_recv_ping_interval_without_data_ms`` on the server.
    """

    #: Seconds without data before a ping.
    every_s: float = 310.0
    #: Seconds to wait for the answer to a ping before the connection is closed.
    answer_s: float = 20.0

    def __post_init__(self) -> None:
        for name, value in (("every_s", self.every_s), ("answer_s", self.answer_s)):
            if not 0 < value < 2**31 / 1000:  # gRPC counts milliseconds in 32 bits
                raise InvalidInputError(f"{name} is {value}; expected more than 0 and less than 2 000 000 seconds")


class Compression(IntEnum):
    """Compression of requests, with gRPC's numbers.

    It saves little, because a request holds only a label and a seed per digit. Compressed answers save time on a slow
    network. To get them, start TensorFlow Serving or ``digitforge serve`` with
    ``--grpc_channel_arguments=grpc.default_compression_algorithm=2``.
    """

    NONE = 0
    DEFLATE = 1
    GZIP = 2


@dataclass(frozen=True, kw_only=True)
class TLS:
    """Encryption, optionally with a client certificate (mutual TLS).

    Each file is a path, or the content of a PEM file as bytes or text. A path is read when a client is created. Workers
    on other machines read the same paths there.

    Raises:
        InvalidInputError: a value has the wrong type, or a certificate or its key is missing.
    """

    #: Certificates to trust. None trusts gRPC's default certificates.
    ca: str | Path | bytes | None = None
    #: The client's certificate, for mutual TLS.
    certificate: str | Path | bytes | None = None
    #: The private key of *certificate*.
    key: str | Path | bytes | None = field(default=None, repr=False)
    #: Name in the server's certificate, if it differs from the target's name.
    server_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("ca", "certificate", "key"):
            object.__setattr__(self, name, _path_or_pem(name, getattr(self, name)))
        if self.server_name is not None and not (isinstance(self.server_name, str) and self.server_name):
            raise InvalidInputError(f"server_name is {self.server_name!r}; expected a host name, or None")
        if (self.certificate is None) != (self.key is None):
            given, missing = ("key", "certificate") if self.certificate is None else ("certificate", "key")
            raise InvalidInputError(f"TLS has a {given} but no {missing}; mutual TLS needs both")


def _path_or_pem(name: str, value: Any) -> Path | bytes | None:
    """Tell paths from PEM. Paths become absolute, because workers may have another working directory."""
    if isinstance(value, str) and "-----BEGIN" in value:
        value = value.encode()
    if isinstance(value, bytes) and b"-----BEGIN" not in value:
        raise InvalidInputError(
            f"{name} is {len(value)} bytes that are not PEM; expected a path, or PEM as bytes or text"
        )
    if value is None or isinstance(value, bytes):
        return value
    if not isinstance(value, str | Path) or value == "":
        shown = repr(value) if value == "" else f"of type {type(value).__name__}"
        raise InvalidInputError(f"{name} is {shown}; expected a path, or PEM as bytes or text")
    return Path(value).absolute()
