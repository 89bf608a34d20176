"""Label agreement: the share of generated images that a classifier assigns to the requested class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.arrays import checked_probabilities


def agreeing(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Tell for each image whether its most probable class is the requested class.

    Args:
        probabilities: (n, K) class probabilities; each row sums to 1.
        labels: (n,) integers, 0 … K − 1, the requested classes.

    Returns:
        (n,) bool; its mean is the label agreement.

    Raises:
        InvalidInputError: there are no rows, the lengths differ, a row does not hold probabilities, or a label is not
            one of the K classes.
    """
    checked = checked_probabilities(probabilities)
    wanted = np.asarray(labels)
    if wanted.shape != (len(checked),) or wanted.dtype.kind not in "iu":
        raise InvalidInputError(
            f"labels have dtype {wanted.dtype} and shape {wanted.shape}; expected one integer for each of "
            f"{len(checked)} rows of probabilities"
        )
    if wanted.min() < 0 or wanted.max() >= checked.shape[1]:
        raise InvalidInputError(
            f"labels run from {wanted.min()} to {wanted.max()}; expected 0 to {checked.shape[1] - 1}, the classes that "
            "the classifier knows"
        )
    return checked.argmax(axis=1) == wanted
