"""What every metric demands of its input, and distances in blocks of bounded memory, on all cores."""

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
#: Real numbers, (n, d), as they came from a network: cast to float64 block by block, so that no copy of all is held.
Points = npt.NDArray[Any]
T = TypeVar("T")

#: Distances held by one thread at one time: 2¹⁹ float64 values are 4 MiB.
BLOCK_ELEMENTS = 2**19
_MOST_THREADS: Final = 8
#: Columns of which only the least is looked at first, where a row's few smallest values are wanted.
_FOLD: Final = 16


def checked_points(name: str, features: npt.ArrayLike, *, more_than: int = 1) -> Points:
    """*features* as they are, if they can be measured.

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
) -> tuple[Points, Points]:
    """Two feature arrays of the same width, checked as :func:`checked_points` does.

    Raises:
        InvalidInputError: as there, or the widths differ.
    """
    first = checked_points(names[0], real, more_than=more_than)
    second = checked_points(names[1], generated, more_than=more_than)
    if first.shape[1] != second.shape[1]:
        raise InvalidInputError(
            f"{names[0]} features are {first.shape} and {names[1]} features {second.shape}; both must come from "
            "the same network and have the same number of columns"
        )
    return first, second


def checked_groups(groups: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """Groups of rows to be left out in turn: (n,) int64, 0 … G − 1, none empty, G ≥ 2.

    Raises:
        InvalidInputError: they are something else.
    """
    array = np.asarray(groups)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise InvalidInputError(f"groups are {array.dtype} {array.shape}; expected an integer for each of {n} rows")
    counts = np.bincount(array) if array.min(initial=0) >= 0 else np.zeros(1, np.int64)
    if len(counts) < 2 or not counts.all():
        raise InvalidInputError("groups must be numbered from 0 without a gap, at least two of them")
    return array.astype(np.int64)


def checked_probabilities(probabilities: npt.ArrayLike) -> Floats:
    """(n, K) class probabilities in float64, every row summing to 1.

    Raises:
        InvalidInputError: they are something else.
    """
    array = np.asarray(probabilities)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
        raise InvalidInputError(f"probabilities are {array.dtype} {array.shape}; expected floats (n, K), n and K ≥ 1")
    array = array.astype(np.float64)
    if not (np.isfinite(array).all() and (array >= 0).all() and np.allclose(array.sum(axis=1), 1, atol=1e-4)):
        raise InvalidInputError("some rows are not probabilities; expected finite values ≥ 0 that sum to 1 in each row")
    return array / array.sum(axis=1, keepdims=True)


def over_blocks(length: int, width: int, measure: Callable[[slice], T]) -> Iterator[T]:
    """``measure(rows)`` for all rows, a block at a time, on all cores; in order.

    Args:
        length: number of rows.
        width: values that *measure* holds for each row.
        measure: called in several threads.
    """
    size = max(1, BLOCK_ELEMENTS // max(1, width))
    blocks = [slice(at, min(at + size, length)) for at in range(0, length, size)]
    threads = min(_MOST_THREADS, os.cpu_count() or 1, len(blocks))
    if threads < 2:
        yield from map(measure, blocks)
        return
    # Products of small matrices: one thread for each block is faster than all threads for one block after the other.
    with _thread_pools().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        yield from pool.map(measure, blocks)


@functools.cache
def _thread_pools() -> Any:
    """NumPy's own threads; looking for them takes longer than many a product."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def over_distances(rows: Points, columns: Points, measure: Callable[[slice, Floats], T]) -> Iterator[tuple[slice, T]]:
    """``measure(place, squares)`` for all squared Euclidean distances, a block of rows at a time, on all cores.

    Args:
        rows: (n, d).
        columns: (m, d). Pass the same object as *rows* and a point's distance to itself is exactly zero.
        measure: is given the block's place in *rows* and its (block, m) squared distances, right to within `rounding`
            and so perhaps a little below zero; it may overwrite them. Called in several threads.

    Yields:
        Each block's place and what *measure* made of it, in order.
    """
    center = columns.mean(axis=0, dtype=np.float64)  # near the origin, squared distances lose fewer digits
    # |x|² − 2 x·y + |y|² as one product of matrices: of (−2x, 1, |x|²) and (y, |y|², 1)
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
    """The *count* smallest of each row, in no order: (n, m) => (n, count), m ≥ count ≥ 1.

    Of each of m / 16 sets of columns the least is taken first; the smallest *count* of all lie in the *count* sets
    whose least are smallest.
    """
    width = values.shape[1] // _FOLD
    if width < 4 * count:
        return np.partition(values, count - 1, axis=1)[:, :count]
    folded = values[:, : _FOLD * width].reshape(len(values), _FOLD, width)
    sets = np.argpartition(folded.min(axis=1), count - 1, axis=1)[:, :count]
    among = np.take_along_axis(folded, sets[:, None, :], axis=2).reshape(len(values), -1)
    among = np.concatenate([among, values[:, _FOLD * width :]], axis=1)
    return np.partition(among, count - 1, axis=1)[:, :count]


def nearest_neighbors(
    known: Points, points: Points, *, count: int = 1, but: npt.NDArray[np.int64] | None = None
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The nearest of *known* to each point, nearest first.

    Args:
        known: (n, d), n ≥ count, or n > count with *but*.
        points: (m, d).
        count: how many.
        but: (m,) for each point a place in *known* that is left out.

    Returns:
        Squared distances (m, count), ≥ 0, and places in *known* (m, count) int64.
    """

    def block(at: slice, squares: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
        rows = np.arange(len(squares))[:, None]
        if but is not None:
            squares[rows, but[at, None]] = np.inf
        if count == 1:
            places = squares.argmin(axis=1)[:, None]
        else:
            places = np.argpartition(squares, count - 1, axis=1)[:, :count]
            places = places[rows, np.argsort(squares[rows, places], axis=1, kind="stable")]
        return np.maximum(squares[rows, places], 0), places

    parts = [part for _, part in over_distances(points, known, block)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def rounding(*arrays: Points) -> float:
    """How far rounding may move a squared distance between these points: ties are decided within it."""
    center = arrays[0].mean(axis=0, dtype=np.float64)

    def farthest(array: Points) -> float:
        def block(at: slice) -> float:
            points = array[at] - center
            return float(np.einsum("ij,ij->i", points, points).max())

        return max(over_blocks(len(array), array.shape[1], block))

    return 1e-12 * max(farthest(array) for array in arrays)
