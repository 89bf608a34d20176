"""Which real images are held out, and which make up a subset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_training.data import Dataset

HeldOut = Literal["test", "validation"]
VALIDATION_SHARE: Final = 1 / 12  # of the training set: 5 000 of MNIST's 60 000


@dataclass(frozen=True, kw_only=True)
class RealImages:
    """The real images of an experiment."""

    pool: Dataset  # those that subsets are drawn from
    held_out: Dataset  # those that accuracy is measured on


def hold_out(training: Dataset, test: Dataset, *, which: HeldOut) -> RealImages:
    """Decide which images are held out.

    Args:
        training: the whole training split.
        test: the whole test split.
        which: ``test``, or ``validation`` to leave the test set alone and hold out the last twelfth of the training
            set instead, for choosing settings.
    """
    if which == "test":
        return RealImages(pool=training, held_out=test)
    kept = len(training) - round(len(training) * VALIDATION_SHARE)
    indices = np.arange(len(training))
    return RealImages(pool=training.subset(indices[:kept]), held_out=training.subset(indices[kept:]))


def subset_indices(labels: npt.NDArray[np.int64], *, n_per_class: int, subset: int, seed: int) -> npt.NDArray[np.int64]:
    """Which images make up a subset: *n_per_class* of each class at random, none twice.

    Subsets are drawn independently of each other, so two of them may share images.

    Args:
        labels: (n,) int64, of the images to choose from.
        n_per_class: images per class.
        subset: number of the subset, from 0.
        seed: the experiment's seed.

    Returns:
        (classes × n_per_class,) int64.

    Raises:
        InvalidInputError: a class has too few images.
    """
    rng = np.random.default_rng([seed, n_per_class, subset])
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < n_per_class:
            raise InvalidInputError(
                f"{n_per_class} images per class were asked for, but class {label} has only {len(members)}; "
                "ask for fewer"
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
    """A subset of *pool*, unbalanced or with wrong labels if asked for.

    The same subset without these loses no image but those of the classes that are cut, and has the same images under
    their true labels: scenarios can be compared.

    Args:
        pool: the images to choose from.
        n_per_class: images per class.
        subset: number of the subset, from 0.
        seed: the experiment's seed.
        cut: names of classes and the share of their images that is kept, above 0 and at most 1; one at least is kept.
        noisy_labels: share of images, 0 to 1, whose label becomes another one, each of the others equally likely.

    Raises:
        InvalidInputError: a class has too few images, or *cut* names one that does not exist.
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
    """The indices of the classes that are *cut*, in its order.

    Raises:
        InvalidInputError: there is no such class.
    """
    unknown = [name for name in cut if name not in pool.class_names]
    if unknown:
        raise InvalidInputError(
            f"there is no class {unknown[0]!r} to be cut in {pool.name}; expected some of "
            f"{', '.join(pool.class_names[:60])}"
        )
    return tuple(pool.class_names.index(name) for name in cut)
