"""`MixedDataset`: mixed batches of real and synthetic images for Keras's ``fit``."""

from __future__ import annotations

from typing import Any

import keras

from digitforge_client.adapters.mixing import MixedBatches
from digitforge_client.augmentation.resampling import Array


class MixedDataset(keras.utils.PyDataset):
    """`MixedBatches` for ``model.fit``. Each epoch has every real image once, and fresh synthetic digits.

    ::

        batches = MixedBatches(client, x_train, y_train, batch_size=64, synthetic=0.5, pixel_range=(0, 1))
        model.fit(MixedDataset(batches), epochs=10)

    Args:
        batches: the batches.
        options: options of ``keras.utils.PyDataset``, such as ``workers``.
    """

    def __init__(self, batches: MixedBatches, **options: Any) -> None:
        super().__init__(**options)
        self._batches = batches

    @property
    def num_batches(self) -> int:
        """Batches per epoch."""
        return len(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> tuple[Array, Array]:
        return self._batches.batch(number, self._batches.epoch)

    def on_epoch_end(self) -> None:
        """Switch to fresh digits."""
        self._batches.epoch += 1
