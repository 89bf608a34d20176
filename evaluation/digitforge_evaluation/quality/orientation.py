"""Finds out whether generated and real images look transposed to each other, as raw EMNIST images do."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

#: Transposing must make the squared distance this many times smaller. Half the distance.
_FACTOR: Final = 4.0

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def look_transposed(*, real: Images, real_labels: Labels, generated: Images, generated_labels: Labels | None) -> bool:
    """Whether the images are much nearer to each other if one side is transposed.

    Compares the mean images: of each class, or of all images if the generated ones have no labels. Images that hardly
    change when they are transposed give False.

    Args:
        real: (n, H, W, C).
        real_labels: (n,).
        generated: (m, H, W, C).
        generated_labels: (m,), or None.
    """
    if real.shape[1:] != generated.shape[1:]:
        return False
    if generated_labels is None:
        real_labels, generated_labels = np.zeros(len(real), np.int64), np.zeros(len(generated), np.int64)
    as_they_are = transposed = 0.0
    for label in np.intersect1d(real_labels, generated_labels):
        there, here = (
            images[labels == label].mean(axis=0)
            for images, labels in ((real, real_labels), (generated, generated_labels))
        )
        as_they_are += float(np.square(there - here).sum())
        transposed += float(np.square(there - here.swapaxes(0, 1)).sum())
    return _FACTOR * transposed < as_they_are
