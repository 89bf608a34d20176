"""The input of the metrics: generated images, and the real images to compare them with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features.extract import Measured
from digitforge_evaluation.images.proportions import FLOOR_REPEATS, class_counts, random_subsets
from digitforge_evaluation.images.sources import Drawn, Labels
from digitforge_evaluation.metrics.arrays import Floats
from digitforge_evaluation.metrics.c_t import Cells, Nearness, divide, nearness
from digitforge_evaluation.metrics.frechet import Gaussian
from digitforge_evaluation.metrics.intervals import Groups
from digitforge_evaluation.metrics.kernel import KernelDistance, kernel_distance, mean_among
from digitforge_evaluation.metrics.missing_modes import (
    POWER,
    RESAMPLES,
    Bins,
    detectable_share,
    images_needed,
    make_bins,
    missing_modes,
    partition_seeds,
)
from digitforge_evaluation.metrics.prdc import PRDC, prdc, prdc_left_out
from digitforge_evaluation.quality.classification_accuracy import Accuracies, classification_accuracies
from digitforge_evaluation.quality.reference import Reference, moments_of
from digitforge_training.data import Dataset, DataSource, load_splits
from digitforge_training.gan.clusters import find_bins

#: Number of images to draw, unless there are few training images.
IMAGES: Final = 10_000
#: Default number of nearest neighbors for precision, recall, density and coverage.
NEIGHBORS: Final = 5
_MAX_BINS: Final = 32  # of one class
_IMAGES_PER_BIN: Final = 20  # training images, at least

Rows = npt.NDArray[np.intp] | npt.NDArray[np.bool_]


def images_to_draw(train: Dataset | None) -> int:
    """The default number of images: `IMAGES`, or half as many as there are training images if that is fewer.

    Then random training images can be measured in their place, which gives the training floor.
    """
    return IMAGES if train is None else max(2, min(IMAGES, len(train) // 2))


@dataclass(frozen=True, kw_only=True)
class RealData:
    """The two splits of a data set."""

    train: Dataset  #: training images of generators
    test: Dataset  #: held-out images, to compare generators with

    @classmethod
    def load(cls, data: str | DataSource, **options: Any) -> Self:
        """Load both splits. Arguments and errors are those of `digitforge_training.data.load`."""
        train, test = load_splits(data, **options)
        return cls(train=train, test=test)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample(Drawn):
    """Images with their labels and the output of the feature network."""

    measured: Measured

    @classmethod
    def of(cls, dataset: Dataset, measured: Measured) -> Self:
        """A sample of all images of a data set."""
        return cls(images=dataset.images, labels=dataset.labels, measured=measured)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    @property
    def features(self) -> npt.NDArray[np.float32]:
        """Features, (n, d)."""
        return self.measured.features

    def __getitem__(self, rows: Rows) -> Sample:
        """The sample of some rows."""
        probabilities = self.measured.probabilities
        return Sample(
            images=self.images[rows],
            labels=None if self.labels is None else self.labels[rows],
            measured=Measured(
                features=self.features[rows], probabilities=None if probabilities is None else probabilities[rows]
            ),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """The real training images. Results that depend on them alone are computed once and kept."""

    data: Dataset
    sample: Sample  #: all training images
    seen: npt.NDArray[np.bool_]  #: (n,) whether the generator was trained on each image
    held_out: int  #: number of held-out images

    @functools.cached_property
    def seen_features(self) -> npt.NDArray[np.float32]:
        """(m, d) features of the images that the generator was trained on, m ≥ 2."""
        if self.seen.sum() < 2:
            raise InvalidInputError(
                f"needs at least 2 training images that the generator has seen; it has seen {self.seen.sum()} of "
                f"{self.data.name}"
            )
        return self.sample.features[self.seen]

    @functools.cached_property
    def cells(self) -> Cells:
        """The seen training images divided into cells, for C_T."""
        return divide(training=self.seen_features, held_out=self.held_out)

    @functools.cached_property
    def partitions(self) -> Sequence[Bins]:
        """Several partitions of all training images (seen or not) into bins, for missing modes."""
        counts = np.bincount(self.data.labels, minlength=len(self.data.class_names))
        each = min(_MAX_BINS, int(counts.min()) // _IMAGES_PER_BIN)
        if each < 2:
            raise InvalidInputError(
                f"needs at least {2 * _IMAGES_PER_BIN} training images of each class; the smallest has {counts.min()}"
            )
        return [
            make_bins(pixels=self.data.images, labels=self.data.labels, clusters=clusters)
            for clusters in find_bins(self.data, each, seeds=partition_seeds())
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Real:
    """Real images."""

    test: Sample  #: held out
    training: Training

    @property
    def test_labels(self) -> Labels:
        """(n,) the classes of the held-out images."""
        assert self.test.labels is not None
        return self.test.labels

    @functools.cached_property
    def kernel_among(self) -> float:
        """The mean of the kernel over all pairs of held-out images, for the kernel distance."""
        return mean_among(self.test.features)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Generated images and the real images to compare them with.

    Results that several metrics need are computed once and kept. If data is missing, a property raises
    `InvalidInputError`; the message says why the metric is left out.
    """

    generated: Sample  #: the generated images, or real images in their place for a floor
    reference: Reference
    real: Real | None = None  #: None if only the reference statistics are known
    k: int = NEIGHBORS
    groups: Groups | None = None  #: (n,) jackknife group of each generated image; None: compute no intervals
    label: int | None = None  #: the class, if only one class is compared
    classifier_seed: int | None = None  #: None: train no classifiers

    def of(self, rows: Rows) -> Comparison:
        """This comparison for some of the generated images, without intervals."""
        return replace(self, generated=self.generated[rows], groups=None)

    def of_class(self, label: int) -> Comparison:
        """This comparison for one class. It is valid for the Fréchet distance and the label agreement only."""
        rows = np.flatnonzero(self.labels == label)
        groups = None if self.groups is None else self.groups[rows]
        return replace(self, generated=self.generated[rows], groups=groups, label=label)

    @property
    def test(self) -> Sample:
        """The held-out real images."""
        return self._real.test

    @property
    def held_out(self) -> int:
        """Number of held-out real images, in all or of the one class."""
        return len(self.test) if self.label is None else int(np.count_nonzero(self.test.labels == self.label))

    @property
    def training(self) -> Training:
        """The real training images."""
        return self._real.training

    @property
    def _real(self) -> Real:
        if self.real is None:
            raise InvalidInputError("needs real images: give --data")
        return self.real

    @property
    def labels(self) -> Labels:
        """(n,) the requested classes of the generated images."""
        if self.generated.labels is None:
            raise InvalidInputError("the images have no labels")
        return self.generated.labels

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """(n, K) class probabilities of the generated images, from the feature network."""
        if self.generated.measured.probabilities is None:
            raise InvalidInputError("the feature network does not classify these images")
        return self.generated.measured.probabilities

    @property
    def features(self) -> int:
        """Number of features."""
        return self.generated.features.shape[1]

    @property
    def moments(self) -> Gaussian:
        """Mean and covariance of the held-out real features, of all images or of the one class."""
        found = self.reference.moments if self.label is None else self.reference.of_classes.get(self.label)
        if found is None:
            raise InvalidInputError(f"needs at least {self.features + 1} held-out images")
        return found

    @functools.cached_property
    def prdc(self) -> PRDC:
        """Precision, recall, density and coverage."""
        return prdc(real=self.test.features, generated=self.generated.features, k=self.k)

    @functools.cached_property
    def prdc_left_out(self) -> tuple[PRDC, ...]:
        """Precision, recall, density and coverage without each group."""
        assert self.groups is not None
        return prdc_left_out(real=self.test.features, generated=self.generated.features, groups=self.groups, k=self.k)

    @functools.cached_property
    def missing_modes(self) -> tuple[Floats, Floats]:
        """The share of real images in missing modes on each partition, (P,), and in each bootstrap sample, (B, P)."""
        partitions = self.training.partitions
        counts = np.bincount(self.labels, minlength=len(self.reference.class_counts))
        share = detectable_share(partitions, counts)
        if share < POWER:
            raise InvalidInputError(
                f"needs at least {images_needed(partitions, counts)} generated images; with {len(self.generated)}, "
                f"Fisher's test can notice the absence of bins that hold {share:.0%} of the real images, which is less "
                f"than {POWER:.0%}"
            )
        resamples = 0 if self.groups is None else RESAMPLES
        return missing_modes(partitions, pixels=self.generated.images, labels=self.labels, resamples=resamples)

    @functools.cached_property
    def kernel(self) -> KernelDistance:
        """The kernel distance."""
        return kernel_distance(
            real=self.test.features,
            generated=self.generated.features,
            labels=self.generated.labels,
            among_real=self._real.kernel_among,
        )

    @functools.cached_property
    def nearness(self) -> dict[str, Nearness]:
        """How close the held-out and the generated images are to the training images, for C_T."""
        cells = self.training.cells
        return {
            "held_out": nearness(cells, self.test.features),
            "generated": nearness(cells, self.generated.features),
        }

    @functools.cached_property
    def accuracies(self) -> Accuracies:
        """Accuracies of classifiers trained on generated and on real images."""
        _ = self.labels
        if self.classifier_seed is None:
            raise InvalidInputError("needs --accuracy and --data, because it trains ten classifiers")
        return classification_accuracies(
            train=self.training.data,
            test=self.test,
            generated=self.generated,
            proportions=self.reference.class_counts,
            seed=self.classifier_seed,
        )


#: Yields comparisons that have real images in place of the generated images, and no intervals.
StandIns = Callable[[Comparison], Iterator[Comparison]]


def training_subsets(comparison: Comparison, repeats: int = FLOOR_REPEATS) -> Iterator[Comparison]:
    """Random subsets of the training images, of the same size as the generated set, in the test proportions.

    Yields nothing if some class has too few training images.
    """
    everything = comparison.training.sample
    counts = class_counts(comparison.reference.class_counts, len(comparison.generated))
    for rows in random_subsets(comparison.training.data.labels, counts, repeats=repeats):
        yield replace(comparison, generated=everything[rows], groups=None)


def held_out_subsets(comparison: Comparison) -> Iterator[Comparison]:
    """Random subsets of the held-out images, of the same size as the generated set, compared with training images.

    Yields all held-out images once if the generated set has as many images or more.
    """
    total = len(comparison.test)
    n = min(len(comparison.generated), total)
    whole = replace(comparison, generated=comparison.test, groups=None)
    counts = class_counts(comparison.reference.class_counts, n)
    for rows in random_subsets(whole.labels, counts, repeats=FLOOR_REPEATS if n < total else 1):
        yield whole.of(rows)


def held_out_images(comparison: Comparison) -> Iterator[Comparison]:
    """All held-out images, once."""
    yield replace(comparison, generated=comparison.test, groups=None)


def unseen_splits(comparison: Comparison, repeats: int = FLOOR_REPEATS) -> Iterator[Comparison]:
    """Random parts of the held-out images in place of the generated ones, each compared with all other held-out images.

    A part has the size of the generated set, but at most half of the held-out images. Both parts have the same class
    proportions.
    """
    test, reference = comparison.test, comparison.reference
    assert test.labels is not None
    total = len(test)
    counts = class_counts(reference.class_counts, min(len(comparison.generated), total // 2))
    for rows in random_subsets(test.labels, counts, repeats=repeats):
        others = np.setdiff1d(np.arange(total), rows)
        held_out = test[others]
        rest = moments_of(held_out.features, test.labels[others], classes=len(reference.class_counts))
        yield replace(
            comparison,
            generated=test[rows],
            reference=replace(reference, moments=rest[0], of_classes=rest[1]),
            real=Real(test=held_out, training=comparison.training),
            groups=None,
        )
