"""The arms of an experiment: what a classifier is trained on, and nothing else.

An arm turns *n* real images, and the digits of a generator where it uses one, into a `Draw`: a function that hands
out training images. Everything else about the training is the classifier's and the same in all arms.

An arm with a generator bears the generator's *budget* in its name, ``gan (strict)``, because what the generator has
seen decides what its success means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers import Draw, Images, Labels
from digitforge_evaluation.transformations import Smote, add_noise, shift_rotate_scale

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
    "smote": Arm(description="half of them mixed with a neighbour of their class", cheap="smote"),
    "classical": Arm(description="real images shifted, turned, scaled and sheared, never mirrored", classical=True),
    "gan": Arm(description="real images and generated digits", generator=True),
    "classical+gan": Arm(
        description="real images and generated digits, all shifted, turned, scaled and sheared",
        generator=True,
        classical=True,
    ),
    "synthetic": Arm(description="generated digits alone", real=False, generator=True),
}

#: The comparison a verdict is taken on, named before any result is seen.
PRIMARY: Final = ("classical+gan", "classical")


def split_name(name: str) -> tuple[str, str]:
    """An arm's name and its generator's budget: ``gan (oracle)`` gives ``gan`` and ``oracle``; ``real`` and ``""``."""
    arm, _, budget = name.partition(" (")
    return arm, budget.rstrip(")")


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
    name: str, *, images: Images, labels: Labels, generated: Rows | None = None, generated_share: float = 0.5
) -> Draw:
    """What the arm called *name* hands out.

    Args:
        name: a key of ``ARMS``.
        images: (n, H, W, C) uint8, the real images.
        labels: (n,) int64, their classes.
        generated: generated images and labels, for an arm that uses them.
        generated_share: share of generated digits among the rows of an arm that has both.

    Returns:
        A function of a number of rows and a random generator.

    Raises:
        InvalidInputError: the arm is unknown, or needs generated digits and there are none.
    """
    check_arms([name])
    arm = ARMS[name]
    if not arm.generator:
        return _classical(_real(arm, images, labels)) if arm.classical else _real(arm, images, labels)
    if generated is None or len(generated[0]) == 0:
        raise InvalidInputError(f"the arm {name!r} needs generated digits; name a server or a generator")
    synthetic = _in_epochs(*generated)
    draw = _mixed(_real(arm, images, labels), synthetic, generated_share) if arm.real else synthetic
    return _classical(draw) if arm.classical else draw


def _real(arm: Arm, images: Images, labels: Labels) -> Draw:
    draw = _balanced(images, labels) if arm.balanced else _in_epochs(images, labels)
    if arm.cheap == "noise":
        return _mixed(draw, _changed(draw, add_noise), 0.5)
    if arm.cheap == "smote":
        return _mixed(draw, _smote(images, labels), 0.5)
    return draw


def _classical(draw: Draw) -> Draw:
    return _changed(draw, shift_rotate_scale)


def _in_epochs(images: Images, labels: Labels) -> Draw:
    """Every image once, in random order, before any is drawn again."""

    def draw(rows: int, rng: np.random.Generator) -> Rows:
        indices = _epochs(len(images), rows, rng)
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
