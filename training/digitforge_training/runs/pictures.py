"""Pictures of digits: sheets of samples and the GIF of a training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from digitforge_client.common.files import replacing
from digitforge_training.runs.checkpoints import make_folder

_GAP = 2  # pixels between digits


def sheet(images: npt.NDArray[np.uint8], columns: int) -> Image.Image:
    """Lay out images (n, H, W, C) uint8 row by row, *columns* a row, on a dark gray ground."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    ground = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels), 64, np.uint8)
    for i, image in enumerate(images):
        top, left = _GAP + i // columns * (height + _GAP), _GAP + i % columns * (width + _GAP)
        ground[top : top + height, left : left + width] = image
    return Image.fromarray(ground[:, :, 0] if channels == 1 else ground)


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG at once or not at all.

    Raises:
        DataError: it cannot be written.
    """
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    _write(path, buffer.getvalue())


def save_gif(frames: Sequence[Path], path: Path, *, frame_ms: int = 200) -> None:
    """Join PNG files to an animated GIF that rests on its last frame.

    Raises:
        DataError: it cannot be written.
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
