"""The classifier score: how clear and how varied are generated images for a classifier?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.metrics.arrays import checked_probabilities


def classifier_score(probabilities: npt.ArrayLike) -> float:
    """Compute the classifier score, exp(E[KL(p(y|x) ‖ p(y))]), from 1 to K.

    It is 1 if all images look the same to the classifier, and K if all are clear and all classes have the same
    frequency. The classes of real images have different frequencies, so real images stay below K.

    Salimans et al., *Improved techniques for training GANs*, NeurIPS 2016, call it the inception score, after the
    network they used. Here one value is computed over all n images, because splits only add bias (Barratt and Sharma,
    *A note on the inception score*, 2018).

    Args:
        probabilities: (n, K) class probabilities; each row sums to 1.

    Raises:
        InvalidInputError: there are no rows, or a row does not hold probabilities.
    """
    conditional = checked_probabilities(probabilities)
    marginal = conditional.mean(axis=0)
    positive = conditional > 0  # 0 · log 0 counts as 0; the marginal is positive wherever a row is
    ratio = np.divide(conditional, marginal, out=np.ones_like(conditional), where=positive)
    return float(np.exp((conditional * np.log(ratio)).sum(axis=1).mean()))
