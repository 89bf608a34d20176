"""Sample sheets, and the GIF of a training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from digitforge_client.common.files import make_folder, replacing

_GAP = 2  # pixels between images
_TEXT = 10  # height of names, in pixels
_FONTS = (  # None is Pillow's own, which has only ASCII
    None,
    "DejaVuSans.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-zenhei.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "PingFang.ttc",
)


def sheet(
    images: npt.NDArray[np.uint8], columns: int, *, column_names: Sequence[str] = (), row_names: Sequence[str] = ()
) -> Image.Image:
    """Lay out images (n, H, W, C) uint8 row by row on a dark gray background, *columns* images per row.

    Names from `writable` stand above the columns and on the left of the rows.
    """
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels), 64, np.uint8)
    for i, image in enumerate(images):
        top, left = _GAP + i // columns * (height + _GAP), _GAP + i % columns * (width + _GAP)
        canvas[top : top + height, left : left + width] = image
    picture = Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)
    if not (column_names or row_names):
        return picture
    above = [_text(name, picture.mode) for name in column_names]
    if any(text.width > width for text in above):  # from bottom to top
        above = [text.transpose(Image.Transpose.ROTATE_90) for text in above]
    beside = [_text(name, picture.mode) for name in row_names]
    x = max((text.width for text in beside), default=0)
    y = max((text.height for text in above), default=0)
    named = Image.new(picture.mode, (x + picture.width, y + picture.height), _gray(picture.mode, 64))
    named.paste(picture, (x, y))
    for i, text in enumerate(above):
        named.paste(text, (x + _GAP + i * (width + _GAP) + (width - text.width) // 2, y - text.height))
    for i, text in enumerate(beside):
        named.paste(text, (x - text.width, y + _GAP + i * (height + _GAP) + (height - text.height) // 2))
    return named


def writable(names: Sequence[str]) -> list[str]:
    """*names*, but a number in place of each name that no font can write."""
    return [name if _font(name) else str(number) for number, name in enumerate(names)]


@cache
def _font(text: str) -> Any:
    """The first font that has all characters of *text*: Pillow's own, or one of this machine. None without one."""
    for file in _FONTS:
        try:
            font = ImageFont.truetype(file, _TEXT) if file else ImageFont.load_default(size=_TEXT)
        except OSError:  # not installed
            continue
        missing = bytes(font.getmask("\U0010ffff"))
        if all(bytes(font.getmask(character)) != missing for character in text):
            return font
    return None


def _text(name: str, mode: str) -> Image.Image:
    """*name* on the background of a sheet."""
    font = _font(name)
    left, top, right, bottom = map(int, font.getbbox(name))
    picture = Image.new(mode, (right - left + 2 * _GAP, bottom - top + 2 * _GAP), _gray(mode, 64))
    ImageDraw.Draw(picture).text((_GAP - left, _GAP - top), name, fill=_gray(mode, 224), font=font)
    return picture


def _gray(mode: str, level: int) -> int | tuple[int, int, int]:
    return level if mode == "L" else (level, level, level)


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
    # The frames of an older version of digitforge have no names.
    pictures = [picture for picture in pictures if picture.size == pictures[-1].size]
    durations = [frame_ms] * (len(pictures) - 1) + [2_000]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    _write(path, buffer.getvalue())


def _write(path: Path, content: bytes) -> None:
    make_folder(path.parent)
    with replacing(path) as file:
        file.write(content)
