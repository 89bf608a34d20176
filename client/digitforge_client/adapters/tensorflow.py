"""Synthetic digits as a ``tf.data.Dataset``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

import tensorflow as tf

from digitforge_client.adapters.ranks import Rank
from digitforge_client.augmentation.resampling import Array
from digitforge_client.client import DigitClient
from digitforge_client.protocol.rows import SampleOptions, SampleSpec


def dataset(
    client: DigitClient,
    n: int,
    *,
    batch_size: int,
    rank: int | None = None,
    world_size: int | None = None,
    **options: Unpack[SampleOptions],
) -> tf.data.Dataset:
    """Make a dataset of digits and labels. It requests the digits while it is read, and every pass gives the same.

    In a distributed training, each rank gets its own part of the digits if *rank* and *world_size* are given, or if
    PyTorch's default process group is initialized. With a ``tf.distribute`` strategy for several GPUs of one machine,
    give the dataset to ``model.fit``, without a rank. With a strategy for several machines::

        strategy.distribute_datasets_from_function(
            lambda context: dataset(
                client,
                60_000,
                batch_size=context.get_per_replica_batch_size(512),
                rank=context.input_pipeline_id,
                world_size=context.num_input_pipelines,
                seed=0,
            )
        )

    ``model.fit`` of Keras 3 does not support ``MultiWorkerMirroredStrategy``, whatever the data. Write the training
    step yourself, as in ``examples/tensorflow_workers.py``.

    Args:
        client: the client that requests the digits. The dataset works only in this process.
        n: number of digits, for all ranks together. A multiple of the number of ranks.
        batch_size: digits per batch. The last batch may be smaller.
        rank: number of this process in a distributed training, 0 … *world_size* − 1.
        world_size: number of processes in a distributed training.
        options: as for `DigitClient.sample`. A random seed is drawn once.

    Returns:
        Elements (images (b, H, W, C) uint8, labels (b,) int64). While the dataset is read, an error of the client
        becomes a ``tf.errors.UnknownError`` with its message.

    Raises:
        InvalidInputError: an argument is out of range.
        ServerError: the server could not answer.
    """
    shape = client.generator().image_shape
    shard = Rank.of(rank, world_size) or Rank.current()
    whole = SampleSpec.of(n, **options)
    spec = whole.part(*shard.part(whole.n))

    def batches() -> Iterator[tuple[Array, Array]]:
        for batch in client.stream(spec.n, batch_size=batch_size, **spec.options):
            yield batch.images.reshape(-1, *shape), batch.labels

    digits = tf.data.Dataset.from_generator(
        batches,
        output_signature=(
            tf.TensorSpec((None, *shape), tf.uint8),
            tf.TensorSpec((None,), tf.int64),
        ),
    )
    if shard.world_size == 1:
        return digits
    sharded = tf.data.Options()  # a strategy must not take a shard of this shard
    sharded.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return digits.with_options(sharded)
