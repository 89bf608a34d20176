"""Arrays back into the kind of container in which they came."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def as_given(array: npt.NDArray[Any], given: Any) -> Any:
    """Put an array into a container like another one.

    Args:
        array: (n, …), as many columns as *given*.
        given: a list, a pandas DataFrame or Series, or anything else, which stands for a NumPy array. A DataFrame
            of one column may have been flattened.

    Returns:
        A list for a list; for pandas the same kind with the same columns, name and dtypes, and a new index.
    """
    if isinstance(given, list):
        return array.tolist()
    if type(given).__module__.partition(".")[0] == "pandas":
        if hasattr(given, "columns"):
            table = type(given)(array.reshape(len(array), -1), columns=given.columns)
            return table.astype(dict(zip(given.columns, given.dtypes, strict=True)))
        return type(given)(array, name=given.name, dtype=given.dtype)
    return np.ascontiguousarray(array)
