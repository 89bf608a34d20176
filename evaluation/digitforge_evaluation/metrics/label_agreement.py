"""Label agreement: the share of generated images that a classifier takes for what was asked for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.arrays import checked_probabilities


def agreeing(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether each digit's most probable class is the class that was asked for.

    Args:
        probabilities: (n, K), rows summing to 1.
        labels: (n,) integers, 0 … K − 1.

    Returns:
        (n,) bool; its mean is the label agreement.

    Raises:
        InvalidInputError: no rows, lengths that differ, rows that are no probabilities, or labels outside the classes.
    """
    checked = checked_probabilities(probabilities)
    wanted = np.asarray(labels)
    if wanted.shape != (len(checked),) or wanted.dtype.kind not in "iu":
        raise InvalidInputError(
            f"labels are {wanted.dtype} {wanted.shape} beside {len(checked)} probabilities; expected one integer each"
        )
    if wanted.min() < 0 or wanted.max() >= checked.shape[1]:
        raise InvalidInputError(
            f"labels run from {wanted.min()} to {wanted.max()}; the classifier knows 0 to {checked.shape[1] - 1}"
        )
    return checked.argmax(axis=1) == wanted
