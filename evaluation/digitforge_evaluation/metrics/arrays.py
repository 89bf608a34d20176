"""What every metric demands of its input, and distances in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError

Floats = npt.NDArray[np.float64]

#: Distances held at one time: 2²² float64 values are 32 MiB.
BLOCK_ELEMENTS = 2**22


def checked_features(name: str, features: npt.ArrayLike, *, more_than: int = 1) -> Floats:
    """*features* as (n, d) float64, if they can be measured.

    Args:
        name: what the array is called in an error message.
        features: (n, d) real numbers.
        more_than: n must be greater than this.

    Raises:
        InvalidInputError: not two-dimensional, too few rows, not finite, or every row the same.
    """
    array = np.asarray(features)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "fiu":
        raise InvalidInputError(f"{name} features are {array.dtype} {array.shape}; expected real numbers (n, d)")
    if len(array) <= more_than:
        raise InvalidInputError(f"{name} features have {len(array)} rows; this metric needs more than {more_than}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
        raise InvalidInputError(
            f"{len(rows)} rows of the {name} features are not finite (the first is row {rows[0]}); "
            "look at the images or the network they came from"
        )
    if (array == array[0]).all():
        raise InvalidInputError(
            f"all {len(array)} rows of the {name} features are the same; there is no distribution to compare "
            "(a generator that makes one image, or a network that does not see these images?)"
        )
    return array


def checked_pair(
    real: npt.ArrayLike, generated: npt.ArrayLike, *, more_than: int = 1, names: tuple[str, str] = ("real", "generated")
) -> tuple[Floats, Floats]:
    """Two feature arrays of the same width, checked as :func:`checked_features` does.

    Raises:
        InvalidInputError: as there, or the widths differ.
    """
    first = checked_features(names[0], real, more_than=more_than)
    second = checked_features(names[1], generated, more_than=more_than)
    if first.shape[1] != second.shape[1]:
        raise InvalidInputError(
            f"{names[0]} features are {first.shape} and {names[1]} features {second.shape}; both must come from "
            "the same network and have the same number of columns"
        )
    return first, second


def squared_distances(rows: Floats, columns: Floats) -> Iterator[tuple[slice, Floats]]:
    """Squared Euclidean distances, a block of rows at a time.

    Args:
        rows: (n, d).
        columns: (m, d). Pass the same object as *rows* and a point's distance to itself is exactly zero.

    Yields:
        The block's place in *rows* and its (block, m) squared distances, ≥ 0. The block is overwritten by nobody;
        it may be changed in place.
    """
    column_squares = np.einsum("ij,ij->i", columns, columns)
    size = max(1, BLOCK_ELEMENTS // max(1, len(columns)))
    for at in range(0, len(rows), size):
        block = rows[at : at + size]
        squares = block @ columns.T
        squares *= -2
        squares += np.einsum("ij,ij->i", block, block)[:, None]
        squares += column_squares
        np.maximum(squares, 0, out=squares)
        if rows is columns:
            own = np.arange(len(block))
            squares[own, at + own] = 0
        yield slice(at, at + len(block)), squares


def rounding(*arrays: Floats) -> float:
    """How far rounding may move a squared distance between these points: ties are decided within it."""
    return 1e-12 * max(float(np.einsum("ij,ij->i", array, array).max()) for array in arrays)
