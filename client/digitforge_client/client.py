"""The client: labeled synthetic digits from a server."""

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
from digitforge_client.contract import GRPC_PORT, MAX_ROWS, MODEL_NAME
from digitforge_client.errors import InvalidInputError, ServerError
from digitforge_client.latent_space import ScalingOptions
from digitforge_client.options import TLS, Compression, Keepalive, Limits, Retry, Timeout
from digitforge_client.protocol import queries, sampling
from digitforge_client.protocol.connection import Connection
from digitforge_client.protocol.description import Generator, Metadata
from digitforge_client.protocol.rows import SampleOptions, SampleSpec
from digitforge_client.protocol.steps import Emit, Pause, Receive, Send, Steps
from digitforge_client.transport.channel import Channel, Headers, Settings, Transport

T = TypeVar("T")
DEFAULT_TARGET = f"localhost:{GRPC_PORT}"


class DigitClient:
    """Asks a server for labeled synthetic digits. Needs no TensorFlow; safe to share between threads and after a fork.

    Nothing is sent before the first question. A client is also a context manager, which closes it.

    Args:
        target: where the server listens, as gRPC writes it: ``"host:port"``, ``"unix:/path"``, ``"dns:///name:port"``
            (all addresses of the name in turn), or a list of targets that serve the same generator, used in turn.
        model: the model's name on the server.
        version: number of the model's folder; None for the newest.
        timeout: how long to wait.
        retry: gRPC's retries.
        limits: how much at once.
        tls: encryption; None for a plain connection.
        keepalive: pings on a quiet connection; None for none.
        compression: of requests; answers are compressed if the server does that.
        headers: gRPC metadata sent with every request, such as ``[("authorization", "Bearer …")]``.
        transports: what to send with instead of gRPC, for tests; *target* and a connection's options are unused then.

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
            targets=[transport.target for transport in self._transports],
            timeout=timeout,
            limits=limits,
        )

    def sample(self, n: int | None = None, **options: Unpack[SampleOptions]) -> Batch:
        """Ask for digits; all of them, or an error.

        Args:
            n: how many; may be left out where there is a label for each. 0 gives an empty batch and asks no server.
            labels: class numbers or class names: one for each digit, or a single one for all.
                None: row *i* has class ``i mod K``, so that classes are balanced.
            seed: 0 … 2²¹ − 1; None draws one, which the batch then names.
            start: number of the first row of the seed.
            truncation: how far a component of the latents may lie from 0: the smaller, the more usual the digits and
                the less they vary (`latent_space.truncated`). About 1 for latents of the normal distribution, 1 at most
                for uniform ones; None: no truncation.
            expansion: instead of a truncation, what the latents are multiplied by: the larger, the more unusual digits
                there are, and digits that do not look like their label. Between 1 and 1.6 or so; None: nothing.
            class_weights: instead of labels, (n, K) floats, or (K,) for all: blends of classes, whose labels are −1.
                Each row sums to 1.

        Raises:
            InvalidInputError: an argument is out of range, or a label none of the generator's classes.
            ServerError: the server could not answer; its subclasses say why.
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
        """Ask for any number of digits, batch by batch, in order, with requests sent ahead and bounded memory.

        A server that goes away and comes back interrupts nothing, as long as it is not away for longer than
        ``Timeout.outage_s``. A busy server is asked again for as long, with fewer requests at once. To continue a
        stream that ended early, call again with the same *seed*, fewer rows and a later *start*. Closing the iterator
        cancels what is under way.

        Args:
            n: how many; may be left out where there is a label for each.
            batch_size: rows of every batch but the last.
            on_change: what to do if the server gets another generator meanwhile: raise GeneratorChangedError, or accept
                it, so that later batches have another ``generator_id``. No batch ever mixes two.
            options: as for `sample`.

        Raises:
            InvalidInputError: an argument is out of range (at once), or a label none of the generator's
                classes (with the first batch).
            ServerError: the server could not answer; its subclasses say why.
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
        """Ask for the digits of addresses: exactly those, in that order.

        Args:
            addresses: an earlier batch, its ``addresses`` or some of them, or pairs of label and row seed, which are
                taken to be of whichever generator answers.

        Raises:
            GeneratorChangedError: they are of another generator than the server's.
            InvalidInputError: they are no addresses, or more than a sample may hold.
            ServerError: the server could not answer; its subclasses say why.
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
        """Add synthetic digits to a labeled data set, after the real images.

        Args:
            X: (n, H·W·C), (n, H, W) or (n, H, W, C) images of the generator's size: an array, a list or a DataFrame.
            y: (n,) class numbers or class names, in any such container.
            strategy: as imbalanced-learn has it for over-sampling: ``"auto"`` or ``"not majority"``, ``"minority"``,
                ``"not minority"``, ``"all"``, a dictionary of totals afterwards, which may name classes that *y* lacks,
                or a function of *y* that returns one.
            synthetic_per_real: instead of a strategy, synthetic digits for each real image.
            pixel_range: values of black and of white in *X*. Never guessed: it may be left out only for uint8.
            seed: as for `sample`.
            start: as for `sample`.
            scaling: *truncation* or *expansion*, as for `sample`.

        Returns:
            Images and labels, in the containers, layout, dtype and range in which they came; the dtype is wider where
            it cannot hold the synthetic ones, and a categorical gets the categories that it lacks.

        Raises:
            InvalidInputError: the images do not fit the generator, a label is none of its classes, or the strategy
                cannot be met.
            ServerError: the server could not answer; its subclasses say why.
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
        """As `augment`, with what was added and from where; for the sampler."""
        return self._run(augment(self._connection, X, y, start=start, **how))

    def latents(self, seeds: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Ask for the latents behind row seeds; they do not depend on labels.

        Args:
            seeds: (n,) integers, row seeds.

        Returns:
            (n, d) float32, of the distribution that the card names.

        Raises:
            InvalidInputError: they are no row seeds.
            ServerError: the server could not answer; its subclasses say why.
        """
        return self._run(queries.latents(self._connection, seeds))

    def from_latents(
        self, latents: npt.ArrayLike, *, labels: Any = None, class_weights: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.uint8]:
        """Ask for the digits that latents give: for blends between classes, truncation and walks.

        Args:
            latents: (n, d) floats.
            labels: a class for each, or one for all.
            class_weights: instead of labels, (n, K) floats, each row summing to 1. An unconditional generator takes
                neither.

        Returns:
            (n, H, W) uint8, with a last axis C only if C > 1.

        Raises:
            InvalidInputError: shapes disagree with each other or with the generator.
            ServerError: the server could not answer; its subclasses say why.
        """
        return self._run(queries.from_latents(self._connection, latents, labels=labels, class_weights=class_weights))

    def interpolate(self, first: tuple[Any, int], last: tuple[Any, int], *, steps: int = 16) -> npt.NDArray[np.uint8]:
        """Ask for the digits on the way between two addresses, both ends included.

        Normal latents go along the great circle, uniform ones straight; class weights go straight.

        Args:
            first: label and row seed.
            last: label and row seed.
            steps: how many digits; 2 or more.

        Returns:
            (steps, H, W) uint8, with a last axis C only if C > 1.

        Raises:
            InvalidInputError: an address or the number of steps is out of range.
            ServerError: the server could not answer; its subclasses say why.
        """
        return self._run(queries.interpolate(self._connection, first, last, steps=steps))

    def generator(self) -> Generator:
        """What is known of the generator: its id, classes, image shape. The server is asked once, unless it changes."""
        return self._run(self._connection.generator())

    def metadata(self) -> Metadata:
        """Ask what the server serves: version and signatures."""
        return self._run(self._connection.metadata())

    def card(self) -> dict[str, Any]:
        """Ask for the generator's card: what it is, what it was trained on, how it was measured."""
        return self._run(self._connection.card())

    def seen(self, images: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Ask which images the generator was trained on: a generator must not be measured against those.

        Args:
            images: (n, H, W) or (n, H, W, C) uint8, as published, before any resizing; or (n,) int64, their
                identities (`contract.image_hashes`).

        Returns:
            (n,) bool.

        Raises:
            InvalidInputError: the array is neither.
        """
        return self._run(queries.seen(self._connection, images))

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the server listens and has loaded the model.

        Raises:
            ServerTimeoutError: it does not in time.
        """
        self._run(self._connection.ready(timeout_s))

    def close(self) -> None:
        """Close the connection and cancel what is under way. A later question opens it again."""
        for transport in self._transports:
            transport.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, and what other processes receive, are new clients of the same configuration."""
        return _client, (self._configuration,)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        """Carry out steps that emit nothing."""

        def whole() -> Steps[None]:
            yield Emit(value=(yield from steps))

        return next(self._emitted(whole()))

    def _emitted(self, steps: Steps[None]) -> Any:
        """Carry out steps one by one, and yield what they emit."""
        outcome: Any = None
        failure: ServerError | None = None
        try:
            while True:
                try:
                    step = steps.send(outcome) if failure is None else steps.throw(failure)
                except StopIteration:
                    return
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
                    case Emit():
                        yield step.value
        finally:
            steps.close()


def _client(configuration: dict[str, Any]) -> DigitClient:
    return DigitClient(**configuration)


def check_targets(target: str | Sequence[str]) -> list[str]:
    """The targets in a list.

    Raises:
        InvalidInputError: there is none, or one cannot be a target of gRPC's.
    """
    targets = [target] if isinstance(target, str) else list(target)
    for one in targets or [""]:
        # without a port gRPC would ask port 443, and a URL it would look up as a name
        if not isinstance(one, str) or ":" not in one or one.startswith(("http:", "https:")):
            raise InvalidInputError(
                f'target is {target!r}; expected "host:port", such as "{DEFAULT_TARGET}" with the port of gRPC, '
                '"unix:/path" or "dns:///name:port", or a list of such'
            )
    return targets
