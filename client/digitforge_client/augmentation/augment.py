"""Real images together with synthetic ones: what `augment` and the sampler share. No input or output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from digitforge_client.augmentation import resampling
from digitforge_client.augmentation.containers import extended
from digitforge_client.augmentation.resampling import Array, PixelRange, Strategy
from digitforge_client.batch import Batch
from digitforge_client.errors import InvalidInputError
from digitforge_client.latent_space import ScalingOptions
from digitforge_client.protocol import sampling
from digitforge_client.protocol.connection import Connection
from digitforge_client.protocol.rows import SampleSpec
from digitforge_client.protocol.steps import Steps


@dataclass(frozen=True, kw_only=True, eq=False)
class Augmented:
    """A data set with synthetic digits at its end."""

    X: Any  # in the kind of container, layout, dtype and range of the real images
    y: Any
    added: dict[Any, int]  # label => number of synthetic digits
    batch: Batch  # the synthetic digits, with their addresses


def augment(
    connection: Connection,
    X: Any,
    y: Any,
    *,
    strategy: Strategy,
    synthetic_per_real: float | None,
    pixel_range: PixelRange | None,
    seed: int | None,
    start: int,
    **scaling: Unpack[ScalingOptions],
) -> Steps[Augmented]:
    """Add synthetic digits to a labeled data set; see `DigitClient.augment`."""
    generator = yield from connection.generator()
    labels = resampling.class_labels(y)
    if not generator.conditional:
        raise InvalidInputError(f"generator {generator.generator_id} is unconditional: its digits have no labels")
    added = resampling.wanted(labels, strategy, synthetic_per_real)
    generator.class_numbers(labels)  # a real image of a class that the generator lacks is an error, not a gap
    images, pixel_range = resampling.real_images(X, generator, pixel_range)
    if len(images) != len(labels):
        raise InvalidInputError(f"X has {len(images)} images and y {len(labels)} labels; expected as many")
    new = np.repeat(np.array(list(added)), list(added.values())) if added else labels[:0]
    batch = yield from sampling.sample(connection, SampleSpec.of(None, labels=new, seed=seed, start=start, **scaling))
    digits = resampling.like(batch.images, images, pixel_range)
    return Augmented(
        X=extended(X, digits),
        y=extended(*_targets(y, new)),
        added=added,
        batch=batch,
    )


def _targets(y: Any, new: Array) -> tuple[Any, Array]:
    """The labels of the real images as they were given, but a column as a vector, and the new ones like them."""
    given = np.asarray(y)
    if given.ndim == 2 and given.shape[1] > 1:
        return y, np.eye(given.shape[1], dtype=given.dtype)[new]
    if given.ndim == 2 and not hasattr(y, "columns"):
        given = given.reshape(-1)
        y = given.tolist() if isinstance(y, list) else given
    return y, new.astype(np.float64) if isinstance(y, list) and given.dtype.kind == "f" else new
