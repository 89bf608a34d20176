"""Reads arrays, lists and pandas containers, and appends rows to them."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt


def to_array(given: Any) -> npt.NDArray[Any]:
    """Convert a container to an array. Nullable, Arrow, sparse and categorical columns of pandas get NumPy's dtypes.

    Raises:
        ValueError: *given* is ragged, or a table has missing values.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(given, pandas.DataFrame) or given.empty:
        return np.asarray(given)
    if given.isna().any(axis=None):
        raise ValueError("a value is missing")
    dtypes = {_numpy_dtype(dtype) for dtype in set(given.dtypes)}
    return given.to_numpy(dtype=np.result_type(*dtypes))


def _numpy_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype of the values of a pandas column."""
    for name in ("categories", "subtype", "numpy_dtype"):  # categorical, sparse, nullable and Arrow
        inner = getattr(dtype, name, None)
        if inner is not None:
            return _numpy_dtype(getattr(inner, "dtype", inner))
    return dtype if isinstance(dtype, np.dtype) else np.dtype(object)


def append_rows(given: Any, new: npt.NDArray[Any]) -> Any:
    """Append rows to a container. The rows of *given* do not change.

    Args:
        given: (n, …): a list, a tuple, or a pandas DataFrame, Series, Index or array. Everything else is converted to a
            NumPy array.
        new: (m, …), of the same width. Rows for a DataFrame are flattened.

    Returns:
        A list for a list, and a tuple for a tuple. For pandas the same container, with the same columns and name, and a
        new index. For everything else a NumPy array. The dtype is that of *given*, or a wider one if it cannot hold the
        new rows. A categorical gets the missing categories.
    """
    if isinstance(given, list | tuple):
        rows = [*given, *(new if given and isinstance(given[0], np.ndarray) else new.tolist())]
        return rows if isinstance(given, list) else tuple(rows)
    pandas = sys.modules.get("pandas")  # a caller with a pandas container has imported pandas
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
    """Like `append_rows`, for a pandas Series."""
    import pandas

    rows = pandas.Series(new, name=given.name)
    if isinstance(given.dtype, pandas.CategoricalDtype):
        known = given.cat.categories
        missing = pandas.Index(new).difference(known)
        if len(missing):
            categories = known.append(missing)
            given = given.cat.set_categories(categories.sort_values() if known.is_monotonic_increasing else categories)
        return pandas.concat([given, rows.astype(given.dtype)], ignore_index=True)
    with suppress(TypeError, ValueError, OverflowError):  # pandas.concat then chooses a common dtype
        cast = rows.astype(given.dtype)
        kind = "f" if pandas.api.types.is_float_dtype(given.dtype) else "i"
        if new.dtype.kind not in "iuf" or _same(new, cast.to_numpy(dtype=np.float64), kind):
            rows = cast
    return pandas.concat([given, rows], ignore_index=True)


def _same(numbers: npt.NDArray[Any], cast: npt.NDArray[Any], kind: str) -> bool:
    """Whether a cast to a dtype of this *kind* kept the numbers. A cast between floats may round."""
    if numbers.dtype.kind == kind == "f":
        return bool(np.isfinite(cast).all())
    return bool((cast == numbers).all())
