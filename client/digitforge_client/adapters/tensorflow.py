"""Synthetic digits as a ``tf.data.Dataset``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

import tensorflow as tf

from digitforge_client.augmentation.resampling import Array
from digitforge_client.client import DigitClient
from digitforge_client.protocol.rows import SampleOptions, SampleSpec


def dataset(
    client: DigitClient,
    n: int,
    *,
    batch_size: int,
    **options: Unpack[SampleOptions],
) -> tf.data.Dataset:
    """Batches of digits and labels, asked for while the dataset is read; each reading gives the same.

    Args:
        client: whom to ask; the dataset stays in this process.
        n: how many digits.
        batch_size: digits in every batch but the last.
        options: as for `DigitClient.sample`; a seed that is drawn is drawn once.

    Returns:
        Elements (images (b, H, W, C) uint8, labels (b,) int64). What it raises while it is read arrives as
        ``tf.errors.UnknownError`` with the client's message in it.

    Raises:
        InvalidInputError: an argument is out of range.
        ServerError: the server could not answer.
    """
    shape = client.generator().image_shape
    spec = SampleSpec.of(n, **options)

    def batches() -> Iterator[tuple[Array, Array]]:
        for batch in client.stream(spec.n, batch_size=batch_size, **spec.options):
            yield batch.images.reshape(-1, *shape), batch.labels

    return tf.data.Dataset.from_generator(
        batches,
        output_signature=(
            tf.TensorSpec((None, *shape), tf.uint8),
            tf.TensorSpec((None,), tf.int64),
        ),
    )
