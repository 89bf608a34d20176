"""The classifier score: how clear and how varied are generated images in a classifier's eyes?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.metrics.arrays import checked_probabilities


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
    conditional = checked_probabilities(probabilities)
    marginal = conditional.mean(axis=0)
    positive = conditional > 0  # 0 · log 0 is 0; where a row is positive, so is the marginal
    ratio = np.divide(conditional, marginal, out=np.ones_like(conditional), where=positive)
    return float(np.exp((conditional * np.log(ratio)).sum(axis=1).mean()))
