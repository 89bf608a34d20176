"""Input checks for all metrics, and distances computed in blocks of bounded memory on all cores."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError

Floats = npt.NDArray[np.float64]
#: Real numbers (n, d) of any dtype. Metrics cast them to float64 block by block, to avoid a copy of the whole array.
Points = npt.NDArray[Any]
T = TypeVar("T")

#: Distances that one thread holds at a time: 2¹⁹ float64 values are 4 MiB.
BLOCK_ELEMENTS = 2**19
_MAX_THREADS: Final = 8
_FOLD: Final = 16  # columns in each set, in `smallest`


def checked_points(name: str, features: npt.ArrayLike, *, more_than: int = 1) -> Points:
    """Check features, and return them as an array.

    Args:
        name: name of the array in error messages.
        features: (n, d) real numbers.
        more_than: n must be greater than this.

    Raises:
        InvalidInputError: the array is not two-dimensional, has too few rows, is not finite, or all rows are the same.
    """
    array = np.asarray(features)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "fiu":
        raise InvalidInputError(
            f"{name} features have dtype {array.dtype} and shape {array.shape}; expected real numbers (n, d)"
        )
    if len(array) <= more_than:
        raise InvalidInputError(f"{name} features have {len(array)} rows; this metric needs more than {more_than}")
    if not np.isfinite(array).all():
        rows = np.flatnonzero(~np.isfinite(array).all(axis=1))
        raise InvalidInputError(
            f"{len(rows)} rows of the {name} features are not finite (the first is row {rows[0]}); "
            "check the images and the network that computed the features"
        )
    # The features of equal images differ by rounding, depending on their place in a batch.
    rounding = 100 * np.finfo(array.dtype).eps if array.dtype.kind == "f" else 0.0
    if np.ptp(array, axis=0).max() <= rounding * np.abs(array).max():
        raise InvalidInputError(
            f"all {len(array)} rows of the {name} features are the same, so there is no distribution to compare; "
            "check that the images differ and that the network can tell them apart"
        )
    return array


def checked_pair(
    real: npt.ArrayLike, generated: npt.ArrayLike, *, more_than: int = 1, names: tuple[str, str] = ("real", "generated")
) -> tuple[Points, Points]:
    """Check two feature arrays with `checked_points`, and that their widths are equal.

    Raises:
        InvalidInputError: one of them is invalid, or their widths differ.
    """
    first = checked_points(names[0], real, more_than=more_than)
    second = checked_points(names[1], generated, more_than=more_than)
    if first.shape[1] != second.shape[1]:
        raise InvalidInputError(
            f"{names[0]} features have shape {first.shape} and {names[1]} features {second.shape}; expected the same "
            "number of columns, from the same network"
        )
    return first, second


def checked_groups(groups: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """Check the groups of a jackknife: (n,) integers, 0 … G − 1, no group empty, G ≥ 2. Return them as int64.

    Raises:
        InvalidInputError: the groups have a wrong shape or dtype, a gap in their numbers, or G < 2.
    """
    array = np.asarray(groups)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise InvalidInputError(
            f"groups have dtype {array.dtype} and shape {array.shape}; expected an integer for each of {n} rows"
        )
    counts = np.bincount(array) if array.min(initial=0) >= 0 else np.zeros(1, np.int64)
    if len(counts) < 2 or not counts.all():
        raise InvalidInputError(
            f"got {len(np.unique(array))} groups with numbers from {array.min(initial=0)} to {array.max(initial=0)}; "
            "expected at least two groups, numbered from 0 without a gap"
        )
    return array.astype(np.int64)


def checked_probabilities(probabilities: npt.ArrayLike) -> Floats:
    """Check class probabilities (n, K), and return them as float64 with rows that sum to 1.

    Raises:
        InvalidInputError: the array has a wrong shape or dtype, or a row is not a distribution.
    """
    array = np.asarray(probabilities)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
        raise InvalidInputError(
            f"probabilities have dtype {array.dtype} and shape {array.shape}; expected floats (n, K), n ≥ 1, K ≥ 1"
        )
    array = array.astype(np.float64)
    valid = (array >= 0).all(axis=1) & np.isclose(array.sum(axis=1), 1, atol=1e-4)
    if not valid.all():
        rows = np.flatnonzero(~valid)
        raise InvalidInputError(
            f"{len(rows)} rows are not probabilities (the first is row {rows[0]}); expected values ≥ 0 that sum to 1 "
            "in each row"
        )
    return array / array.sum(axis=1, keepdims=True)


def over_blocks(length: int, width: int, measure: Callable[[slice], T]) -> Iterator[T]:
    """Call ``measure(rows)`` for one block of rows after another, in several threads. Yield the results in order.

    Args:
        length: number of rows.
        width: number of values that *measure* holds for each row.
        measure: takes the slice of a block. It must be thread-safe.
    """
    size = max(1, BLOCK_ELEMENTS // max(1, width))
    blocks = [slice(at, min(at + size, length)) for at in range(0, length, size)]
    threads = min(_MAX_THREADS, os.cpu_count() or 1, len(blocks))
    if threads < 2:
        yield from map(measure, blocks)
        return
    # The matrices are small: one block per thread is faster than all threads on one block.
    with _thread_pools().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        yield from pool.map(measure, blocks)


@functools.cache
def _thread_pools() -> Any:
    """The controller of NumPy's own threads. Cached, because the search for them is slow."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def over_distances(rows: Points, columns: Points, measure: Callable[[slice, Floats], T]) -> Iterator[tuple[slice, T]]:
    """Call ``measure(at, squares)`` for all squared Euclidean distances, one block of rows after another.

    Args:
        rows: (n, d).
        columns: (m, d). If it is the same object as *rows*, the distance from a point to itself is exactly zero.
        measure: takes the slice of the block in *rows* and its (block, m) squared distances. Their error is at most
            `rounding`, so they may be slightly negative. It may overwrite them, and must be thread-safe.

    Yields:
        The slice of each block and the result of *measure*, in order.
    """
    center = columns.mean(axis=0, dtype=np.float64)  # subtracted, because rounding is smaller near the origin
    # |x|² − 2 x·y + |y|² as one matrix product, of (−2x, 1, |x|²) and (y, |y|², 1)
    wide = np.empty((len(columns), columns.shape[1] + 2))
    np.subtract(columns, center, out=wide[:, :-2])
    wide[:, -2] = np.einsum("ij,ij->i", wide[:, :-2], wide[:, :-2])
    wide[:, -1] = 1

    def block(at: slice) -> tuple[slice, T]:
        points = rows[at] - center
        squares = np.einsum("ij,ij->i", points, points)
        distances = np.concatenate([-2 * points, np.ones((len(points), 1)), squares[:, None]], axis=1) @ wide.T
        if rows is columns:
            own = np.arange(len(points))
            distances[own, at.start + own] = 0
        return at, measure(at, distances)

    yield from over_blocks(len(rows), len(columns), block)


def smallest(values: Floats, count: int) -> Floats:
    """The *count* smallest values of each row, unordered: (n, m) => (n, count), m ≥ count ≥ 1.

    For speed, the columns are divided into sets of 16. The *count* smallest values lie in the *count* sets with the
    smallest minimums, so only these sets are searched.
    """
    width = values.shape[1] // _FOLD
    if width < 4 * count:
        return np.partition(values, count - 1, axis=1)[:, :count]
    folded = values[:, : _FOLD * width].reshape(len(values), _FOLD, width)
    sets = np.argpartition(folded.min(axis=1), count - 1, axis=1)[:, :count]
    candidates = np.take_along_axis(folded, sets[:, None, :], axis=2).reshape(len(values), -1)
    candidates = np.concatenate([candidates, values[:, _FOLD * width :]], axis=1)  # the columns outside all sets
    return np.partition(candidates, count - 1, axis=1)[:, :count]


def nearest_neighbors(
    known: Points, points: Points, *, count: int = 1, excluded: npt.NDArray[np.int64] | None = None
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The rows of *known* nearest to each point, nearest first.

    Args:
        known: (n, d), n ≥ count, or n > count with *excluded*.
        points: (m, d).
        count: number of neighbors.
        excluded: (m,) for each point, a row of *known* that is not its neighbor. None: every row may be.

    Returns:
        Squared distances (m, count), ≥ 0, and rows of *known* (m, count) int64.
    """

    def block(at: slice, squares: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
        rows = np.arange(len(squares))[:, None]
        if excluded is not None:
            squares[rows, excluded[at, None]] = np.inf
        if count == 1:
            places = squares.argmin(axis=1)[:, None]
        else:
            places = np.argpartition(squares, count - 1, axis=1)[:, :count]
            places = places[rows, np.argsort(squares[rows, places], axis=1, kind="stable")]
        return np.maximum(squares[rows, places], 0), places

    parts = [part for _, part in over_distances(points, known, block)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def rounding(*arrays: Points) -> float:
    """The largest rounding error of a squared distance between these points. Smaller differences count as ties."""
    center = arrays[0].mean(axis=0, dtype=np.float64)

    def farthest(array: Points) -> float:
        def block(at: slice) -> float:
            points = array[at] - center
            return float(np.einsum("ij,ij->i", points, points).max())

        return max(over_blocks(len(array), array.shape[1], block))

    return 1e-12 * max(farthest(array) for array in arrays)
