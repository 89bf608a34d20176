"""The 1 797 handwritten digits that scikit-learn ships, enlarged to MNIST's format. Needs no download.

Source: E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998
(the test part). The originals are 8 × 8 values from 0 to 16. Each value counts the black pixels of a small square.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from digitforge_training.data.raw import Raw

FULL_COUNT: Final = 16  # largest value of an original pixel
BOX: Final = 20  # MNIST centers a digit of 20 × 20 pixels …
SIDE: Final = 28  # … in an image of 28 × 28


def read_digits() -> Raw:
    """Read the 1 797 digits. They have no test images of their own.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    from sklearn import datasets

    originals, labels = datasets.load_digits(return_X_y=True)
    images = np.stack([_enlarge(original.reshape(8, 8)) for original in originals])
    return Raw(where="digits", images=images, labels=labels, training_labels=labels, divided=False)


def _enlarge(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """(8, 8), 0 to 16 => (28, 28) uint8: scale the gray levels, resize bicubically, and center as MNIST does."""
    gray = np.round(counts * (255 / FULL_COUNT)).astype(np.uint8)
    margin = (SIDE - BOX) // 2
    canvas = np.zeros((SIDE, SIDE), dtype=np.uint8)
    enlarged = Image.fromarray(gray).resize((BOX, BOX), Image.Resampling.BICUBIC)
    canvas[margin:-margin, margin:-margin] = np.asarray(enlarged)
    return canvas
