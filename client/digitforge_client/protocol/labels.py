"""Converts labels of any kind to class numbers or class names."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError


def label_array(labels: Any) -> npt.NDArray[Any]:
    """Convert labels to an array of integers or strings.

    Args:
        labels: class numbers (integers, or floats without fractions) or class names: a single one, or a container of
            any shape.

    Returns:
        Integers or strings, with the shape of *labels*.

    Raises:
        InvalidInputError: a label is missing, or the labels have another dtype. imbalanced-learn expects the words
            "Unknown label type".
    """
    given = np.asarray(labels)
    if given.dtype.kind == "U" and isinstance(labels, list | tuple):
        given = np.asarray(labels, dtype=object)  # otherwise NaN and None would become the names "nan" and "None"
    if np.ma.is_masked(labels) or (given.dtype.kind in "OfT" and _has_missing(given)):
        raise InvalidInputError(
            "Unknown label type: labels are missing (NaN, NA or None); expected a class number or class name for each "
            "image"
        )
    if given.dtype.kind in "OT":  # objects, for example from pandas, or numpy's variable-width strings
        given = np.asarray(given.tolist()).reshape(given.shape)
    if given.dtype.kind == "f":
        if not (np.isfinite(given).all() and np.array_equal(given, np.round(given))):
            raise InvalidInputError(
                "Unknown label type: labels have fractions or are infinite; expected class numbers or class names"
            )
        given = given.astype(np.int64)
    if given.dtype.kind not in "iuU" and given.size:
        raise InvalidInputError(
            f"Unknown label type: labels have dtype {given.dtype}; expected class numbers or class names"
        )
    return given


def _has_missing(given: npt.NDArray[Any]) -> bool:
    pandas = sys.modules.get("pandas")  # only its containers have other missing values than None and NaN
    if pandas is not None:
        return bool(pandas.isna(given).any())
    return any(one is None or (isinstance(one, float) and math.isnan(one)) for one in given.ravel().tolist())
