"""What a classifier says of generated digits: are they what was asked for, and how clear and varied are they?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.metrics.arrays import Floats


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
    checked = _checked_probabilities(probabilities)
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


def classifier_score(probabilities: npt.ArrayLike) -> float:
    """exp(E[KL(p(y|x) ‖ p(y))]): from 1, all digits look alike or unclear, to K, all clear and every class as often.

    Salimans et al., *Improved techniques for training GANs*, NeurIPS 2016, who call it the inception score after the
    network they used. Taken over all n at once: splits only add bias (Barratt and Sharma, *A note on the inception
    score*, 2018). Real digits do not reach K, because their classes are not equally frequent.

    Args:
        probabilities: (n, K), rows summing to 1.

    Raises:
        InvalidInputError: no rows, or rows that are no probabilities.
    """
    conditional = _checked_probabilities(probabilities)
    marginal = conditional.mean(axis=0)
    positive = conditional > 0  # 0 · log 0 is 0; where a row is positive, so is the marginal
    ratio = np.divide(conditional, marginal, out=np.ones_like(conditional), where=positive)
    return float(np.exp((conditional * np.log(ratio)).sum(axis=1).mean()))


def _checked_probabilities(probabilities: npt.ArrayLike) -> Floats:
    array = np.asarray(probabilities)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "f":
        raise InvalidInputError(f"probabilities are {array.dtype} {array.shape}; expected floats (n, K), n and K ≥ 1")
    array = array.astype(np.float64)
    if not (np.isfinite(array).all() and (array >= 0).all() and np.allclose(array.sum(axis=1), 1, atol=1e-4)):
        raise InvalidInputError("some rows are not probabilities; expected finite values ≥ 0 that sum to 1 in each row")
    return array / array.sum(axis=1, keepdims=True)
