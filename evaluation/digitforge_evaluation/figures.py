"""All figures of one set of images against real held-out ones, from one feature pass over each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features import Measured
from digitforge_evaluation.metrics.agreement import agreeing, classifier_score
from digitforge_evaluation.metrics.frechet import Gaussian, frechet_distance, gaussian
from digitforge_evaluation.metrics.kernel import kernel_distance
from digitforge_evaluation.metrics.manifold import manifold

#: Nearest neighbours that the manifold's balls reach to.
NEIGHBOURS = 5
KERNEL_SUBSETS = 100
KERNEL_SUBSET_SIZE = 1000


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a figure is, for tables."""

    title: str
    better: str  # "lower", "higher", or "as real" where real digits' own value is the ideal


KINDS = {
    "distance": Kind(title="Fréchet distance", better="lower"),
    "kernel": Kind(title="kernel distance", better="lower"),
    "precision": Kind(title="precision", better="higher"),
    "recall": Kind(title="recall", better="higher"),
    "density": Kind(title="density", better="as real"),
    "coverage": Kind(title="coverage", better="higher"),
    "agreement": Kind(title="label agreement", better="higher"),
    "score": Kind(title="classifier score", better="higher"),
    "memorised": Kind(title="too near to training", better="as real"),
}


def figures_without_real_images(
    generated: Measured, labels: npt.NDArray[np.int64] | None, moments: Gaussian
) -> dict[str, float]:
    """The figures for which a mean and covariance of the real features are enough.

    Args:
        generated: of n images, n > d.
        labels: (n,) the classes asked for; None if there were none, and then there is no agreement.
        moments: of the real features.

    Returns:
        ``distance``, and ``score`` and ``agreement`` if the network gives probabilities.

    Raises:
        InvalidInputError: too few images, or features that cannot be measured.
    """
    found = {
        "distance": frechet_distance(real=moments, generated=gaussian(generated.features, name="generated")),
    }
    if generated.probabilities is not None:
        if labels is not None:
            found["agreement"] = float(agreeing(generated.probabilities, labels).mean())
        found["score"] = classifier_score(generated.probabilities)
    return found


def figures_against_real_images(*, real: Measured, generated: Measured, k: int = NEIGHBOURS) -> dict[str, float]:
    """The figures that need the real features themselves.

    Args:
        real: of m held-out images, m > k.
        generated: of n images, n > k.
        k: nearest neighbours that the manifold's balls reach to.

    Returns:
        ``precision``, ``recall``, ``density``, ``coverage``, and ``kernel`` if n and m reach `KERNEL_SUBSET_SIZE`.

    Raises:
        InvalidInputError: too few images, or features that cannot be measured.
    """
    shape = manifold(real=real.features, generated=generated.features, k=k)
    found = {
        "precision": shape.precision,
        "recall": shape.recall,
        "density": shape.density,
        "coverage": shape.coverage,
    }
    if min(len(real.features), len(generated.features)) >= KERNEL_SUBSET_SIZE:
        found["kernel"] = kernel_distance(
            real=real.features, generated=generated.features, subsets=KERNEL_SUBSETS, subset_size=KERNEL_SUBSET_SIZE
        ).mean
    return found


def figure_name(key: str, *, features: str, n: int, k: int) -> str:
    """A figure's full name: with its features, and with what its value depends on.

    Args:
        key: one of `KINDS`.
        features: name of the feature network.
        n: images in the generated set.
        k: nearest neighbours.

    Raises:
        InvalidInputError: no such figure.
    """
    names = {
        "distance": distance_name(features, n),
        "kernel": f"kd[{features}]@{KERNEL_SUBSETS}x{KERNEL_SUBSET_SIZE}",
        "agreement": "label_agreement",
        "score": f"classifier_score[{features}]",
        "memorised": f"too_near_to_training[{features}]",
        **{key: f"{key}[{features},k={k}]" for key in ("precision", "recall", "density", "coverage")},
    }
    if key not in names:
        raise InvalidInputError(f"there is no figure {key!r}; expected one of {', '.join(names)}")
    return names[key]


def distance_name(features: str, n: int) -> str:
    """A distance's full name, with its features and sample size: ``fd[digitnet-64]@10k``.

    Raises:
        InvalidInputError: n < 1.
    """
    if n < 1:
        raise InvalidInputError(f"n is {n}; expected at least 1")
    return f"fd[{features}]@{f'{n // 1000}k' if n % 1000 == 0 else n}"
