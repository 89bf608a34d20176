"""`MixedDataset`: mixed batches of real and synthetic images for Keras's ``fit``."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from digitforge_client.adapters.mixing import MixedBatches
from digitforge_client.augmentation.resampling import Array


class MixedDataset(keras.utils.PyDataset):
    """`MixedBatches` for ``model.fit``. Each epoch has every real image once, and fresh synthetic digits.

    The first epoch of ``fit`` is the current epoch of *batches*, and each epoch of ``fit`` advances it by one.
    ``evaluate`` and ``predict`` read the current epoch and do not advance it.

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
        self._trains = False  # during an epoch of fit

    @property
    def num_batches(self) -> int:
        """Batches per epoch."""
        return len(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> tuple[Array, Array]:
        return self._batches.batch(number, self._batches.epoch)

    def on_epoch_begin(self) -> None:
        """Note whether this epoch trains."""
        self.on_epoch_end()  # Keras leaves it out after a training that stopped early
        self._trains = _keras_trains()

    def on_epoch_end(self) -> None:
        """Switch to fresh digits after an epoch that trained. Keras also calls this before the first epoch."""
        if self._trains:
            self._batches.epoch += 1
        self._trains = False


def _keras_trains() -> bool:
    """Whether Keras calls from an epoch of ``fit``, and not from ``evaluate`` or ``predict``.

    Only the call stack shows it. Before its first epoch, ``fit`` may read the data to learn their form. It does so with
    a ``tf.distribute`` strategy.
    """
    frame = inspect.currentframe()
    while frame is not None:
        name = frame.f_code.co_name
        if name in ("fit", "evaluate", "predict") and isinstance(frame.f_locals.get("self"), keras.Model):
            return name == "fit" and "epoch" in frame.f_locals
        frame = frame.f_back
    return True
