"""How a client talks to its server: small value objects with documented defaults."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from digitforge_client.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class Timeout:
    """How long to wait, in seconds; None waits without limit."""

    # One request, all retries of `Retry` included; also how long a busy server is asked again.
    request_s: float | None = 30.0
    outage_s: float | None = 60.0  # how long a stream waits for a server that has gone away or is busy

    def __post_init__(self) -> None:
        for name, value in (("request_s", self.request_s), ("outage_s", self.outage_s)):
            if value is not None and not value >= 0:
                raise InvalidInputError(f"{name} is {value}; expected seconds, 0 or more, or None for no limit")


@dataclass(frozen=True, kw_only=True)
class Retry:
    """gRPC's own retries, on UNAVAILABLE only. Repeating is safe: the same addresses are the same images."""

    attempts: int = 4  # with the first one; 1 means no retries, and gRPC allows 5 at most
    first_wait_s: float = 0.1  # gRPC draws each wait at random around its value
    longest_wait_s: float = 2.0  # each wait doubles up to this

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= 5:
            raise InvalidInputError(f"attempts is {self.attempts}; expected 1 to 5")
        if not 0 < self.first_wait_s <= self.longest_wait_s:
            raise InvalidInputError("expected 0 < first_wait_s <= longest_wait_s")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much at once."""

    # Of one request; the generator's own limit is respected as well. Small ones are answered soon, so that a slow
    # server meets the deadline; a batching server merges them.
    rows_per_request: int = 256
    # Of one call; fewer while the server is busy. Bounds the call's memory, with the batch that is being filled.
    requests_in_flight: int = 4
    message_mib: int = 64  # largest answer accepted; gRPC's own limit is 4, about 5 300 digits
    sample_rows: int = 1_000_000  # largest single sample, 784 MB of MNIST-sized digits; a stream has no limit

    def __post_init__(self) -> None:
        for name in ("rows_per_request", "requests_in_flight", "message_mib", "sample_rows"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} is {getattr(self, name)}; expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class Keepalive:
    """Pings on a quiet connection, so that a peer that vanished is noticed while an answer is awaited.

    Servers of gRPC, TensorFlow Serving among them, close a connection that pings more often than every 300 s without
    data between; more frequent pings need ``grpc.http2.min_recv_ping_interval_without_data_ms`` on their side.
    """

    every_s: float = 310.0  # without data, before a ping
    answer_s: float = 20.0  # without an answer to it, before the connection is given up

    def __post_init__(self) -> None:
        for name, value in (("every_s", self.every_s), ("answer_s", self.answer_s)):
            if not 0 < value < 2**31 / 1000:  # gRPC counts milliseconds in 32 bits
                raise InvalidInputError(f"{name} is {value}; expected seconds, more than 0 and less than 2 000 000")


class Compression(IntEnum):
    """Of requests, as gRPC numbers it.

    A request is a label and a seed for each digit, so little is gained. Answers are compressed if the server does that,
    whatever is chosen here: TensorFlow Serving and ``digitforge serve`` do with
    ``--grpc_channel_arguments=grpc.default_compression_algorithm=2``. On a slow network that pays.
    """

    NONE = 0
    DEFLATE = 1
    GZIP = 2


@dataclass(frozen=True, kw_only=True)
class TLS:
    """Encryption, and on request a proof of who the client is. All files are PEM."""

    ca: Path | None = None  # certificates to trust; None: those of the system
    certificate: Path | None = None  # the client's own, for mutual TLS
    key: Path | None = None  # the client's private key, with `certificate`
    server_name: str | None = None  # name in the server's certificate where it is not the target's

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidInputError("mutual TLS needs both `certificate` and `key`")
