"""Synthetic digits as a ``tf.data.Dataset``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from digitforge_client.augmentation.resampling import Array
from digitforge_client.client import DigitClient


def dataset(
    client: DigitClient,
    n: int,
    *,
    batch_size: int,
    labels: Any = None,
    seed: int | None = None,
    start: int = 0,
    expansion: float | None = None,
) -> tf.data.Dataset:
    """Batches of digits and labels, asked for while the dataset is read; each reading gives the same.

    Args:
        client: whom to ask; the dataset stays in this process.
        n: how many digits.
        batch_size: digits in every batch but the last.
        labels: as for `DigitClient.stream`.
        seed: as for `DigitClient.stream`; a seed that is drawn is drawn once.
        start: as for `DigitClient.stream`.
        expansion: as for `DigitClient.stream`.

    Returns:
        Elements (images (b, H, W, C) uint8, labels (b,) int64). What it raises while it is read arrives as
        ``tf.errors.UnknownError`` with the client's message in it.

    Raises:
        InvalidInputError: an argument is out of range.
        ServerError: the server could not answer.
    """
    shape = client.generator().image_shape
    # checks the arguments, and draws a seed if need be
    first = client.sample(0, seed=seed, start=start, expansion=expansion)

    def batches() -> Iterator[tuple[Array, Array]]:
        stream = client.stream(
            n, labels=labels, batch_size=batch_size, seed=first.seed, start=start, expansion=expansion
        )
        for batch in stream:
            yield batch.images.reshape(-1, *shape), batch.labels

    return tf.data.Dataset.from_generator(
        batches,
        output_signature=(
            tf.TensorSpec((None, *shape), tf.uint8),
            tf.TensorSpec((None,), tf.int64),
        ),
    )
