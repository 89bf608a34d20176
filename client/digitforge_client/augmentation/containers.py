"""Rows added to a container of any kind."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt


def extended(given: Any, new: npt.NDArray[Any]) -> Any:
    """Put rows after those of a container, which stay as they are.

    Args:
        given: (n, …): a list, a pandas DataFrame, Series, Index or array, or anything else, which stands for a NumPy
            array.
        new: (m, …), of the same width; a DataFrame takes flattened rows.

    Returns:
        A list for a list; for pandas the same kind, with the same columns and name and a new index. The dtype is that
        of *given*, or a wider one where it cannot hold the new rows; a categorical gets the categories that it lacks.
    """
    if isinstance(given, list):
        return [*given, *(new if given and isinstance(given[0], np.ndarray) else new.tolist())]
    pandas = sys.modules.get("pandas")  # imported already if the caller has a pandas container
    if pandas is not None:
        if isinstance(given, pandas.DataFrame):
            table = new.reshape(len(new), given.shape[1])
            columns = [_extended_series(given.iloc[:, number], table[:, number]) for number in range(given.shape[1])]
            return type(given)(pandas.concat(columns, axis=1).set_axis(given.columns, axis=1))
        if isinstance(given, pandas.Series):
            return _extended_series(given, new)
        if isinstance(given, pandas.Index):
            return pandas.Index(_extended_series(given.to_series(), new), name=given.name)
        if isinstance(given, pandas.api.extensions.ExtensionArray):
            return _extended_series(pandas.Series(given), new).array
    array = np.asarray(given)
    if array.dtype == object or (array.dtype.kind in "iuf" and _same(new, new.astype(array.dtype), array.dtype.kind)):
        new = new.astype(array.dtype)
    return np.ascontiguousarray(np.concatenate([array, new]))


def _extended_series(given: Any, new: npt.NDArray[Any]) -> Any:
    """As `extended`, for a pandas Series."""
    import pandas

    rows = pandas.Series(new, name=given.name)
    if isinstance(given.dtype, pandas.CategoricalDtype):
        known = given.cat.categories
        lacking = pandas.Index(new).difference(known)
        if len(lacking):
            categories = known.append(lacking)
            given = given.cat.set_categories(categories.sort_values() if known.is_monotonic_increasing else categories)
        return pandas.concat([given, rows.astype(given.dtype)], ignore_index=True)
    with suppress(TypeError, ValueError, OverflowError):  # pandas finds a dtype for both then
        cast = rows.astype(given.dtype)
        kind = "f" if pandas.api.types.is_float_dtype(given.dtype) else "i"
        if new.dtype.kind not in "iuf" or _same(new, cast.to_numpy(dtype=np.float64), kind):
            rows = cast
    return pandas.concat([given, rows], ignore_index=True)


def _same(numbers: npt.NDArray[Any], cast: npt.NDArray[Any], kind: str) -> bool:
    """Whether numbers survived a cast to a dtype of this kind; fractions may be rounded in other floats."""
    if numbers.dtype.kind == kind == "f":
        return bool(np.isfinite(cast).all())
    return bool((cast == numbers).all())
