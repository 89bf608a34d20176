"""Row-by-row requests other than sampling: latents, images of latents, interpolation, seen images. It does no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.contract import ROWS_PER_SEED, SEEDS, Field, Signature, image_hashes
from digitforge_client.errors import InvalidInputError, UnexpectedReplyError
from digitforge_client.latent_space import blend, walk
from digitforge_client.protocol.connection import Connection, Pipeline
from digitforge_client.protocol.description import Generator
from digitforge_client.protocol.requests import predict_request
from digitforge_client.protocol.rows import class_weights_of
from digitforge_client.protocol.steps import Progress, Steps
from digitforge_client.transport.wire.tensors import output_of

#: gRPC does not retry requests above 256 KiB. Latents are large, so their requests hold fewer rows.
_MAX_BYTES: Final = 200 * 1024

Inputs = Mapping[str, npt.NDArray[Any]]


def seen(connection: Connection, images: npt.ArrayLike) -> Steps[npt.NDArray[np.bool_]]:
    """Find out which images the generator was trained on; see `DigitClient.seen`."""
    array = np.asarray(images)
    given_hashes = array.ndim == 1 and array.dtype == np.int64
    hashes = array if given_hashes else image_hashes(array[..., np.newaxis] if array.ndim == 3 else array)
    inputs = {Field.HASHES: hashes}
    return (yield from _rows(connection, Signature.SEEN, inputs, Field.SEEN, dtype="bool", shape=()))


def latents(connection: Connection, seeds: npt.ArrayLike, **delivery: Any) -> Steps[npt.NDArray[np.float32]]:
    """Request the latents of row seeds; see `DigitClient.latents`."""
    array = np.asarray(seeds)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise InvalidInputError(
            f"row seeds have dtype {array.dtype} and shape {array.shape}; expected integers of shape (n,)"
        )
    if array.size and not 0 <= array.min() <= array.max() < SEEDS * ROWS_PER_SEED:
        raise InvalidInputError(
            f"row seeds range from {array.min()} to {array.max()}; expected 0 to {SEEDS * ROWS_PER_SEED - 1}"
        )
    size = _latent_size((yield from connection.generator()))
    inputs = {Field.SEEDS: array.astype(np.int64)}
    shape = (size,)
    result = yield from _rows(
        connection, Signature.LATENTS, inputs, Field.LATENTS, dtype="float32", shape=shape, **delivery
    )
    if not np.isfinite(result).all():
        raise UnexpectedReplyError(
            "the server sent latents that are infinite or not a number; export the generator again"
        )
    return result


def from_latents(
    connection: Connection, latents: npt.ArrayLike, *, labels: Any, class_weights: npt.ArrayLike | None, **delivery: Any
) -> Steps[npt.NDArray[np.uint8]]:
    """Request the digits of latents; see `DigitClient.from_latents`."""
    generator = yield from connection.generator()
    array = np.asarray(latents, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != _latent_size(generator) or not np.isfinite(array).all():
        raise InvalidInputError(
            f"latents have shape {array.shape}; expected (n, {_latent_size(generator)}) with finite values only"
        )
    inputs = {Field.LATENTS: array}
    if generator.conditional or labels is not None or class_weights is not None:
        weights = class_weights_of(generator, len(array), labels=labels, class_weights=class_weights)
        inputs[Field.CLASS_WEIGHTS] = np.broadcast_to(weights, (len(array), weights.shape[-1]))
    images = yield from _rows(
        connection, Signature.FROM_LATENTS, inputs, Field.IMAGES, dtype="uint8", shape=generator.image_shape, **delivery
    )
    return images[..., 0] if generator.image_shape[-1] == 1 else images


def interpolate(
    connection: Connection, first: tuple[Any, int], last: tuple[Any, int], *, steps: int
) -> Steps[npt.NDArray[np.uint8]]:
    """Request the digits between two addresses; see `DigitClient.interpolate`."""
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 2:
        raise InvalidInputError(f"steps is {steps!r}; expected an integer, 2 or more")
    generator = yield from connection.generator()
    ends = [address[0] for address in (first, last)]
    numbers = generator.class_numbers(np.array(ends, dtype=object)) if generator.conditional else None
    if numbers is None and any(label not in (None, -1) for label in ends):
        raise InvalidInputError(
            f"the addresses have the labels {ends[0]!r} and {ends[1]!r}, but generator {generator.generator_id} is "
            "unconditional; use the label -1"
        )
    start, end = yield from latents(connection, np.array([first[1], last[1]]))
    path = walk(start, end, steps=int(steps), distribution=generator.latent_distribution)
    weights = None
    if numbers is not None:
        weights = blend(int(numbers[0]), int(numbers[1]), steps=int(steps), classes=len(generator.class_names))
    return (yield from from_latents(connection, path, labels=None, class_weights=weights))


def _latent_size(generator: Generator) -> int:
    if generator.latent_size is None:
        raise UnexpectedReplyError("the generator's card has no latent_size; export the generator again")
    return generator.latent_size


def _rows(
    connection: Connection,
    signature: str,
    inputs: Inputs,
    output: str,
    *,
    dtype: str,
    shape: tuple[int, ...],
    outage_s: float | None = 0.0,
    answered: set[int] | None = None,
    before: int = 0,
    total: int | None = None,
) -> Steps[npt.NDArray[Any]]:
    """Request one output of a signature, in as many requests as needed.

    Args:
        connection: the connection to use.
        signature: name of the signature.
        inputs: its inputs, each with n rows.
        output: name of the output.
        dtype: dtype of the output.
        shape: shape of one row of the output.
        outage_s: how long to wait for a server that is away or busy.
        answered: receives the indices of the targets that answered.
        before: number of digits that arrived before these.
        total: number of digits of the whole call, for reports of the progress. None for no reports.
    """
    n = len(next(iter(inputs.values())))
    row_bytes = sum(array[:1].nbytes for array in inputs.values())
    generator = yield from connection.generator()
    max_rows = min(connection.limits.rows_per_request, generator.max_rows, max(1, _MAX_BYTES // max(row_bytes, 1)))

    def requests() -> Iterator[tuple[slice, Any]]:
        for begin in range(0, n, max_rows):
            rows = slice(begin, min(begin + max_rows, n))
            part = {name: array[rows] for name, array in inputs.items()}
            yield rows, predict_request(connection.model_spec, signature, part)

    result = np.empty((n, *shape), dtype=dtype)
    pipeline = Pipeline(connection, requests(), outage_s=outage_s)
    try:
        while (received := (yield from pipeline.receive())) is not None:
            rows, reply, at = received
            if answered is not None:
                answered.add(at)
            result[rows] = output_of(reply, output, dtype=dtype, shape=(rows.stop - rows.start, *shape))
            if total is not None:
                yield Progress(done=before + rows.stop, total=total)
    finally:
        pipeline.cancel()
    return result
