"""The arms of an experiment: what a classifier is trained on, and nothing else.

An arm turns *n* real images, and the digits of a generator where it uses one, into a `Draw`: a function that hands
out training images. Everything else about the training is the classifier's and the same in all arms.

An arm with a generator bears the generator's *budget* in its name, ``gan (strict)``, because what the generator has
seen decides what its success means. Where several generators or several ways to use one are compared, they are named
there too: ``gan (oracle forge-3fa1b2, 5×)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.classifiers import Draw, Images, Labels
from digitforge_evaluation.classifiers.transformations import ELASTIC, Smote, add_noise, shift_rotate_scale

Rows = tuple[Images, Labels]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to make training images out of real ones."""

    description: str
    real: bool = True  # are the real images among them
    generator: bool = False  # are generated digits among them
    balanced: bool = False  # are classes drawn equally often, whatever their size
    classical: bool = False  # is every image drawn shifted, turned and scaled
    cheap: str = ""  # "noise" or "smote": half of the images drawn are treated so


ARMS: Final[dict[str, Arm]] = {
    "real": Arm(description="the real images alone"),
    "oversampled": Arm(description="the real images, every class drawn equally often", balanced=True),
    "noise": Arm(description="half of them with Gaussian noise", cheap="noise"),
    "smote": Arm(description="half of them mixed with a neighbor of their class", cheap="smote"),
    "classical": Arm(
        description="real images shifted, turned, scaled, sheared and bent, never mirrored", classical=True
    ),
    "classical+oversampled": Arm(
        description="the same, every class drawn equally often", balanced=True, classical=True
    ),
    "gan": Arm(description="real images and generated digits", generator=True),
    "classical+gan": Arm(
        description="real images and generated digits, all shifted, turned, scaled, sheared and bent",
        generator=True,
        classical=True,
    ),
    "synthetic": Arm(description="generated digits alone", real=False, generator=True),
}

#: The comparison a verdict is taken on, named before any result is seen.
PRIMARY: Final = ("classical+gan", "classical")
#: What takes the baseline's place where classes are unbalanced: generated digits would balance them, and so must it.
UNBALANCED_BASELINE: Final = "classical+oversampled"


@dataclass(frozen=True)
class ArmName:
    """The parts of an arm's full name, ``ARM (BUDGET GENERATOR, VARIANT)``; what is empty is left out."""

    arm: str  # a key of ``ARMS``
    budget: str = ""  # what the generator has seen
    generator: str = ""  # which one, where there are several
    variant: str = ""  # how its digits are used, where that is compared

    def __str__(self) -> str:
        inside = " ".join(part for part in (self.budget, self.generator) if part)
        inside = ", ".join(part for part in (inside, self.variant) if part)
        return f"{self.arm} ({inside})" if inside else self.arm

    @property
    def source(self) -> str:
        """The generator with its budget: ``oracle``, or ``oracle forge-3fa1b2``."""
        return " ".join(part for part in (self.budget, self.generator) if part)

    @classmethod
    def parse(cls, name: str) -> ArmName:
        """The parts of a full name."""
        arm, _, inside = name.removesuffix(")").partition(" (")
        source, _, variant = inside.partition(", ")
        budget, _, generator = source.partition(" ")
        return cls(arm, budget, generator, variant)


def check_arms(names: Sequence[str]) -> tuple[str, ...]:
    """Return *names*, in the order of ``ARMS``, each once.

    Raises:
        InvalidInputError: there is none, or one is unknown.
    """
    unknown = [name for name in names if name not in ARMS]
    if unknown or not names:
        what = f"there is no arm {unknown[0]!r}" if unknown else "no arm was named"
        raise InvalidInputError(f"{what}; expected some of {', '.join(ARMS)}")
    return tuple(name for name in ARMS if name in names)


def draw_for(
    name: str,
    *,
    images: Images,
    labels: Labels,
    generated: Rows | None = None,
    generated_share: float = 0.5,
    fresh: bool = False,
    elastic: float = ELASTIC,
) -> Draw:
    """What the arm called *name* hands out.

    Args:
        name: a key of ``ARMS``.
        images: (n, H, W, C) uint8, the real images.
        labels: (n,) int64, their classes.
        generated: generated images and labels, for an arm that uses them.
        generated_share: share of generated digits among the rows of an arm that has both.
        fresh: hand out every generated digit once, over all calls, before any is handed out again; otherwise they
            are a fixed set, shuffled anew in every call.
        elastic: strength of the elastic distortion in classical augmentation, as `shift_rotate_scale` takes it.

    Returns:
        A function of a number of rows and a random generator; made anew for every fit.

    Raises:
        InvalidInputError: the arm is unknown, or needs generated digits and there are none.
    """
    check_arms([name])
    arm = ARMS[name]
    if not arm.generator:
        draw = _real(arm, images, labels)
        return _classical(draw, elastic) if arm.classical else draw
    if generated is None or len(generated[0]) == 0:
        raise InvalidInputError(f"the arm {name!r} needs generated digits; name a server or a generator")
    synthetic = _in_sequence(*generated) if fresh else _in_epochs(*generated)
    draw = _mixed(_real(arm, images, labels), synthetic, generated_share) if arm.real else synthetic
    return _classical(draw, elastic) if arm.classical else draw


def class_gaps(labels: Labels, *, classes: int, generated_share: float) -> tuple[int, ...]:
    """Proportions of classes among generated digits that make all classes equally frequent together with real ones.

    Args:
        labels: (n,) int64, of the real images.
        classes: number of classes.
        generated_share: share of generated digits among all rows; 1 for generated digits alone.

    Returns:
        One number ≥ 0 per class. A class that is too frequent even so gets none.
    """
    if generated_share == 1:
        return (1,) * classes
    counts = np.bincount(labels, minlength=classes)
    wanted = len(labels) / (1 - generated_share) / classes
    gaps = np.rint(1000 * np.maximum(wanted - counts, 0)).astype(np.int64)
    return tuple(int(gap) for gap in gaps // np.gcd.reduce(gaps))


def _real(arm: Arm, images: Images, labels: Labels) -> Draw:
    draw = _balanced(images, labels) if arm.balanced else _in_epochs(images, labels)
    if arm.cheap == "noise":
        return _mixed(draw, _changed(draw, add_noise), 0.5)
    if arm.cheap == "smote":
        return _mixed(draw, _smote(images, labels), 0.5)
    return draw


def _classical(draw: Draw, elastic: float) -> Draw:
    return _changed(draw, partial(shift_rotate_scale, elastic=elastic))


def _in_epochs(images: Images, labels: Labels) -> Draw:
    """Every image once, in random order, before any is drawn again."""

    def draw(rows: int, rng: np.random.Generator) -> Rows:
        indices = _epochs(len(images), rows, rng)
        return images[indices], labels[indices]

    return draw


def _in_sequence(images: Images, labels: Labels) -> Draw:
    """Every image once before any is drawn again, also over several calls; one random order for all of them."""
    order = np.zeros(0, np.int64)
    taken = 0

    def draw(rows: int, rng: np.random.Generator) -> Rows:
        nonlocal order, taken
        if not len(order):
            order = rng.permutation(len(images))
        indices = np.take(order, np.arange(taken, taken + rows), mode="wrap")
        taken += rows
        return images[indices], labels[indices]

    return draw


def _epochs(n: int, rows: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    orders = [rng.permutation(n) for _ in range(-(-rows // n))]
    return np.concatenate([np.zeros(0, np.int64), *orders])[:rows]


def _balanced(images: Images, labels: Labels) -> Draw:
    """Every class equally often; within a class, every image equally likely."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.unique(labels, return_counts=True)[1]
    starts = np.cumsum(counts) - counts

    def draw(rows: int, rng: np.random.Generator) -> Rows:
        classes = _epochs(len(counts), rows, rng)
        indices = by_class[starts[classes] + rng.integers(0, counts[classes])]
        return images[indices], labels[indices]

    return draw


def _smote(images: Images, labels: Labels) -> Draw:
    smote = Smote(images, labels)

    def draw(rows: int, rng: np.random.Generator) -> Rows:
        indices = _epochs(len(images), rows, rng)
        return smote.mix(indices, rng), labels[indices]

    return draw


def _changed(draw: Draw, change: Callable[[Images, np.random.Generator], Images]) -> Draw:
    def changed(rows: int, rng: np.random.Generator) -> Rows:
        images, labels = draw(rows, rng)
        return change(images, rng), labels

    return changed


def _mixed(first: Draw, second: Draw, share: float) -> Draw:
    """Rows of both in random order, *share* of them from *second*."""

    def draw(rows: int, rng: np.random.Generator) -> Rows:
        of_second = round(rows * share)
        one, other = first(rows - of_second, rng), second(of_second, rng)
        order = rng.permutation(rows)
        return np.concatenate([one[0], other[0]])[order], np.concatenate([one[1], other[1]])[order]

    return draw
