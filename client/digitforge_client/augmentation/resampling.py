"""Which digits a data set needs, and how they become rows of it. Pure: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_client.protocol.description import Generator

Strategy = str | Mapping[Any, int] | Callable[[Any], Mapping[Any, int]]
PixelRange = tuple[float, float]
Array = npt.NDArray[Any]

_NAMED = ("auto", "minority", "not minority", "not majority", "all")


def wanted(y: Array, strategy: Strategy, synthetic_per_real: float | None) -> dict[Any, int]:
    """How many synthetic digits each class needs.

    Args:
        y: (n,) labels of the real images.
        strategy: imbalanced-learn's vocabulary of over-sampling. ``"auto"`` and ``"not majority"`` bring every class
            but the largest to the size of the largest, ``"all"`` too, ``"not minority"`` all but the smallest,
            ``"minority"`` only the smallest; a dictionary names totals afterwards, also of classes that *y* lacks; a
            function is given *y* and returns such a dictionary.
        synthetic_per_real: instead of a strategy, synthetic digits for each real one, class by class, rounded.

    Returns:
        label => number, for the classes that the strategy names.

    Raises:
        InvalidInputError: the strategy is none, or cannot be met.
    """
    labels, counts = np.unique(y, return_counts=True)
    have = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    if synthetic_per_real is not None:
        if strategy != "auto" or not 0 <= synthetic_per_real < np.inf:
            raise InvalidInputError(
                f"synthetic_per_real is {synthetic_per_real!r} with strategy {strategy!r}; expected 0 or more, and no "
                "strategy besides it"
            )
        return {label: round(count * synthetic_per_real) for label, count in have.items()}
    if callable(strategy):
        strategy = strategy(y)
    if isinstance(strategy, Mapping):
        totals = {_plain(label): _plain(total) for label, total in strategy.items()}
        for label, total in totals.items():
            if isinstance(label, str) != (y.dtype.kind in "UT"):
                raise InvalidInputError(
                    f"the strategy names class {label!r}, but y holds {y.dtype}; name classes as y does"
                )
            if isinstance(total, bool) or not isinstance(total, int) or total < have.get(label, 0):
                raise InvalidInputError(
                    f"class {label!r} should have {total!r} images afterwards; expected an integer, and no less than "
                    f"the {have.get(label, 0)} that it has"
                )
        return {label: total - have.get(label, 0) for label, total in totals.items()}
    if strategy not in _NAMED:
        raise InvalidInputError(
            f"strategy is {strategy!r}; expected one of {', '.join(map(repr, _NAMED))}, a dictionary of totals, or "
            "a function that returns one"
        )
    if len(have) < 2:
        raise InvalidInputError(
            f"y has the classes {labels.tolist()}; balancing needs at least two: say how many images each class should "
            "have with a dictionary of totals"
        )
    largest, smallest = max(have, key=have.__getitem__), min(have, key=have.__getitem__)
    excluded = {"minority": set(have) - {smallest}, "not minority": {smallest}, "all": set()}
    names = [label for label in have if label not in excluded.get(str(strategy), {largest})]
    return {label: have[largest] - have[label] for label in names}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def real_images(X: Any, generator: Generator, pixel_range: PixelRange | None) -> tuple[Array, PixelRange]:
    """The real images, if the generator's digits can stand beside them.

    Args:
        X: (n, H·W·C), (n, H, W) or (n, H, W, C), in the generator's image shape.
        generator: whose digits will join them.
        pixel_range: values of black and of white in *X*; may be left out only for uint8, whose range is (0, 255).

    Returns:
        The images as an array, and their range.

    Raises:
        InvalidInputError: the shape is not the generator's, the range is not given, or values lie outside it.
    """
    if hasattr(X, "toarray"):
        raise InvalidInputError("X is a sparse matrix; images are dense: give X.toarray()")
    try:
        images = np.asarray(X)
    except ValueError as error:
        raise InvalidInputError(f"X is no array of images: {error}") from error
    height, width, channels = generator.image_shape
    shapes = [(height * width * channels,), (height, width, channels)] + ([(height, width)] if channels == 1 else [])
    if images.ndim < 2 or images.shape[1:] not in shapes:
        raise InvalidInputError(
            f"X has shape {images.shape}; generator {generator.generator_id} makes images of "
            f"{height} × {width} × {channels}, so expected (n, …) with one of {shapes}"
        )
    if images.dtype == object:  # pandas' dtypes that may lack values
        with suppress(TypeError, ValueError):
            images = images.astype(np.float64)
    if images.dtype.kind not in "uif":
        raise InvalidInputError(f"X is {images.dtype}; expected numbers")
    if pixel_range is None:
        if images.dtype != np.uint8:
            raise InvalidInputError(
                f"X is {images.dtype}, so pixel_range must say what black and white are in it, such as (0, 1), (-1, 1) "
                "or (0, 255); it is never guessed"
            )
        pixel_range = (0, 255)
    low, high = pixel_range
    largest = float(np.finfo(images.dtype if images.dtype.kind == "f" else np.float64).max)
    if not -largest <= low < high <= largest:
        raise InvalidInputError(
            f"pixel_range is {pixel_range!r}; expected (black, white) with black below white, both of them "
            f"numbers that {images.dtype} can hold"
        )
    if images.dtype.kind in "ui" and (low, high) != (0, 255):
        raise InvalidInputError(f"X is {images.dtype}, whose pixel_range can only be (0, 255), not {pixel_range!r}")
    if images.size and not (low <= images.min() and images.max() <= high):
        raise InvalidInputError(
            f"X has values from {images.min()} to {images.max()}; expected none outside its pixel_range ({low}, {high})"
        )
    return images, (low, high)


def like(digits: npt.NDArray[np.uint8], images: Array, pixel_range: PixelRange) -> Array:
    """Digits in the layout, dtype and range of real images.

    Args:
        digits: (n, H, W) or (n, H, W, C) uint8.
        images: the real ones, of the same number of pixels.
        pixel_range: of the real ones.

    Returns:
        (n, …) of the shape of *images* and their dtype; uint8 where that is int8, which ends at 127.
    """
    shaped = digits.reshape(len(digits), *images.shape[1:])
    if images.dtype.kind in "ui":
        return shaped if images.dtype == np.int8 else shaped.astype(images.dtype)
    low, high = pixel_range
    # divided last, so that whole numbers stay whole
    return np.clip(low + shaped.astype(np.float64) * (high - low) / 255, low, high).astype(images.dtype)


def class_labels(y: Any) -> Array:
    """Labels as a vector.

    Args:
        y: (n,) or (n, 1) class numbers or names, or (n, K) with a single 1 in each row (one versus the rest).

    Returns:
        (n,) integers or strings; of one-versus-rest labels, the number of the column.

    Raises:
        InvalidInputError: they are labels of several classes at once, or of none.
    """
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] > 1:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise InvalidInputError("Multilabel and multioutput targets are not supported: an image has one class")
        return labels.argmax(axis=1)
    if labels.ndim not in (1, 2):
        raise InvalidInputError(f"y has shape {labels.shape}; expected (n,)")
    labels = labels.reshape(-1)
    if labels.dtype == object:
        labels = np.asarray(labels.tolist())
    if labels.dtype.kind == "f":
        if not np.array_equal(labels, np.round(labels)):
            raise InvalidInputError(
                "Unknown label type: y holds fractions or lacks values; expected class numbers or class names"
            )
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iuUT" and labels.size:
        raise InvalidInputError(f"Unknown label type: y is {labels.dtype}; expected class numbers or class names")
    return labels
