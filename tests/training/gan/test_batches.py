"""The batches of a step."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from digitforge_training.data import Dataset
from digitforge_training.gan.batches import Batch, Batches
from digitforge_training.recipes import resolve


def _draw(batches: Batches, step: int) -> list[Batch]:
    return batches.draw(tf.constant(step, tf.int64))


def test_every_epoch_shows_every_image_once(digits: Dataset) -> None:
    few = digits.subset(np.arange(48))
    batches = Batches(few, resolve("forge", {"clusters": 1, "batch_size": 16}), seed=1)
    shown = [_draw(batches, step)[0].images.numpy() for step in range(6)]
    epochs = [np.concatenate(shown[:3]), np.concatenate(shown[3:])]
    expected = {image.tobytes() for image in few.images}
    assert {image.tobytes() for image in epochs[0]} == {image.tobytes() for image in epochs[1]} == expected
    assert not np.array_equal(epochs[0], epochs[1])


@pytest.mark.parametrize("shared", ["true", "false"])
def test_updates_of_the_generator_have_latents_of_their_own_unless_these_are_shared(
    shared: str, digits: Dataset
) -> None:
    updates: dict[str, str | float] = {"discriminator_steps": 2, "generator_steps": 3, "shared_latents": shared}
    batches = Batches(digits, resolve("forge", {"clusters": 1, "batch_size": 16, **updates}), seed=1)
    drawn = _draw(batches, 5)
    assert len(drawn) == len(batches.dtypes) == (3 if shared == "true" else 5)
    assert [array.dtype for array in drawn[0]] == list(batches.dtypes[0])
    for one, other in zip(drawn[2:], drawn, strict=False):  # only the real images repeat
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.class_weights, other.class_weights)
    assert len({batch.latents.numpy().tobytes() for batch in drawn}) == len(drawn)
    assert len({batch.seed.numpy().tobytes() for batch in drawn}) == len(drawn)
    assert not np.array_equal(drawn[0].images, drawn[1].images)
