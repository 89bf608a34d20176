"""Sends messages to one target over gRPC. The connection opens on first use. All errors are digitforge's errors.

gRPC channels do not survive a fork, and PyTorch's DataLoader forks. So each process opens its own channel when it
first sends a message.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import grpc

from digitforge_client.errors import InvalidInputError, ServerError, ServerUnavailableError
from digitforge_client.options import TLS, Compression, Keepalive, Limits, Retry
from digitforge_client.transport.rpc_errors import translate
from digitforge_client.transport.tls import read_credentials
from digitforge_client.transport.unavailable import explain, is_loopback
from digitforge_client.transport.waiting import WaitingThreads
from digitforge_client.transport.wire import Method

#: Wait before gRPC reconnects. By default it grows to two minutes, but a server restarts much faster.
_FIRST_RECONNECT_MS: Final = 100
_LONGEST_RECONNECT_MS: Final = 2_000

Headers = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a channel, for both clients."""

    retry: Retry
    #: A channel uses only *message_mib*.
    limits: Limits
    #: None for an unencrypted connection.
    tls: TLS | None
    #: None for no pings.
    keepalive: Keepalive | None
    #: Compression of requests.
    compression: Compression
    #: gRPC metadata for every request, such as ``[("authorization", "Bearer …")]``.
    headers: Headers


class Pending(Protocol):
    """A request that was sent and not answered yet."""

    def result(self) -> Any:
        """Wait for the answer and return the message; raises ServerError."""

    def arrived(self) -> bool:
        """Whether a successful answer has arrived. False if the request is still waiting or has failed."""

    def cancel(self) -> None:
        """Stop waiting. This does nothing if the answer has arrived."""


class Transport(Protocol):
    """The interface between a client and a target. A fake for tests implements it too."""

    target: str

    def send(self, method: Method, request: Any, *, timeout_s: float | None, wait: bool = False) -> Pending:
        """Send a message. With *wait*, wait until a server listens instead of failing at once."""

    def explain(self, error: ServerUnavailableError) -> ServerUnavailableError:
        """Find out why the target is unavailable, and return an error that says it. This may take a second."""

    def close(self) -> None:
        """Close the connection. A later `send` opens a new one."""


class Channel:
    """Sends messages to one target. Each process opens its own gRPC channel on first use. Threads may share the object.

    Args:
        target: in gRPC's syntax: ``host:port``, ``unix:/path``, or ``dns:///name:port`` to use all addresses of the
            name in turn.
        settings: settings of the channel.

    Raises:
        InvalidInputError: a certificate or key cannot be used, or a header is invalid.
    """

    def __init__(self, target: str, settings: Settings) -> None:
        self.target = target
        self._options = channel_options(target, settings)
        self._credentials = None if settings.tls is None else read_credentials(settings.tls)
        self._headers = checked_headers(settings.headers)
        self._reset()
        _CHANNELS.add(self)

    def _reset(self) -> None:
        """Drop the connection without closing it. After a fork, the inherited one still belongs to the parent."""
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._threads = WaitingThreads()

    def send(self, method: Method, request: Any, *, timeout_s: float | None, wait: bool = False) -> Pending:
        """Send a message without waiting for the answer."""
        with self._lock:
            if self._channel is None:
                self._channel = (
                    grpc.insecure_channel(self.target, options=self._options)
                    if self._credentials is None
                    else grpc.secure_channel(self.target, self._credentials.grpc, options=self._options)
                )
            call = self._channel.unary_unary(
                method.path,
                request_serializer=type(request).SerializeToString,
                response_deserializer=method.reply.FromString,
            )
            used = self._channel
            ask = partial(
                call, request, timeout=timeout_s, metadata=self._headers + trace_context(), wait_for_ready=wait
            )
            future = self._threads.submit(ask)
        return _Call(
            future,
            target=self.target,
            model=request.model_spec.name,
            timeout_s=timeout_s,
            on_timeout=lambda: self._abandon(used),
        )

    def explain(self, error: ServerUnavailableError) -> ServerUnavailableError:
        return explain(error, target=self.target, credentials=self._credentials)

    def _abandon(self, channel: grpc.Channel) -> None:
        """Send no further messages through a channel that timed out.

        Its connection may be dead without an error, for example if a firewall drops packets. Requests that it has
        already sent may still be answered. gRPC closes a channel that is no longer in use.
        """
        with self._lock:
            if self._channel is channel:
                self._channel = None

    def close(self) -> None:
        """Close the connection and cancel its requests. A later `send` opens a new one."""
        with self._lock:
            channel, self._channel = self._channel, None
            self._threads.end()
        if channel is not None:
            channel.close()


class _Call:
    """A pending request. It turns gRPC's errors into digitforge's errors."""

    def __init__(
        self, future: Future[Any], *, target: str, model: str, timeout_s: float | None, on_timeout: Callable[[], None]
    ) -> None:
        self._future = future
        self._on_timeout = on_timeout
        self._target = target
        self._model = model
        self._timeout_s = timeout_s

    def result(self) -> Any:
        try:
            return self._future.result()
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._on_timeout()
            failure = translate(error, target=self._target, model=self._model, timeout_s=self._timeout_s)
        except (CancelledError, ValueError) as error:  # ValueError: the channel was closed before the request was sent
            raise ServerError("the request was canceled", code="CANCELLED") from error
        raise failure

    def arrived(self) -> bool:
        future = self._future
        return future.done() and not future.cancelled() and future.exception() is None

    def cancel(self) -> None:
        self._future.cancel()  # a request that was already sent goes on until its answer, its deadline or `close`


_CHANNELS: weakref.WeakSet[Channel] = weakref.WeakSet()


def _reset_all() -> None:
    for channel in _CHANNELS:
        channel._reset()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_reset_all)


def channel_options(target: str, settings: Settings) -> list[tuple[str, Any]]:
    """gRPC's options for a channel."""
    retry, keepalive, tls = settings.retry, settings.keepalive, settings.tls
    service: dict[str, Any] = {}
    if retry.attempts > 1:
        service["methodConfig"] = [
            {
                "name": [{"service": "tensorflow.serving.PredictionService"}],
                "retryPolicy": {
                    "maxAttempts": retry.attempts,
                    "initialBackoff": f"{retry.first_wait_s:.3f}s",
                    "maxBackoff": f"{retry.longest_wait_s:.3f}s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    if target.startswith("dns:"):
        service["loadBalancingConfig"] = [{"round_robin": {}}]
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", json.dumps(service)),
        ("grpc.max_receive_message_length", settings.limits.message_mib * 2**20),
        ("grpc.max_send_message_length", settings.limits.message_mib * 2**20),
        ("grpc.default_compression_algorithm", int(settings.compression)),
        ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", _LONGEST_RECONNECT_MS),
        # By default, channels share connections. A forked child would write into a connection of its parent.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if keepalive is not None:
        answer_ms = round(keepalive.answer_s * 1000)
        options += [
            ("grpc.keepalive_time_ms", round(keepalive.every_s * 1000)),
            ("grpc.keepalive_timeout_ms", answer_ms),
            # gRPC also sends its own pings, and waits for their answers before it pings again.
            ("grpc.http2.ping_timeout_ms", answer_ms),
            ("grpc.http2.max_pings_without_data", 0),  # 0: no limit; gRPC's default stops after two pings
        ]
    if is_loopback(target):
        options.append(("grpc.enable_http_proxy", 0))  # http_proxy is meant for other machines
    if tls is not None and tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def trace_context() -> tuple[tuple[str, str], ...]:
    """Headers that let the server continue the caller's OpenTelemetry trace. Empty if the program does not use it."""
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry import propagate

    headers: dict[str, str] = {}
    propagate.inject(headers)
    return tuple((name.lower(), value) for name, value in headers.items())


def checked_headers(headers: Headers) -> tuple[tuple[str, str | bytes], ...]:
    """Check headers, and write their names in lower case, as gRPC requires.

    Raises:
        InvalidInputError: a name or a value cannot be sent. The message omits the value, which may be secret.
    """
    checked = []
    for header in headers:
        name: Any
        value: Any
        try:
            name, value = header
            name = name.lower()
            binary = name.endswith("-bin")
            valid = isinstance(value, bytes) if binary else value.isascii() and value.isprintable()
        except (TypeError, ValueError, AttributeError):
            raise InvalidInputError("a header is not a pair of texts; expected headers=[(name, value)]") from None
        if not re.fullmatch(r"[0-9a-z_.-]+", name) or name.startswith("grpc-"):
            raise InvalidInputError(
                f"the header name {name!r} is invalid; expected letters, digits, -, _ and ., not starting with grpc-"
            )
        if not valid:
            expected = "bytes" if binary else "printable ASCII text"
            raise InvalidInputError(f"the value of header {name!r} is invalid; expected {expected}")
        checked.append((name, value))
    return tuple(checked)
