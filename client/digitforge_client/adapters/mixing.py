"""`MixedBatches`: batches of real and synthetic images in a given ratio."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Unpack

import numpy as np

from digitforge_client.adapters.ranks import Rank, Sharded
from digitforge_client.augmentation.resampling import Array, PixelRange, check_images, class_labels, match_images
from digitforge_client.client import DigitClient
from digitforge_client.contract import ROWS_PER_SEED, check_seed
from digitforge_client.errors import InvalidInputError
from digitforge_client.latent_space import Scaling, ScalingOptions


class MixedBatches(Sharded):
    """Mixes real and synthetic images. Each iteration yields one epoch of batches, with every real image once.

    Synthetic digits have balanced classes, and each epoch has fresh ones. With r rows in an epoch, epoch *e* starts at
    row ``e · r`` of the seed. So a run can be repeated and continued.

    In a distributed training, each rank gets its own images, and all ranks get equally many batches. By default, the
    rank is that of PyTorch's default process group (``torch.distributed``), if it is initialized. If the number of real
    images is not a multiple of the number of ranks, up to *world_size* − 1 of them occur twice in an epoch.

    Args:
        client: the client that requests the digits.
        X: (n, H·W·C), (n, H, W) or (n, H, W, C) real images of the generator's size.
        y: (n,) class numbers or class names.
        batch_size: images per batch, on each rank. The last batch of an epoch may have fewer real images.
        synthetic: share of synthetic images in a batch, 0 … 1. The number is rounded, and at least one image is real.
        pixel_range: the values of black and white in *X*. May be None only for uint8.
        seed: seed of the synthetic digits and of the order of images.
        epoch: the first epoch.
        rank: number of this process in a distributed training, 0 … *world_size* − 1.
        world_size: number of processes in a distributed training.
        scaling: *truncation* or *expansion*, as for `DigitClient.sample`.

    Raises:
        InvalidInputError: the images or labels do not fit the generator, or a number is out of range.
        ServerError: the server could not answer.
    """

    def __init__(
        self,
        client: DigitClient,
        X: Any,
        y: Any,
        *,
        batch_size: int,
        synthetic: float,
        pixel_range: PixelRange | None = None,
        seed: int = 0,
        epoch: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        **scaling: Unpack[ScalingOptions],
    ) -> None:
        generator = client.generator()
        self._images, self._pixel_range = check_images(X, generator, pixel_range)
        self._names = class_labels(y)
        numbers = generator.class_numbers(self._names)  # raises an error for an unconditional generator too
        self._labels: Array = numbers if self._names.dtype.kind in "iu" else self._names
        self._class_names = np.array(generator.class_names)
        if len(self._images) != len(self._labels) or not len(self._images):
            raise InvalidInputError(
                f"X has {len(self._images)} images and y has {len(self._labels)} labels; expected the same number, 1 "
                "or more"
            )
        if batch_size < 1 or not 0 <= synthetic <= 1:
            raise InvalidInputError(
                f"batch_size is {batch_size} and synthetic is {synthetic}; expected a batch_size of 1 or more, and "
                "synthetic from 0 to 1"
            )
        self.synthetic_per_batch = min(round(batch_size * synthetic), batch_size - 1)
        self.real_per_batch = batch_size - self.synthetic_per_batch
        self._client = client
        self._seed = check_seed(seed)
        self._scaling = Scaling(**scaling).scaling
        self._rank = Rank.of(rank, world_size)
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches per epoch, on each rank."""
        return math.ceil(self._real_per_rank(self._shard()) / self.real_per_batch)

    def _real_per_rank(self, shard: Rank) -> int:
        return math.ceil(len(self._images) / shard.world_size)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        """Yield the batches of the current epoch. The next iteration yields the next epoch."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        for number in range(len(self)):
            yield self.batch(number, epoch)

    def batch(self, number: int, epoch: int) -> tuple[Array, Array]:
        """Return one batch of an epoch.

        Returns:
            Images in the layout, dtype and range of *X*, and labels as in *y*, in random order.
        """
        shard = self._shard()
        order = np.random.default_rng([self._seed, epoch, 0]).permutation(len(self._images))
        order = np.resize(order, self._real_per_rank(shard) * shard.world_size)[shard.rank :: shard.world_size]
        real = order[number * self.real_per_batch : (number + 1) * self.real_per_batch]
        images, labels = self._images[real], self._labels[real]
        place = number * shard.world_size + shard.rank  # among the batches of all ranks in this epoch
        if self.synthetic_per_batch:
            start = (epoch * len(self) * shard.world_size + place) * self.synthetic_per_batch
            if start + self.synthetic_per_batch > ROWS_PER_SEED:
                raise InvalidInputError(f"seed {self._seed} has no rows left for epoch {epoch}; use another seed")
            digits = self._client.sample(self.synthetic_per_batch, seed=self._seed, start=start, **self._scaling)
            images = np.concatenate([images, match_images(digits.images, self._images, self._pixel_range)])
            new = digits.labels if self._labels.dtype.kind in "iu" else self._class_names[digits.labels]
            labels = np.concatenate([labels, new])
        mixed = np.random.default_rng([self._seed, epoch, place + 1]).permutation(len(labels))
        return images[mixed], labels[mixed]
