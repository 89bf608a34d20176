"""Pictures of several images."""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt


def grid(images: npt.NDArray[np.uint8], columns: int | None = None) -> npt.NDArray[np.uint8]:
    """Arrange images in a grid, row by row, with black lines of 1 pixel between them.

    Args:
        images: (n, H, W) or (n, H, W, C) uint8, with n of 1 or more.
        columns: images per row. None makes a picture about as wide as high, with a multiple of ten images per row. With
            ten balanced classes, each column then shows one class.

    Returns:
        (height, width) or (height, width, C) uint8.
    """
    n, height, width = images.shape[:3]
    if columns is None:
        columns = min(n, 10 * math.ceil(math.sqrt(n) / 10))
    rows = math.ceil(n / columns)
    picture = np.zeros((rows * (height + 1), columns * (width + 1), *images.shape[3:]), dtype=np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * (height + 1), number % columns * (width + 1)
        picture[top : top + height, left : left + width] = image
    return picture[:-1, :-1]


def png(picture: npt.NDArray[np.uint8], *, optimize: bool = True) -> bytes:
    """Encode a picture as a PNG file.

    Args:
        picture: (height, width) or (height, width, C) uint8, with C from 1 to 4.
        optimize: make a smaller file of a large picture. It takes twice as long.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2:] == (1,) else picture).save(file, "PNG", optimize=optimize)
    return file.getvalue()
