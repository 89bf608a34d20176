"""The list of metrics. A new metric is a file in ``metrics/`` and an entry here; reports, tables and floors follow."""

from __future__ import annotations

from collections.abc import Callable
from math import hypot, inf
from typing import Final

import numpy as np

from digitforge_evaluation.experiment.statistics import t_interval
from digitforge_evaluation.metrics import frechet
from digitforge_evaluation.metrics.arrays import Floats
from digitforge_evaluation.metrics.authenticity import authentic
from digitforge_evaluation.metrics.c_t import c_t, c_t_left_out
from digitforge_evaluation.metrics.classifier_score import classifier_score
from digitforge_evaluation.metrics.extrapolation import extrapolated_distance, fewest_images
from digitforge_evaluation.metrics.intervals import Interval, Z
from digitforge_evaluation.metrics.kernel import subset_kernel_distance
from digitforge_evaluation.metrics.label_agreement import agreeing
from digitforge_evaluation.quality.classification_accuracy import Accuracies
from digitforge_evaluation.quality.comparison import Comparison, held_out_images, held_out_subsets, unseen_splits
from digitforge_evaluation.quality.metric import Better, Metric, Value, jackknife, jackknife_of, wilson
from digitforge_evaluation.quality.reference import Floor, floor_of

#: Subsets of the kernel distance, and images in each.
KERNEL_SUBSETS: Final = 100
KERNEL_SUBSET_SIZE: Final = 1000


def _distance(c: Comparison) -> float:
    return frechet.frechet_distance(real=c.moments, generated=frechet.gaussian(c.generated.features, name="generated"))


def _subset_kernel(c: Comparison) -> float:
    return subset_kernel_distance(
        real=c.test.features,
        generated=c.generated.features,
        subsets=KERNEL_SUBSETS,
        subset_size=KERNEL_SUBSET_SIZE,
    ).mean


def _prdc(name: str, better: Better, *, high: float = 1.0) -> Metric:
    """Precision, recall, density or coverage: one pass computes all four."""
    return Metric(
        title=name,
        name=f"{name}[{{features}},k={{k}}]",
        better=better,
        value=lambda c: getattr(c.prdc, name),
        interval=jackknife_of(lambda c, _: [getattr(each, name) for each in c.prdc_left_out], low=0, high=high),
        fewest=lambda c: c.k + 1,
        fewest_applies_to_held_out=True,
    )


def missing_modes_interval(shares: Floats, resampled: Floats) -> Interval | None:
    """A 95 % interval over the generated images and the choice of partitions.

    The margin is √(a² + b²). The margin *a* over the images is 1.96 standard deviations of the bootstrap samples. The
    margin *b* over the partitions comes from Student's t.

    Args:
        shares: (P,) share of real images in missing modes, on each of P partitions.
        resampled: (B, P) the same share in each of B bootstrap samples of the generated images.

    Returns:
        The interval, cut off at 0 and 1; None if the margin is 0.
    """
    value = float(shares.mean())
    margin = hypot(Z * resampled.mean(axis=1).std(ddof=1), value - t_interval(shares).low)
    return (max(0.0, value - margin), min(1.0, value + margin)) if margin else None


def _accuracy(title: str, name: str, of: Callable[[Accuracies], tuple[float, ...]]) -> Metric:
    """The mean accuracy of several classifiers, with an interval by Student's t."""

    def interval(_value: Value, c: Comparison, _whole: float) -> Interval:
        found = t_interval(of(c.accuracies))
        return max(0.0, found.low), min(1.0, found.high)

    def floor(c: Comparison) -> Floor:
        return floor_of(list(c.accuracies.real_to_real), n=c.accuracies.n, held_out=c.held_out)

    return Metric(
        title=title,
        name=f"{name}[cnn]@{{n}}",
        better="higher",
        value=lambda c: float(np.mean(of(c.accuracies))),
        interval=interval,
        training=None,
        floor=floor,
        stage="training classifiers",
    )


METRICS: Final = {
    "distance": Metric(
        title="Fréchet distance",
        name=frechet.NAME,
        better="lower",
        value=_distance,
        interval=jackknife,
        fewest=lambda c: c.features + 1,
        unseen=unseen_splits,
        named=True,
    ),
    "extrapolated": Metric(
        title="extrapolated Fréchet distance",
        name="fd_infinity[{features}]@{n}",
        better="lower",
        value=lambda c: extrapolated_distance(
            real=c.moments, generated=c.generated.features, labels=c.generated.labels
        ),
        interval=jackknife,
        fewest=lambda c: fewest_images(c.features),
        unseen=unseen_splits,
        named=True,
    ),
    "kernel": Metric(
        title="kernel distance",
        name="kd[{features}]@{n}",
        better="lower",
        value=lambda c: c.kernel.value,
        interval=lambda _value, c, _whole: c.kernel.interval,
        unseen=unseen_splits,
        named=True,
    ),
    "kernel_subsets": Metric(
        title="kernel distance over subsets",
        name=f"kd[{{features}}]@{KERNEL_SUBSETS}x{KERNEL_SUBSET_SIZE}",
        better="lower",
        value=_subset_kernel,
        interval=None,  # it estimates the same number as the full-sample distance, whose interval is narrower
        fewest=lambda _: KERNEL_SUBSET_SIZE,
        fewest_applies_to_held_out=True,
        unseen=unseen_splits,
        named=True,
    ),
    "precision": _prdc("precision", better="higher"),
    "recall": _prdc("recall", better="higher"),
    "density": _prdc("density", better="as real", high=inf),
    "coverage": _prdc("coverage", better="higher"),
    "missing": Metric(
        title="missing modes",
        name="missing_modes[pixels]@{n}",
        better="lower",
        value=lambda c: float(c.missing_modes[0].mean()),
        interval=lambda _value, c, _whole: missing_modes_interval(*c.missing_modes),
        training=None,
        unseen=held_out_subsets,
    ),
    "agreement": Metric(
        title="label agreement",
        name="label_agreement",
        better="higher",
        value=lambda c: float(agreeing(c.probabilities, c.labels).mean()),
        interval=wilson,
        unseen=held_out_subsets,
    ),
    "score": Metric(
        title="classifier score",
        name="classifier_score[{features}]",
        better="higher",
        value=lambda c: classifier_score(c.probabilities),
        interval=jackknife,
        unseen=held_out_subsets,
    ),
    "train_on_generated": _accuracy(
        "accuracy (train on generated)", "train_on_generated", lambda found: found.generated_to_real
    ),
    "train_on_real": _accuracy("accuracy (train on real)", "train_on_real", lambda found: found.real_to_generated),
    "authenticity": Metric(
        title="authenticity",
        name="authenticity[{features}]",
        better="as real",
        value=lambda c: float(authentic(training=c.training.seen_features, samples=c.generated.features).mean()),
        interval=wilson,
        training=None,
        unseen=held_out_images,
    ),
    "copying": Metric(
        title="copying (C_T)",
        name="c_t[{features}]@{n}",
        better="as real",
        value=lambda c: c_t(**c.nearness),
        interval=jackknife_of(lambda c, groups: c_t_left_out(**c.nearness, groups=groups)),
        training=None,
        unseen=unseen_splits,
    ),
}
