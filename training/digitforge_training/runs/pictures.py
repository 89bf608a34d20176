"""Sample sheets, and the GIF of a training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from digitforge_client.common.files import make_folder, replacing

_GAP = 2  # pixels between digits


def sheet(images: npt.NDArray[np.uint8], columns: int) -> Image.Image:
    """Lay out images (n, H, W, C) uint8 row by row on a dark gray background, *columns* images per row."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels), 64, np.uint8)
    for i, image in enumerate(images):
        top, left = _GAP + i // columns * (height + _GAP), _GAP + i % columns * (width + _GAP)
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG file atomically.

    Raises:
        DataError: the file cannot be written.
    """
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    _write(path, buffer.getvalue())


def save_gif(frames: Sequence[Path], path: Path, *, frame_ms: int = 200) -> None:
    """Join PNG files into an animated GIF that shows its last frame for two seconds.

    Raises:
        DataError: the file cannot be written.
    """
    pictures = [Image.open(frame).convert("P") for frame in frames]
    durations = [frame_ms] * (len(pictures) - 1) + [2_000]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    _write(path, buffer.getvalue())


def _write(path: Path, content: bytes) -> None:
    make_folder(path.parent)
    with replacing(path) as file:
        file.write(content)
