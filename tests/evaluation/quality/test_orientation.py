"""Images that lie on their side are noticed, as those of EMNIST do."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from digitforge_evaluation.quality.orientation import look_transposed
from digitforge_training.data import load

TRAIN, TEST = load("digits"), load("digits", split="test")
look = partial(look_transposed, real=TEST.images, real_labels=TEST.labels)


@pytest.mark.parametrize("labeled", [True, False])
@pytest.mark.parametrize("n", [30, 300])
def test_transposed_digits_are_noticed_and_others_are_not(n: int, labeled: bool) -> None:
    labels = TRAIN.labels[:n] if labeled else None
    assert look(generated=TRAIN.images[:n].swapaxes(1, 2), generated_labels=labels)
    assert not look(generated=TRAIN.images[:n], generated_labels=labels)


def test_noise_symmetric_images_and_other_shapes_are_not_transposed() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 28, 28, 1), dtype=np.uint8)
    symmetric = np.maximum(noise, noise.swapaxes(1, 2))
    for images in (noise, symmetric, noise[:, :20, :20], np.zeros_like(noise)):
        assert not look(generated=images, generated_labels=TRAIN.labels[:300])
