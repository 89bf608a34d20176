"""Brings images of any size into the form that the networks need: uint8 squares, gray or red-green-blue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from digitforge_client.errors import DataError, InvalidInputError

SMALLEST_SIDE: Final = 16
LARGEST_SIDE: Final = 64
CHANNELS: Final = (1, 3)  # gray, or red-green-blue

Fit = Literal["crop", "pad", "stretch"]
Channels = Literal["gray", "rgb"]
FITS: Final[tuple[Fit, ...]] = get_args(Fit)
MODES: Final[Mapping[Channels, str]] = {"gray": "L", "rgb": "RGB"}  #: Pillow's names

#: Bicubic interpolation. Pillow widens it when it makes images smaller, so that fine lines do not turn into noise.
#: Unlike Lanczos, it leaves almost no halos around strokes. Pillow computes it with integers, so the result does not
#: depend on the machine.
FILTER: Final = Image.Resampling.BICUBIC


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How images are changed when they are read.

    Raises:
        InvalidInputError: a value is out of range.
    """

    #: Height and width in pixels, from 16 to 64. None leaves the size as it is.
    size: int | None = None
    #: What happens to images that are not square. ``crop`` cuts off both ends of the longer side, ``pad`` adds stripes
    #: in the color of the image's border, ``stretch`` distorts. Only with `size`.
    fit: Fit = "crop"
    #: ``gray`` weighs red, green and blue as ITU-R 601-2 does. ``rgb`` repeats gray three times. None leaves them.
    channels: Channels | None = None
    #: Whether rows and columns are swapped, before everything else.
    transpose: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and (
            isinstance(self.size, bool)
            or not isinstance(self.size, int)
            or not SMALLEST_SIDE <= self.size <= LARGEST_SIDE
        ):
            raise InvalidInputError(
                f"size is {self.size!r}; expected {SMALLEST_SIDE} to {LARGEST_SIDE} pixels, because the networks need "
                "such images (--size)"
            )
        if self.fit not in FITS:
            raise InvalidInputError(f"fit is {self.fit!r}; expected {', '.join(FITS)} (--fit)")
        if self.channels is not None and self.channels not in MODES:
            raise InvalidInputError(f"channels is {self.channels!r}; expected {' or '.join(MODES)} (--channels)")

    @property
    def fitting(self) -> Fitting:
        """These four values alone. Useful for a subclass."""
        return Fitting(**{field.name: getattr(self, field.name) for field in fields(Fitting)})

    def as_dict(self) -> dict[str, Any]:
        """The four values as JSON-ready data."""
        return asdict(self.fitting)

    @property
    def options(self) -> str:
        """The options of the command line that mean these values."""
        chosen = [] if self.size is None else [f"--size {self.size}", f"--fit {self.fit}"]
        chosen += [f"--channels {self.channels}"] if self.channels else []
        return " ".join([*chosen, "--transpose" if self.transpose else "--no-transpose"])


def options_for(*, wanted: Sequence[int], given: Sequence[int]) -> str:
    """The options that turn images of one shape into another, such as ``--size 28 --channels gray``.

    Args:
        wanted: (H, W, C).
        given: (H, W, C).
    """
    height, width, channels = wanted
    options = [f"--size {height}"] if height == width and (height, width) != tuple(given[:2]) else []
    options += [f"--channels {'gray' if channels == 1 else 'rgb'}"] if channels != given[2] else []
    return " ".join(options)


def fit_array(
    images: npt.NDArray[np.generic], fitting: Fitting, *, where: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Fit the images of an array.

    Args:
        images: (n, H, W), (n, H, W, C), (n, C, H, W) or (n, H·H) uint8, C is 1 or 3.
        fitting: what to do with them.
        where: the file to name in an error.

    Returns:
        The fitted images, (n, side, side, C) uint8, and the given images as (n, H, W, C) uint8.

    Raises:
        DataError: the images have another dtype or shape. Or no size is given, and they are not squares of 16 to 64
            pixels.
    """
    whole = _four_dimensions(images, where)
    fitted = np.ascontiguousarray(whole.swapaxes(1, 2) if fitting.transpose else whole)
    side = (fitting.size,) * 2 if fitting.size else fitted.shape[1:3]
    channels = {None: fitted.shape[3], "gray": 1, "rgb": 3}[fitting.channels]
    if fitted.shape[1:] != (*side, channels):
        made = np.empty((len(fitted), *side, channels), np.uint8)
        for i, image in enumerate(fitted):
            picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
            made[i] = _pixels(fitted_picture(picture, Fitting(**{**fitting.as_dict(), "transpose": False})))
        fitted = made
    if wrong := problem_with_sides(*fitted.shape[1:3]):
        raise DataError(f"{where}: {wrong}")
    return fitted, whole


def fit_picture(picture: Image.Image, fitting: Fitting, *, where: str) -> npt.NDArray[np.uint8]:
    """Fit one picture of the mode L or RGB: (side, side, C) uint8.

    Raises:
        DataError: no size is given, and the picture is not a square of 16 to 64 pixels.
    """
    if fitting.size is None and (wrong := problem_with_sides(picture.height, picture.width)):
        raise DataError(f"{where}: {wrong}")
    return _pixels(fitted_picture(picture, fitting))


def fitted_picture(picture: Image.Image, fitting: Fitting) -> Image.Image:
    """Fit one picture of the mode L or RGB. The result may have any size if the fitting names none."""
    if fitting.transpose:
        picture = picture.transpose(Image.Transpose.TRANSPOSE)
    if fitting.channels:
        picture = picture.convert(MODES[fitting.channels])
    if fitting.size is None or picture.size == (fitting.size, fitting.size):
        return picture
    square = (fitting.size, fitting.size)
    if fitting.fit == "crop":
        return ImageOps.fit(picture, square, FILTER)
    if fitting.fit == "pad":
        return ImageOps.pad(picture, square, FILTER, color=_border_color(picture))
    return picture.resize(square, FILTER)


def _border_color(picture: Image.Image) -> int | tuple[int, ...]:
    """The median of the pixels on the border, for each channel: black for MNIST, the color of the paper for scans."""
    pixels = _pixels(picture)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    color = tuple(int(value) for value in np.median(border, axis=0))
    return color if len(color) > 1 else color[0]


def _pixels(picture: Image.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(picture).reshape(picture.height, picture.width, -1)


def problem_with_sides(height: int, width: int) -> str:
    """Say what is wrong with the size of images, and which option helps. Returns "" if nothing is wrong."""
    if height == width and SMALLEST_SIDE <= height <= LARGEST_SIDE:
        return ""
    side = max(height, width)
    side = 32 if side > LARGEST_SIDE else max(SMALLEST_SIDE, side)
    shapes = "; --fit says how images become square: crop, pad or stretch" if height != width else ""
    return (
        f"images are {height}×{width} pixels; expected squares of {SMALLEST_SIDE} to {LARGEST_SIDE} pixels; resize "
        f"them with --size {side}, or another size in this range{shapes} (in Python: size{', fit' if shapes else ''})"
    )


def _four_dimensions(images: npt.NDArray[np.generic], where: str) -> npt.NDArray[np.uint8]:
    """Images of any supported shape as (n, H, W, C)."""
    if wrong := problem_with_dtype(images):
        raise DataError(f"{where}: {wrong}")
    pixels = images.astype(np.uint8, copy=False)
    if pixels.ndim == 2:
        side = round(pixels.shape[1] ** 0.5)
        if side * side == pixels.shape[1] and side:
            return pixels.reshape(len(pixels), side, side, 1)
        raise DataError(
            f"{where}: images have the shape {pixels.shape}; rows of {pixels.shape[1]} pixels are no gray squares; "
            "reshape them to (n, height, width) or (n, height, width, 3) first"
        )
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    elif pixels.ndim == 4 and pixels.shape[3] not in CHANNELS and pixels.shape[1] in CHANNELS:
        pixels = pixels.transpose(0, 2, 3, 1)  # PyTorch's order
    if pixels.ndim != 4 or pixels.shape[3] not in CHANNELS or 0 in pixels.shape[1:]:
        advice = "; leave out transparency with x[..., :3]" if pixels.ndim == 4 and pixels.shape[3] == 4 else ""
        raise DataError(
            f"{where}: images have the shape {images.shape}; expected (n, height, width), (n, height, width, channels) "
            f"or (n, channels, height, width) with 1 or 3 channels, or (n, pixels) of gray squares{advice}"
        )
    return pixels


def problem_with_dtype(images: npt.NDArray[np.generic]) -> str:
    """Say what is wrong with the dtype of *images* and how to fix it. Returns "" if nothing is wrong.

    Pixel ranges are never guessed, so only uint8 is accepted.
    """
    if images.dtype == np.uint8:
        return ""
    return f"images are {images.dtype}{_range(images)}; expected uint8 from 0 to 255; {_conversion(images)}"


def _range(images: npt.NDArray[np.generic]) -> str:
    if images.dtype.kind not in "biuf" or not images.size:
        return ""
    if not np.isfinite(images).all():
        return ", and some pixels are NaN or infinite"
    return f" from {images.min():g} to {images.max():g}"


def _conversion(images: npt.NDArray[np.generic]) -> str:
    """How to convert the images to uint8.

    Only a suggestion: the range of the pixels at hand does not prove the range of the data (an image may be all black).
    """
    if images.dtype.kind not in "biuf" or not images.size or not np.isfinite(images).all():
        return "fix or drop those images, then convert the rest" if images.dtype.kind == "f" else "convert them first"
    low, high = float(images.min()), float(images.max())
    if low < 0 and -1 <= low <= high <= 1:
        return "if the range is -1 to 1, convert them with ((x + 1) * 127.5).round().astype('uint8')"
    if 0 <= low <= high <= 1:
        return "if the range is 0 to 1, convert them with (x * 255).round().astype('uint8')"
    if 0 <= low <= high <= 255:
        return "convert them with x.round().astype('uint8')"
    if images.dtype == np.uint16:
        return "if the range is 0 to 65535, convert them with (x / 257).round().astype('uint8')"
    return "scale them to 0 to 255, then convert them with x.round().astype('uint8')"
