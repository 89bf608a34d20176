"""A connection to one server: opens itself, sends messages, and raises only errors of the library.

gRPC channels do not survive a fork (PyTorch's DataLoader forks), so each process opens its own when it first
sends something.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import grpc

from digitforge_client.errors import InvalidInputError, ServerError
from digitforge_client.options import TLS, Compression, Keepalive, Limits, Retry
from digitforge_client.transport.rpc_errors import translate
from digitforge_client.transport.waiting import Waiters
from digitforge_client.transport.wire import Method

#: gRPC's own waits between attempts to reconnect grow to two minutes, far longer than a server needs to restart.
_FIRST_RECONNECT_MS: Final = 100
_LONGEST_RECONNECT_MS: Final = 2_000

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How connections are made, the same for both clients."""

    retry: Retry
    limits: Limits  # only `message_mib` is used here
    tls: TLS | None  # None for an unencrypted connection
    keepalive: Keepalive | None  # None for no pings
    compression: Compression  # of requests
    headers: Headers  # gRPC metadata sent with every request, such as ``[("authorization", "Bearer …")]``


class Pending(Protocol):
    """A request that is under way."""

    def result(self) -> Any:
        """Wait for the answer, a message; raises ServerError."""

    def arrived(self) -> bool:
        """Whether `result` would return an answer at once; False also where the request has failed."""

    def cancel(self) -> None:
        """Give up waiting; nothing happens if the answer is there."""


class Transport(Protocol):
    """What a client needs of a connection; a fake for tests implements these three."""

    target: str

    def send(self, method: Method, request: Any, *, timeout_s: float | None, wait: bool = False) -> Pending:
        """Send a message; with *wait*, wait for a server to listen instead of failing at once."""

    def close(self) -> None:
        """Give the connection back; a later send opens a new one."""


class Channel:
    """A gRPC connection to one target, opened on first use in each process, safe to share between threads.

    Args:
        target: as gRPC writes it: ``host:port``, ``unix:/path``, or ``dns:///name:port`` (all addresses of the name
            in turn).
        settings: how it is made.

    Raises:
        InvalidInputError: a file with a certificate or a key cannot be read.
    """

    def __init__(self, target: str, settings: Settings) -> None:
        self.target = target
        self._options = channel_options(target, settings)
        self._credentials = channel_credentials(settings.tls)
        self._headers = tuple(settings.headers)
        self._forget()
        _CHANNELS.add(self)

    def _forget(self) -> None:
        """Start afresh, without a connection; what a forked child inherits belongs to its parent."""
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._waiters = Waiters()

    def send(self, method: Method, request: Any, *, timeout_s: float | None, wait: bool = False) -> Pending:
        """Send a message without waiting for its answer."""
        with self._lock:
            if self._channel is None:
                self._channel = (
                    grpc.insecure_channel(self.target, options=self._options)
                    if self._credentials is None
                    else grpc.secure_channel(self.target, self._credentials, options=self._options)
                )
            call = self._channel.unary_unary(
                method.path,
                request_serializer=type(request).SerializeToString,
                response_deserializer=method.reply.FromString,
            )
            used = self._channel
            ask = partial(call, request, timeout=timeout_s, metadata=self._headers, wait_for_ready=wait)
            future = self._waiters.submit(ask)
        return _Call(
            future,
            target=self.target,
            model=request.model_spec.name,
            timeout_s=timeout_s,
            on_timeout=lambda: self._leave(used),
        )

    def _leave(self, channel: grpc.Channel) -> None:
        """Send nothing more through a connection that did not answer in time.

        It may be dead without anybody having been told, as behind a firewall that drops packets. What is still under
        way there may yet be answered; gRPC closes a connection that nobody uses any more.
        """
        with self._lock:
            if self._channel is channel:
                self._channel = None

    def close(self) -> None:
        """Close the connection and cancel what is under way; a later send opens a new one."""
        with self._lock:
            channel, self._channel = self._channel, None
            self._waiters.end()
        if channel is not None:
            channel.close()


class _Call:
    """An answer that is waited for, whose errors are translated."""

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
        except (CancelledError, ValueError) as error:  # ValueError: the connection was closed before it was sent
            raise ServerError("the request was cancelled", code="CANCELLED") from error
        raise failure

    def arrived(self) -> bool:
        future = self._future
        return future.done() and not future.cancelled() and future.exception() is None

    def cancel(self) -> None:
        self._future.cancel()  # what has been sent already ends with its answer, its deadline or its connection


_CHANNELS: weakref.WeakSet[Channel] = weakref.WeakSet()


def _forget_all() -> None:
    for channel in _CHANNELS:
        channel._forget()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget_all)


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
        # connections are shared between channels otherwise, and a forked child would write into its parent's
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if keepalive is not None:
        answer_ms = round(keepalive.answer_s * 1000)
        options += [
            ("grpc.keepalive_time_ms", round(keepalive.every_s * 1000)),
            ("grpc.keepalive_timeout_ms", answer_ms),
            # gRPC pings for reasons of its own too, and does not ping again before such a one is answered
            ("grpc.http2.ping_timeout_ms", answer_ms),
            ("grpc.http2.max_pings_without_data", 0),  # 0: no limit, or the pings would end after two
        ]
    if tls is not None and tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def channel_credentials(tls: TLS | None) -> grpc.ChannelCredentials | None:
    """gRPC's credentials from the files of *tls*; None for an unencrypted connection.

    Raises:
        InvalidInputError: a file cannot be read.
    """
    if tls is None:
        return None
    try:
        ca, key, certificate = (
            None if path is None else path.read_bytes() for path in (tls.ca, tls.key, tls.certificate)
        )
    except OSError as error:
        raise InvalidInputError(f"cannot read the TLS file {error.filename}: {error.strerror}") from error
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate)
