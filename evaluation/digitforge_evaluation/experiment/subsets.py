"""Choose the held-out images and the subsets of real images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from digitforge_client.contract import image_hashes
from digitforge_client.errors import InvalidInputError
from digitforge_training.data import Dataset

HeldOut = Literal["test", "validation", "rest"]
VALIDATION_SHARE: Final = 1 / 12  #: share of the training set; 5 000 of MNIST's 60 000 images


@dataclass(frozen=True, kw_only=True)
class RealImages:
    """The real images of an experiment."""

    pool: Dataset  #: images that subsets are drawn from
    held_out: Dataset  #: images that accuracy is measured on
    rest: bool = False  #: whether accuracy is measured on the images of `held_out` that are not in the subset

    def held_out_from(self, subset: Dataset) -> Dataset:
        """The images that accuracy is measured on, for a classifier that has seen *subset*."""
        if not self.rest:
            return self.held_out
        hashes = image_hashes(self.held_out.images)
        return self.held_out.subset(~np.isin(hashes, image_hashes(subset.images)))


def hold_out(training: Dataset, test: Dataset, *, which: HeldOut) -> RealImages:
    """Split the real images into pool and held-out images.

    Args:
        training: the whole training split.
        test: the whole test split.
        which: ``test`` holds out the test split. ``validation`` holds out the last twelfth of the training split and
            leaves out the test split. Use it to choose settings. ``rest`` leaves out the test split too: accuracy is
            measured on all training images that are not in the subset. Use it if there are few images.
    """
    if which == "test":
        return RealImages(pool=training, held_out=test)
    if which == "rest":
        return RealImages(pool=training, held_out=training, rest=True)
    kept = len(training) - round(len(training) * VALIDATION_SHARE)
    indices = np.arange(len(training))
    return RealImages(pool=training.subset(indices[:kept]), held_out=training.subset(indices[kept:]))


def subset_indices(labels: npt.NDArray[np.int64], *, n_per_class: int, subset: int, seed: int) -> npt.NDArray[np.int64]:
    """Choose *n_per_class* images of each class at random, without replacement.

    Each subset is drawn independently, so two subsets may share images.

    Args:
        labels: (n,) int64, labels of the images to choose from.
        n_per_class: images per class.
        subset: number of the subset, from 0.
        seed: the experiment's seed.

    Returns:
        (classes × n_per_class,) int64, indices into *labels*.

    Raises:
        InvalidInputError: a class has too few images.
    """
    rng = np.random.default_rng([seed, n_per_class, subset])
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < n_per_class:
            raise InvalidInputError(
                f"class {label} has only {len(members)} images; expected at least {n_per_class} images per class. "
                "Choose a smaller size"
            )
        chosen.append(rng.choice(members, n_per_class, replace=False))
    return np.concatenate(chosen)


def subset_of(
    pool: Dataset,
    *,
    n_per_class: int,
    subset: int,
    seed: int,
    cut: Mapping[str, float] | None = None,
    noisy_labels: float = 0.0,
) -> Dataset:
    """A subset of *pool*, on request with cut classes or wrong labels.

    A subset starts with the same images for all options. Cutting only removes images of the cut classes, and noise only
    changes labels. So results with and without these options are comparable.

    Args:
        pool: the images to choose from.
        n_per_class: images per class.
        subset: number of the subset, from 0.
        seed: the experiment's seed.
        cut: names of classes, and the share of their images to keep, above 0 and at most 1. At least one image is kept.
        noisy_labels: share of images, 0 to 1, that get a wrong label. All wrong classes are equally likely.

    Raises:
        InvalidInputError: a class has too few images, or *cut* names an unknown class.
    """
    chosen = pool.subset(subset_indices(pool.labels, n_per_class=n_per_class, subset=subset, seed=seed))
    kept = np.ones(len(chosen), dtype=bool)
    for label, share in zip(minority(pool, cut or {}), (cut or {}).values(), strict=True):
        members = np.flatnonzero(chosen.labels == label)
        kept[members[max(1, round(share * len(members))) :]] = False
    if not kept.all():
        chosen = chosen.subset(kept)
    if not noisy_labels:
        return chosen
    rng = np.random.default_rng([seed, n_per_class, subset, 1])
    wrong = rng.choice(len(chosen), round(noisy_labels * len(chosen)), replace=False)
    labels = chosen.labels.copy()
    classes = len(pool.class_names)
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return replace(chosen, labels=labels)


def minority(pool: Dataset, cut: Mapping[str, float]) -> tuple[int, ...]:
    """The indices of the classes in *cut*, in the same order.

    Raises:
        InvalidInputError: *pool* does not have one of the classes.
    """
    unknown = [name for name in cut if name not in pool.class_names]
    if unknown:
        raise InvalidInputError(
            f"cannot cut class {unknown[0]!r}: {pool.name} does not have it; expected one or more of "
            f"{', '.join(pool.class_names[:60])}"
        )
    return tuple(pool.class_names.index(name) for name in cut)
