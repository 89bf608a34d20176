"""Computes which digits a data set needs, and converts them to its layout. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from digitforge_client.augmentation.containers import to_array
from digitforge_client.errors import InvalidInputError
from digitforge_client.protocol.description import Generator
from digitforge_client.protocol.labels import label_array

Strategy = str | float | Mapping[Any, int] | Callable[[Any], Mapping[Any, int]]
PixelRange = tuple[float, float]
Array = npt.NDArray[Any]

_NAMED = ("auto", "minority", "not minority", "not majority", "all")


def digits_to_add(y: Array, strategy: Strategy, synthetic_per_real: float | None) -> dict[Any, int]:
    """Compute the number of synthetic digits for each class.

    Args:
        y: (n,) labels of the real images.
        strategy: the sampling strategy of imbalanced-learn's over-samplers. A name chooses the classes that grow to the
            size of the largest class: ``"minority"`` the smallest class, ``"not minority"`` all except the smallest,
            ``"not majority"`` and ``"auto"`` all except the largest, ``"all"`` all classes. A dictionary holds the
            total number of images per class afterwards, and may contain classes that *y* lacks. A function takes *y*
            and returns such a dictionary. For two classes, a number above 0 and up to 1 is the size of the smaller
            class afterwards, as a share of the larger one.
        synthetic_per_real: number of synthetic digits per real image, instead of *strategy*. The number for each class
            is rounded.

    Returns:
        label => number, for the classes of the strategy.

    Raises:
        InvalidInputError: the strategy is unknown or impossible.
    """
    labels, counts = np.unique(y, return_counts=True)
    have = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    if synthetic_per_real is not None:
        if not (isinstance(strategy, str) and strategy == "auto") or not 0 <= synthetic_per_real < np.inf:
            raise InvalidInputError(
                f"synthetic_per_real is {synthetic_per_real!r} and strategy is {strategy!r}; expected "
                "synthetic_per_real to be 0 or more, and strategy to be left out"
            )
        return {label: round(count * synthetic_per_real) for label, count in have.items()}
    if callable(strategy):
        strategy = strategy(y)
    if hasattr(strategy, "items"):  # a dictionary, or a Series of pandas
        return _up_to_totals(have, dict(strategy.items()), y.dtype)
    if isinstance(strategy, int | float | np.number) and not isinstance(strategy, bool):
        return _up_to_share(have, float(strategy))
    if not isinstance(strategy, str) or strategy not in _NAMED:
        raise InvalidInputError(
            f"strategy is {strategy!r}; expected one of {', '.join(map(repr, _NAMED))}, a dictionary with the total "
            "number of images per class, a function that returns such a dictionary, or, for two classes, a number up "
            "to 1"
        )
    if len(have) < 2:
        raise InvalidInputError(
            f"y has the classes {labels.tolist()}; balancing needs at least two: give a dictionary with the total "
            "number of images per class instead"
        )
    largest, smallest = max(have, key=have.__getitem__), min(have, key=have.__getitem__)
    excluded = {"minority": set(have) - {smallest}, "not minority": {smallest}, "all": set()}
    names = [label for label in have if label not in excluded.get(strategy, {largest})]
    return {label: have[largest] - have[label] for label in names}


def _up_to_totals(have: dict[Any, int], strategy: Mapping[Any, Any], dtype: np.dtype[Any]) -> dict[Any, int]:
    """The digits that a dictionary of totals asks for. Keys and totals may be floats without fractions."""
    names = label_array(list(strategy)).tolist()
    added = {}
    for label, total in zip(names, strategy.values(), strict=True):
        if have and isinstance(label, str) != (dtype.kind == "U"):
            raise InvalidInputError(
                f"the strategy names class {label!r}, but y has dtype {dtype}; name classes as in y"
            )
        whole = isinstance(total, int | np.integer) or (isinstance(total, float | np.floating) and total.is_integer())
        if not whole or isinstance(total, bool) or total < have.get(label, 0):
            raise InvalidInputError(
                f"the strategy asks for {total!r} images of class {label!r}; expected an integer, at least the "
                f"{have.get(label, 0)} images that y has"
            )
        added[label] = int(total) - have.get(label, 0)
    return added


def _up_to_share(have: dict[Any, int], share: float) -> dict[Any, int]:
    """The digits that a share of the larger class asks for. There must be two classes."""
    if len(have) != 2 or not 0 < share <= 1:
        raise InvalidInputError(
            f"strategy is {share:g} and y has the classes {list(have)}; expected a number above 0 and up to 1, and two "
            "classes: give a dictionary with the total number of images per class instead"
        )
    larger = max(have, key=have.__getitem__)
    (smaller,) = set(have) - {larger}
    new = int(have[larger] * share - have[smaller])
    if new < 1:
        raise InvalidInputError(
            f"strategy is {share:g}, but class {smaller!r} already has {have[smaller]} images and class {larger!r} has "
            f"{have[larger]}; give a larger share"
        )
    return {smaller: new}


def check_images(X: Any, generator: Generator, pixel_range: PixelRange | None) -> tuple[Array, PixelRange]:
    """Check that the real images fit the generator's digits.

    Args:
        X: (n, H·W·C), (n, H, W) or (n, H, W, C), in the generator's image shape.
        generator: generator of the synthetic digits.
        pixel_range: the values of black and white in *X*. May be None only for uint8, where it is (0, 255).

    Returns:
        The images as an array, and their range.

    Raises:
        InvalidInputError: the images do not have the generator's shape, *pixel_range* is missing, or a value lies
            outside it.
    """
    if np.ma.is_masked(X):
        raise InvalidInputError("X has masked pixels; expected a value for each pixel: give X.filled(…)")
    if hasattr(X, "toarray"):
        raise InvalidInputError("X is a sparse matrix; expected a dense array: give X.toarray()")
    try:
        images = to_array(X)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"X is invalid ({error}); expected images of equal size, without missing pixels"
        ) from error
    height, width, channels = generator.image_shape
    shapes = [(height * width * channels,), (height, width, channels)] + ([(height, width)] if channels == 1 else [])
    if images.ndim < 2 or images.shape[1:] not in shapes:
        raise InvalidInputError(
            f"X has shape {images.shape}, but generator {generator.generator_id} makes images of "
            f"{height} × {width} × {channels}; expected {' or '.join(str(('n', *shape)) for shape in shapes)}"
        )
    if images.dtype == object:
        with suppress(TypeError, ValueError):
            images = images.astype(np.float64)
    if images.dtype.kind not in "uif":
        raise InvalidInputError(f"X has dtype {images.dtype}; expected numbers")
    if pixel_range is None:
        if images.dtype != np.uint8:
            raise InvalidInputError(
                f"X has dtype {images.dtype} and pixel_range is missing; give the values of black and white in X, such "
                "as (0, 1), (-1, 1) or (0, 255), because they are never guessed"
            )
        pixel_range = (0, 255)
    low, high = pixel_range
    largest = float(np.finfo(images.dtype if images.dtype.kind == "f" else np.float64).max)
    if not -largest <= low < high <= largest:
        raise InvalidInputError(
            f"pixel_range is {pixel_range!r}; expected (black, white) with black below white, and both within the "
            f"range of {images.dtype}"
        )
    if images.dtype.kind in "ui" and (low, high) != (0, 255):
        raise InvalidInputError(
            f"pixel_range is {pixel_range!r}, but X has dtype {images.dtype}; expected (0, 255) for integers"
        )
    if images.size and not (low <= images.min() and images.max() <= high):
        raise InvalidInputError(
            f"X has values from {images.min()} to {images.max()}; expected values within pixel_range ({low}, {high})"
        )
    return images, (low, high)


def match_images(digits: npt.NDArray[np.uint8], images: Array, pixel_range: PixelRange) -> Array:
    """Convert digits to the layout, dtype and range of real images.

    Args:
        digits: (n, H, W) or (n, H, W, C) uint8.
        images: the real images, with the same number of pixels per image.
        pixel_range: the values of black and white in *images*.

    Returns:
        (n, …), with the layout and dtype of *images*. For int8 images the result is uint8, because int8 ends at 127.
    """
    shaped = digits.reshape(len(digits), *images.shape[1:])
    if images.dtype.kind in "ui":
        return shaped if images.dtype == np.int8 else shaped.astype(images.dtype)
    low, high = pixel_range
    # the division comes last, so that integers stay exact
    return np.clip(low + shaped.astype(np.float64) * (high - low) / 255, low, high).astype(images.dtype)


def class_labels(y: Any) -> Array:
    """Convert labels to a vector.

    Args:
        y: (n,) or (n, 1) class numbers or names, or (n, K) one-hot labels.

    Returns:
        (n,) integers or strings. One-hot labels become column numbers.

    Raises:
        InvalidInputError: a row names several classes or no class, a label is missing, or the labels have another shape
            or dtype.
    """
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] > 1:
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise InvalidInputError(
                f"Multilabel and multioutput targets are not supported: y has shape {labels.shape}; expected (n,), or "
                "(n, K) with a single 1 in each row"
            )
        return labels.argmax(axis=1)
    if labels.ndim not in (1, 2):
        raise InvalidInputError(f"y has shape {labels.shape}; expected (n,)")
    return label_array(y).reshape(-1)
