"""`AsyncDigitClient`: the client for asyncio, with the same methods as `DigitClient`."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt

from digitforge_client.augmentation.augment import augment
from digitforge_client.augmentation.resampling import PixelRange, Strategy
from digitforge_client.batch import Addresses, Batch, addresses_of
from digitforge_client.client import DEFAULT_TARGET, check_targets
from digitforge_client.common.notebook import NotebookBar
from digitforge_client.contract import MAX_ROWS, MODEL_NAME
from digitforge_client.errors import DigitforgeError, ServerError, ServerUnavailableError
from digitforge_client.latent_space import ScalingOptions
from digitforge_client.options import TLS, Compression, Keepalive, Limits, Retry, Timeout
from digitforge_client.protocol import queries, sampling
from digitforge_client.protocol.connection import Connection
from digitforge_client.protocol.description import Generator, Metadata
from digitforge_client.protocol.rows import SampleOptions, SampleSpec
from digitforge_client.protocol.steps import Emit, Explain, Pause, Progress, Receive, Send, Steps, out_of_memory
from digitforge_client.transport.channel import (
    Headers,
    Settings,
    Transport,
    channel_options,
    checked_headers,
    trace_context,
)
from digitforge_client.transport.rpc_errors import translate
from digitforge_client.transport.tls import read_credentials
from digitforge_client.transport.unavailable import explain
from digitforge_client.transport.wire import Method

T = TypeVar("T")


class AsyncDigitClient:
    """Requests labeled synthetic digits from a server without blocking the event loop.

    It works like `DigitClient`. Await the methods, and use ``async for`` with `stream`. Canceling a task cancels its
    requests. To leave a stream early, use it inside ``contextlib.aclosing``. Several event loops may share a client.

    Unlike `DigitClient`, it does not work in a process that was forked after its use, and says so. Use the start method
    ``"spawn"`` of multiprocessing, or `DigitClient`.

    Args:
        target: as for `DigitClient`.
        model: as for `DigitClient`.
        version: as for `DigitClient`.
        label: as for `DigitClient`.
        timeout: as for `DigitClient`.
        retry: as for `DigitClient`.
        limits: as for `DigitClient`.
        tls: as for `DigitClient`.
        keepalive: as for `DigitClient`.
        compression: as for `DigitClient`.
        headers: as for `DigitClient`.
        transports: as for `DigitClient`.
    """

    def __init__(
        self,
        target: str | Sequence[str] = DEFAULT_TARGET,
        *,
        model: str = MODEL_NAME,
        version: int | None = None,
        label: str | None = None,
        timeout: Timeout = Timeout(),  # noqa: B008 - frozen
        retry: Retry = Retry(),  # noqa: B008
        limits: Limits = Limits(),  # noqa: B008
        tls: TLS | None = None,
        keepalive: Keepalive | None = Keepalive(),  # noqa: B008
        compression: Compression = Compression.NONE,
        headers: Headers = (),
        transports: Sequence[Transport] | None = None,
    ) -> None:
        settings = Settings(
            retry=retry, limits=limits, tls=tls, keepalive=keepalive, compression=compression, headers=headers
        )
        self._transports: Sequence[Any] = transports or [_AsyncChannel(one, settings) for one in check_targets(target)]
        self._timeout = timeout
        self._connection = Connection(
            model=model,
            version=version,
            label=label,
            targets=[transport.target for transport in self._transports],
            timeout=timeout,
            limits=limits,
        )

    async def sample(self, n: int | None = None, **options: Unpack[SampleOptions]) -> Batch:
        """Request digits; see `DigitClient.sample`."""
        steps = sampling.sample(
            self._connection,
            SampleSpec.of(n, **options),
        )
        return await self._run(steps)

    def stream(
        self,
        n: int | None = None,
        *,
        batch_size: int = MAX_ROWS,
        on_change: Literal["raise", "accept"] = "raise",
        **options: Unpack[SampleOptions],
    ) -> AsyncGenerator[Batch, None]:
        """Request any number of digits, batch by batch; see `DigitClient.stream`."""
        steps = sampling.stream(
            self._connection,
            SampleSpec.of(n, **options),
            batch_size=batch_size,
            on_change=on_change,
            outage_s=self._timeout.outage_s,
        )
        return self._emitted(steps)

    async def fetch(self, addresses: Batch | Addresses | Iterable[tuple[int, int]]) -> Batch:
        """Request the digits of addresses; see `DigitClient.fetch`."""
        return await self._run(sampling.fetch(self._connection, addresses_of(addresses)))

    async def augment(
        self,
        X: Any,
        y: Any,
        *,
        strategy: Strategy = "auto",
        synthetic_per_real: float | None = None,
        pixel_range: PixelRange | None = None,
        seed: int | None = None,
        start: int = 0,
        **scaling: Unpack[ScalingOptions],
    ) -> tuple[Any, Any]:
        """Append synthetic digits to a labeled data set; see `DigitClient.augment`."""
        steps = augment(
            self._connection,
            X,
            y,
            strategy=strategy,
            synthetic_per_real=synthetic_per_real,
            pixel_range=pixel_range,
            seed=seed,
            start=start,
            **scaling,
        )
        augmented = await self._run(steps)
        return augmented.X, augmented.y

    async def latents(self, seeds: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Request the latents of row seeds; see `DigitClient.latents`."""
        return await self._run(queries.latents(self._connection, seeds))

    async def from_latents(
        self, latents: npt.ArrayLike, *, labels: Any = None, class_weights: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.uint8]:
        """Request the digits of given latents; see `DigitClient.from_latents`."""
        return await self._run(
            queries.from_latents(self._connection, latents, labels=labels, class_weights=class_weights)
        )

    async def interpolate(
        self, first: tuple[Any, int], last: tuple[Any, int], *, steps: int = 16
    ) -> npt.NDArray[np.uint8]:
        """Request the digits between two addresses; see `DigitClient.interpolate`."""
        return await self._run(queries.interpolate(self._connection, first, last, steps=steps))

    async def seen(self, images: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Find out which images the generator was trained on; see `DigitClient.seen`."""
        return await self._run(queries.seen(self._connection, images))

    async def generator(self) -> Generator:
        """Return the generator; see `DigitClient.generator`."""
        return await self._run(self._connection.generator())

    async def metadata(self) -> Metadata:
        """Request the model's version and signatures; see `DigitClient.metadata`."""
        return await self._run(self._connection.metadata())

    async def card(self) -> dict[str, Any]:
        """Request the generator's card; see `DigitClient.card`."""
        return await self._run(self._connection.card())

    async def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the server listens and has loaded the model; see `DigitClient.wait_ready`."""
        await self._run(self._connection.ready(timeout_s))

    async def close(self) -> None:
        """Close the connection and cancel the pending requests. A later call opens the connection again."""
        for transport in self._transports:
            closing = transport.close()
            if inspect.isawaitable(closing):
                await closing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        """Execute steps and return their result."""

        def with_result_emitted() -> Steps[None]:
            yield Emit(value=(yield from steps))

        emitted = self._emitted(with_result_emitted())
        try:
            return await anext(emitted)
        finally:
            await emitted.aclose()

    async def _emitted(self, steps: Steps[None]) -> AsyncGenerator[Any, None]:
        """Execute steps one by one, and yield the values that they emit."""
        outcome: Any = None
        failure: ServerError | None = None
        bar = NotebookBar()
        try:
            while True:
                try:
                    step = steps.send(outcome) if failure is None else steps.throw(failure)
                except StopIteration:
                    return
                except MemoryError as error:
                    raise out_of_memory(error) from error
                outcome, failure = None, None
                match step:
                    case Send():
                        outcome = self._transports[step.at].send(
                            step.method, step.request, timeout_s=step.timeout_s, wait=step.wait
                        )
                    case Receive():
                        try:
                            result = step.pending.result()
                            outcome = await result if inspect.isawaitable(result) else result
                        except ServerError as error:
                            failure = error
                    case Pause():
                        await asyncio.sleep(step.seconds)
                    case Explain():
                        outcome = await asyncio.to_thread(self._transports[step.at].explain, step.error)
                    case Progress():
                        bar.update(step.done, step.total)
                    case Emit():
                        yield step.value
        finally:
            steps.close()


class _AsyncChannel:
    """Sends messages to one target. Each event loop opens its own gRPC channel on first use."""

    def __init__(self, target: str, settings: Settings) -> None:
        self.target = target
        self._options = channel_options(target, settings)
        self._credentials = None if settings.tls is None else read_credentials(settings.tls)
        self._headers = checked_headers(settings.headers)
        self._lock = threading.Lock()  # event loops may run in several threads
        self._channels: dict[asyncio.AbstractEventLoop, Any] = {}

    def send(self, method: Method, request: Any, *, timeout_s: float | None, wait: bool) -> _AsyncCall:
        """Send a message without waiting for the answer."""
        _check_process()
        loop = asyncio.get_running_loop()
        with self._lock:
            for ended in [each for each in self._channels if each.is_closed()]:
                del self._channels[ended]
            channel = self._channels.get(loop)
            if channel is None:
                channel = self._channels[loop] = (
                    grpc.aio.insecure_channel(self.target, options=self._options)
                    if self._credentials is None
                    else grpc.aio.secure_channel(self.target, self._credentials.grpc, options=self._options)
                )
        call = channel.unary_unary(
            method.path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=method.reply.FromString,
        )
        pending = call(request, timeout=timeout_s, metadata=self._headers + trace_context(), wait_for_ready=wait)
        return _AsyncCall(
            pending,
            target=self.target,
            model=request.model_spec.name,
            timeout_s=timeout_s,
            on_timeout=lambda: self._abandon(loop, channel),
        )

    def explain(self, error: ServerUnavailableError) -> ServerUnavailableError:
        """Find out why the target is unavailable, and return an error that says it."""
        return explain(error, target=self.target, credentials=self._credentials)

    def _abandon(self, loop: asyncio.AbstractEventLoop, channel: Any) -> None:
        """Send no further messages through a channel that timed out. Its connection may be dead."""
        with self._lock:
            if self._channels.get(loop) is channel:
                del self._channels[loop]

    async def close(self) -> None:
        """Close the channel of the current event loop. Other event loops keep theirs."""
        with self._lock:
            channel = self._channels.pop(asyncio.get_running_loop(), None)
        if channel is not None:
            await channel.close()


#: The process that uses gRPC for asyncio. None before the first use.
_process: int | None = None


def _check_process() -> None:
    """Raise an error in a forked process. gRPC for asyncio would crash or hang there.

    Raises:
        DigitforgeError: an ancestor of this process had used `AsyncDigitClient` before it forked.
    """
    global _process  # noqa: PLW0603 - gRPC's state is global too
    if _process is None:
        _process = os.getpid()
    elif _process != os.getpid():
        raise DigitforgeError(
            f"AsyncDigitClient cannot be used in this process, because process {_process} used it and then forked; "
            'start processes with multiprocessing.get_context("spawn"), or use DigitClient, which works after a fork'
        )


class _AsyncCall:
    """A pending request. It turns gRPC's errors into digitforge's errors."""

    def __init__(
        self, call: Any, *, target: str, model: str, timeout_s: float | None, on_timeout: Callable[[], None]
    ) -> None:
        self._call = asyncio.ensure_future(call)
        self._on_timeout = on_timeout
        self._target = target
        self._model = model
        self._timeout_s = timeout_s

    async def result(self) -> Any:
        """Wait for the answer and return the message; raises ServerError."""
        try:
            return await self._call
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._on_timeout()
            failure = translate(error, target=self._target, model=self._model, timeout_s=self._timeout_s)
        raise failure

    def arrived(self) -> bool:
        """Whether a successful answer has arrived. False if the request is still waiting or has failed."""
        call = self._call
        return call.done() and not call.cancelled() and call.exception() is None

    def cancel(self) -> None:
        """Stop waiting."""
        if not self._call.cancel() and not self._call.cancelled():
            self._call.exception()  # reads the error; otherwise asyncio warns that it was never retrieved
