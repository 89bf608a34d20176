"""Appends synthetic digits to a data set: the code that `augment` and the sampler share. It does no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from digitforge_client.augmentation import resampling
from digitforge_client.augmentation.containers import append_rows
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

    #: Images, in the container, layout, dtype and range of the real images.
    X: Any
    #: Labels, in the container of the real labels.
    y: Any
    #: Label => number of synthetic digits.
    added: dict[Any, int]
    #: The synthetic digits, with their addresses.
    batch: Batch


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
    """Append synthetic digits to a labeled data set; see `DigitClient.augment`."""
    generator = yield from connection.generator()
    labels = resampling.class_labels(y)
    if not generator.conditional:
        raise InvalidInputError(
            f"generator {generator.generator_id} is unconditional, so its images have no labels; use a generator with "
            "classes"
        )
    added = resampling.digits_to_add(labels, strategy, synthetic_per_real)
    generator.class_numbers(labels)  # raises an error if y has a class that the generator lacks
    images, pixel_range = resampling.check_images(X, generator, pixel_range)
    if len(images) != len(labels):
        raise InvalidInputError(f"X has {len(images)} images and y has {len(labels)} labels; expected the same number")
    new = np.repeat(np.array(list(added)), list(added.values())) if added else labels[:0]
    batch = yield from sampling.sample(connection, SampleSpec.of(None, labels=new, seed=seed, start=start, **scaling))
    digits = resampling.match_images(batch.images, images, pixel_range)
    return Augmented(
        X=append_rows(X, digits),
        y=append_rows(*_labels_to_append(y, new)),
        added=added,
        batch=batch,
    )


def _labels_to_append(y: Any, new: Array) -> tuple[Any, Array]:
    """Return the given labels, and the new labels in the same form. Labels of shape (n, 1) become (n,)."""
    given = np.asarray(y)
    if given.ndim == 2 and given.shape[1] > 1:
        return y, np.eye(given.shape[1], dtype=given.dtype)[new]
    if given.ndim == 2 and not hasattr(y, "columns"):
        given = given.reshape(-1)
        y = given.tolist() if isinstance(y, list) else tuple(given.tolist()) if isinstance(y, tuple) else given
    return y, new.astype(np.float64) if isinstance(y, list | tuple) and given.dtype.kind == "f" else new
