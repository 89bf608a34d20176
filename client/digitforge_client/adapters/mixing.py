"""Batches that mix real and synthetic images in a given ratio, with fresh synthetic digits in every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Unpack

import numpy as np

from digitforge_client.augmentation.resampling import Array, PixelRange, class_labels, like, real_images
from digitforge_client.client import DigitClient
from digitforge_client.contract import ROWS_PER_SEED, check_seed
from digitforge_client.errors import InvalidInputError
from digitforge_client.latent_space import Scaling, ScalingOptions


class MixedBatches:
    """One epoch of batches each time it is iterated over: every real image once, beside synthetic ones.

    Synthetic digits have balanced classes. No epoch repeats a digit of another one: epoch *e* has the rows from
    ``e · rows of an epoch`` on of the seed, so that a run can be repeated and continued.

    Args:
        client: whom to ask.
        X: (n, H·W·C), (n, H, W) or (n, H, W, C) real images of the generator's size.
        y: (n,) class numbers or class names.
        batch_size: images in a batch; the last one of an epoch may have fewer real ones.
        synthetic: share of synthetic images in a batch, 0 … 1, rounded to whole images; at least one image stays real.
        pixel_range: values of black and of white in *X*; may be left out only for uint8.
        seed: of the synthetic digits and of the order.
        epoch: to begin with.
        scaling: *truncation* or *expansion*, as for `DigitClient.sample`.

    Raises:
        InvalidInputError: the images do not fit the generator, or a number is out of range.
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
        **scaling: Unpack[ScalingOptions],
    ) -> None:
        generator = client.generator()
        self._images, self._pixel_range = real_images(X, generator, pixel_range)
        self._names = class_labels(y)
        numbers = generator.class_numbers(self._names)  # also refuses an unconditional generator
        self._labels: Array = numbers if self._names.dtype.kind in "iu" else self._names
        self._class_names = np.array(generator.class_names)
        if len(self._images) != len(self._labels) or not len(self._images):
            raise InvalidInputError(
                f"X has {len(self._images)} images and y {len(self._labels)} labels; expected as many"
            )
        if batch_size < 1 or not 0 <= synthetic <= 1:
            raise InvalidInputError(
                f"batch_size is {batch_size} and synthetic {synthetic}; expected 1 or more, and 0 to 1"
            )
        self.synthetic_per_batch = min(round(batch_size * synthetic), batch_size - 1)
        self.real_per_batch = batch_size - self.synthetic_per_batch
        self._client = client
        self._seed = check_seed(seed)
        self._scaling = Scaling(**scaling).scaling
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches in an epoch."""
        return math.ceil(len(self._images) / self.real_per_batch)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        """The batches of the current epoch; the next iteration gives those of the next epoch."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        for number in range(len(self)):
            yield self.batch(number, epoch)

    def batch(self, number: int, epoch: int) -> tuple[Array, Array]:
        """One batch of an epoch.

        Returns:
            Images, in the layout, dtype and range of the real ones, and their labels, as *y* names them; in random
            order.
        """
        order = np.random.default_rng([self._seed, epoch, 0]).permutation(len(self._images))
        real = order[number * self.real_per_batch : (number + 1) * self.real_per_batch]
        images, labels = self._images[real], self._labels[real]
        if self.synthetic_per_batch:
            start = (epoch * len(self) + number) * self.synthetic_per_batch
            if start + self.synthetic_per_batch > ROWS_PER_SEED:
                raise InvalidInputError(f"epoch {epoch} has no rows left in seed {self._seed}; use another seed")
            digits = self._client.sample(self.synthetic_per_batch, seed=self._seed, start=start, **self._scaling)
            images = np.concatenate([images, like(digits.images, self._images, self._pixel_range)])
            new = digits.labels if self._labels.dtype.kind in "iu" else self._class_names[digits.labels]
            labels = np.concatenate([labels, new])
        mixed = np.random.default_rng([self._seed, epoch, number + 1]).permutation(len(labels))
        return images[mixed], labels[mixed]
