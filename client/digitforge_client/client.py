"""`DigitClient`: requests labeled synthetic digits from a server."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from digitforge_client.augmentation.augment import Augmented, augment
from digitforge_client.augmentation.resampling import PixelRange, Strategy
from digitforge_client.batch import Addresses, Batch, Batches, addresses_of
from digitforge_client.common.notebook import NotebookBar
from digitforge_client.contract import GRPC_PORT, MAX_ROWS, MODEL_NAME
from digitforge_client.errors import InvalidInputError, ServerError
from digitforge_client.latent_space import ScalingOptions
from digitforge_client.options import TLS, Compression, Keepalive, Limits, Retry, Timeout
from digitforge_client.protocol import queries, sampling
from digitforge_client.protocol.connection import Connection
from digitforge_client.protocol.description import Generator, Metadata
from digitforge_client.protocol.rows import SampleOptions, SampleSpec
from digitforge_client.protocol.steps import Emit, Explain, Pause, Progress, Receive, Send, Steps, out_of_memory
from digitforge_client.transport.channel import Channel, Headers, Settings, Transport

T = TypeVar("T")
DEFAULT_TARGET = f"localhost:{GRPC_PORT}"


class DigitClient:
    """Requests labeled synthetic digits from a server. It needs no TensorFlow.

    The first call opens the connection. Threads may share a client, and it works after a fork. Use it in a ``with``
    block to close it at the end.

    Args:
        target: where the server listens, in gRPC's syntax: ``"host:port"``, ``"unix:/path"``, or ``"dns:///name:port"``
            to use all addresses of the name in turn. With a list, requests go to the targets in turn. All targets must
            serve the same generator.
        model: the model's name on the server.
        version: number of the model's folder on the server. None for the newest.
        label: the server's label for a version, such as ``"stable"``, instead of *version*. The server looks it up for
            each request. If the label moves during a stream, this counts as a change of the generator.
        timeout: how long to wait.
        retry: gRPC's retries.
        limits: how much to request at once.
        tls: encryption. None for a plain connection.
        keepalive: pings on an idle connection. None for no pings.
        compression: compression of requests. The server chooses how to compress its answers.
        headers: gRPC metadata for every request, such as ``[("authorization", "Bearer …")]``.
        transports: used instead of gRPC, for tests. They replace *target* and the options of the connection.

    Example:
        >>> with DigitClient("localhost:8500") as client:  # doctest: +SKIP
        ...     batch = client.sample(1000, seed=7)
        >>> batch.images.shape, batch.labels[:3]  # doctest: +SKIP
        ((1000, 28, 28), array([0, 1, 2]))
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
        self._transports = transports or [Channel(one, settings) for one in check_targets(target)]
        self._configuration = {
            "target": target,
            "model": model,
            "version": version,
            "label": label,
            "timeout": timeout,
            "retry": retry,
            "limits": limits,
            "tls": tls,
            "keepalive": keepalive,
            "compression": compression,
            "headers": headers,
            "transports": transports,
        }
        self._timeout = timeout
        self._connection = Connection(
            model=model,
            version=version,
            label=label,
            targets=[transport.target for transport in self._transports],
            timeout=timeout,
            limits=limits,
        )

    def sample(self, n: int | None = None, **options: Unpack[SampleOptions]) -> Batch:
        """Request digits.

        Args:
            n: number of digits. May be omitted if there is a label for each digit. 0 gives an empty batch without
                asking a server.
            labels: class numbers or class names, one for each digit or a single one for all.
                None gives balanced classes: row *i* has class ``i mod K``.
            seed: 0 … 2²¹ − 1. None draws a seed; the batch contains it.
            start: number of the first row to request. The rows of a seed are numbered from 0.
            truncation: largest absolute value of a latent's components, see `latent_space.truncated`. A smaller value
                gives more typical digits with less variety. Try 1 for normal latents. Uniform latents allow at most 1.
                None leaves the latents unchanged.
            expansion: factor for the latents, instead of *truncation*. A larger factor gives more unusual digits, and
                more digits that do not look like their label. Try 1 to 1.6. None leaves the latents unchanged.
            class_weights: for blends of classes, instead of *labels*: (n, K) floats, or (K,) for all digits. Each row
                sums to 1. The labels of blends are −1.

        Raises:
            InvalidInputError: an argument is out of range, or the generator lacks a class.
            ServerError: the server could not answer; the subclass says why.
        """
        steps = sampling.sample(
            self._connection,
            SampleSpec.of(n, **options),
        )
        return self._run(steps)

    def stream(
        self,
        n: int | None = None,
        *,
        batch_size: int = MAX_ROWS,
        on_change: Literal["raise", "accept"] = "raise",
        **options: Unpack[SampleOptions],
    ) -> Batches:
        """Request any number of digits, batch by batch, in order. Memory is bounded.

        The stream continues if the server is away or busy for up to ``Timeout.outage_s``. It sends fewer requests at
        once to a busy server. To continue a stream that ended early, call `stream` again with the same *seed*, a later
        *start* and fewer rows. Closing the iterator cancels the pending requests.

        Args:
            n: number of digits. May be omitted if there is a label for each digit.
            batch_size: digits per batch. The last batch may be smaller.
            on_change: what to do if the server switches to another generator. ``"raise"`` raises
                GeneratorChangedError. ``"accept"`` continues, and later batches have another ``generator_id``. A batch
                never mixes two generators.
            options: as for `sample`.

        Raises:
            InvalidInputError: an argument is out of range (raised at once), or the generator lacks a class (raised with
                the first batch).
            ServerError: the server could not answer; the subclass says why.
        """
        steps = sampling.stream(
            self._connection,
            SampleSpec.of(n, **options),
            batch_size=batch_size,
            on_change=on_change,
            outage_s=self._timeout.outage_s,
        )
        return self._emitted(steps)

    def fetch(self, addresses: Batch | Addresses | Iterable[tuple[int, int]]) -> Batch:
        """Request the digits of addresses, in the same order.

        Args:
            addresses: an earlier batch, its ``addresses`` or a part of them, or pairs of label and row seed. Pairs
                name no generator, so any generator may answer.

        Raises:
            GeneratorChangedError: the server has another generator than the addresses.
            InvalidInputError: *addresses* are invalid, or there are more than ``Limits.sample_rows``.
            ServerError: the server could not answer; the subclass says why.
        """
        return self._run(sampling.fetch(self._connection, addresses_of(addresses)))

    def augment(
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
        """Append synthetic digits to a labeled data set.

        Args:
            X: (n, H·W·C), (n, H, W) or (n, H, W, C) images of the generator's size: an array, a list or a DataFrame.
            y: (n,) class numbers or class names, in an array, a list, a tuple or a pandas container.
            strategy: the sampling strategy of imbalanced-learn's over-samplers: ``"auto"`` or ``"not majority"``,
                ``"minority"``, ``"not minority"``, ``"all"``, a dictionary with the total number of images per class
                afterwards, or a function that takes *y* and returns such a dictionary. A dictionary may contain classes
                that *y* lacks. For two classes, a number up to 1 is the size of the smaller class afterwards, as a
                share of the larger one.
            synthetic_per_real: number of synthetic digits per real image, instead of *strategy*.
            pixel_range: the values of black and white in *X*. Required unless *X* is uint8, because it is never
                guessed.
            seed: as for `sample`.
            start: as for `sample`.
            scaling: *truncation* or *expansion*, as for `sample`.

        Returns:
            Images and labels, in the container, layout, dtype and range of *X* and *y*. Containers other than lists,
            tuples and those of pandas become NumPy arrays. If a dtype cannot hold the synthetic values, the result has
            a wider one. A pandas categorical gets the missing categories.

        Raises:
            InvalidInputError: the images do not fit the generator, the generator lacks a class, or the strategy is
                impossible.
            ServerError: the server could not answer; the subclass says why.
        """
        augmented = self._augment(
            X,
            y,
            strategy=strategy,
            synthetic_per_real=synthetic_per_real,
            pixel_range=pixel_range,
            seed=seed,
            start=start,
            **scaling,
        )
        return augmented.X, augmented.y

    def _augment(self, X: Any, y: Any, *, start: int = 0, **how: Any) -> Augmented:
        """Like `augment`, but also return the number of added digits and their addresses. The sampler needs them."""
        return self._run(augment(self._connection, X, y, start=start, **how))

    def latents(self, seeds: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Request the latents of row seeds. Latents do not depend on labels.

        Args:
            seeds: (n,) integers, row seeds.

        Returns:
            (n, d) float32. The generator's card names their distribution.

        Raises:
            InvalidInputError: *seeds* are not row seeds.
            ServerError: the server could not answer; the subclass says why.
        """
        return self._run(queries.latents(self._connection, seeds))

    def from_latents(
        self, latents: npt.ArrayLike, *, labels: Any = None, class_weights: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.uint8]:
        """Request the digits of given latents.

        An unconditional generator takes neither *labels* nor *class_weights*.

        Args:
            latents: (n, d) floats.
            labels: class numbers or class names, one for each latent or a single one for all.
            class_weights: instead of *labels*: (n, K) floats, or (K,) for all latents. Each row sums to 1.

        Returns:
            (n, H, W) uint8, or (n, H, W, C) if C > 1.

        Raises:
            InvalidInputError: the shapes do not fit each other or the generator.
            ServerError: the server could not answer; the subclass says why.
        """
        return self._run(queries.from_latents(self._connection, latents, labels=labels, class_weights=class_weights))

    def interpolate(self, first: tuple[Any, int], last: tuple[Any, int], *, steps: int = 16) -> npt.NDArray[np.uint8]:
        """Request the digits between two addresses, including both ends.

        Normal latents follow the great circle. Uniform latents and class weights follow a straight line.

        Args:
            first: label and row seed.
            last: label and row seed.
            steps: number of digits; 2 or more.

        Returns:
            (steps, H, W) uint8, or (steps, H, W, C) if C > 1.

        Raises:
            InvalidInputError: an address or the number of steps is out of range.
            ServerError: the server could not answer; the subclass says why.
        """
        return self._run(queries.interpolate(self._connection, first, last, steps=steps))

    def generator(self) -> Generator:
        """Return the generator: its id, classes and image shape. The answer is cached until the generator changes."""
        return self._run(self._connection.generator())

    def metadata(self) -> Metadata:
        """Request the model's version and signatures."""
        return self._run(self._connection.metadata())

    def card(self) -> dict[str, Any]:
        """Request the generator's card: identity, training data, metrics."""
        return self._run(self._connection.card())

    def seen(self, images: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Find out which images the generator was trained on. Do not evaluate the generator on these images.

        Args:
            images: (n, H, W) or (n, H, W, C) uint8, as published, before any resizing; or (n,) int64 hashes from
                `contract.image_hashes`.

        Returns:
            (n,) bool, true for training images.

        Raises:
            InvalidInputError: *images* are neither uint8 images nor int64 hashes.
            ServerError: the server could not answer; the subclass says why.
        """
        return self._run(queries.seen(self._connection, images))

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the server listens and has loaded the model.

        Raises:
            ServerTimeoutError: the server is not ready in time.
        """
        self._run(self._connection.ready(timeout_s))

    def close(self) -> None:
        """Close the connection and cancel the pending requests. A later call opens the connection again."""
        for transport in self._transports:
            transport.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copying or pickling a client makes a new client with the same configuration."""
        return _client, (self._configuration,)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        """Execute steps and return their result."""

        def with_result_emitted() -> Steps[None]:
            yield Emit(value=(yield from steps))

        return next(self._emitted(with_result_emitted()))

    def _emitted(self, steps: Steps[None]) -> Any:
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
                            outcome = step.pending.result()
                        except ServerError as error:
                            failure = error
                    case Pause():
                        time.sleep(step.seconds)
                    case Explain():
                        outcome = self._transports[step.at].explain(step.error)
                    case Progress():
                        bar.update(step.done, step.total)
                    case Emit():
                        yield step.value
        finally:
            steps.close()


def _client(configuration: dict[str, Any]) -> DigitClient:
    return DigitClient(**configuration)


def check_targets(target: str | Sequence[str]) -> list[str]:
    """Return the targets as a list.

    Raises:
        InvalidInputError: there are no targets, or one is not a valid gRPC target.
    """
    targets = [target] if isinstance(target, str) else list(target)
    for one in targets or [""]:
        # Without a port, gRPC would use port 443. It would treat a URL as a host name.
        if not isinstance(one, str) or ":" not in one or one.startswith(("http:", "https:")):
            raise InvalidInputError(
                f'target is {target!r}; expected "host:port" with the gRPC port, such as "{DEFAULT_TARGET}", '
                '"unix:/path" or "dns:///name:port", or a list of these'
            )
    return targets
