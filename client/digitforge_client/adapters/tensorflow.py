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
    """Make a dataset of digits and labels. It requests the digits while it is read, and every pass gives the same.

    Args:
        client: the client that requests the digits. The dataset works only in this process.
        n: number of digits.
        batch_size: digits per batch. The last batch may be smaller.
        options: as for `DigitClient.sample`. A random seed is drawn once.

    Returns:
        Elements (images (b, H, W, C) uint8, labels (b,) int64). While the dataset is read, an error of the client
        becomes a ``tf.errors.UnknownError`` with its message.

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
