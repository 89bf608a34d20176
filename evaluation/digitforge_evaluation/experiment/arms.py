"""The arms of an experiment: what a classifier is trained on, and nothing else.

An arm turns *n* real images, and the digits of a generator where it uses one, into training images (see `draws`).
Everything else about the training is the classifier's and the same in all arms.

An arm with a generator bears the generator's *budget* in its full name, ``gan (strict)``, because what the generator
has seen decides what its success means. Where several generators or several ways to use one are compared, they are
named there too: ``gan (oracle forge-3fa1b2, 5×)``. Files hold full names, which are parsed where a file is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from digitforge_client.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class Design:
    """One way to make training images out of real ones."""

    description: str
    real: bool = True  # are the real images among them
    generator: bool = False  # are generated digits among them
    balanced: bool = False  # are classes drawn equally often, whatever their size
    classical: bool = False  # is every image drawn shifted, turned and scaled
    cheap: str = ""  # "noise" or "smote": half of the images drawn are treated so


ARMS: Final[dict[str, Design]] = {
    "real": Design(description="the real images alone"),
    "oversampled": Design(description="the real images, every class drawn equally often", balanced=True),
    "noise": Design(description="half of them with Gaussian noise", cheap="noise"),
    "smote": Design(description="half of them mixed with a neighbor of their class", cheap="smote"),
    "classical": Design(
        description="real images shifted, turned, scaled, sheared and bent, never mirrored", classical=True
    ),
    "classical+oversampled": Design(
        description="the same, every class drawn equally often", balanced=True, classical=True
    ),
    "gan": Design(description="real images and generated digits", generator=True),
    "classical+gan": Design(
        description="real images and generated digits, all shifted, turned, scaled, sheared and bent",
        generator=True,
        classical=True,
    ),
    "synthetic": Design(description="generated digits alone", real=False, generator=True),
}

#: A verdict is taken on this arm against `baseline`, both named before any result is seen.
PRIMARY: Final = "classical+gan"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """How an arm uses generated digits, where that is compared: one of these fields is set, or, for verdicts, none."""

    ratio: float | None = None  # generated digits per real image; None: the plan's
    expansion: float | None = None  # latents are multiplied by this; None: by nothing
    fresh: bool = False  # no digit is used twice
    filtered: bool = False  # only digits whose label a classifier agrees with that saw the subset alone

    def __post_init__(self) -> None:
        for name in ("ratio", "expansion"):
            if (value := getattr(self, name)) is not None:
                # To as many digits as a full name has, so that a cell is known again when its file is read.
                object.__setattr__(self, name, float(f"{value:g}"))

    def __str__(self) -> str:
        if self.ratio is not None:
            return f"{self.ratio:g}×"
        if self.expansion is not None:
            return f"expansion {self.expansion:g}"
        return "fresh" if self.fresh else "filtered" if self.filtered else ""

    @classmethod
    def parse(cls, text: str) -> Variant:
        """The variant that `str` wrote.

        Raises:
            ValueError: there is no such variant.
        """
        if text in ("", "fresh", "filtered"):
            return cls(fresh=text == "fresh", filtered=text == "filtered")
        if text.endswith("×"):
            return cls(ratio=float(text.removesuffix("×")))
        return cls(expansion=float(text.removeprefix("expansion ")))


PLAIN: Final = Variant()


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An arm with the generator that it uses.

    Its full name is ``NAME (BUDGET GENERATOR, VARIANT)``, less what is empty.
    """

    name: str  # a key of ``ARMS``
    budget: str = ""  # what the generator has seen
    generator: str = ""  # which one, where there are several
    variant: Variant = PLAIN

    @property
    def design(self) -> Design:
        """What its training images are made of."""
        return ARMS[self.name]

    @property
    def source(self) -> str:
        """The generator with its budget: ``oracle``, or ``oracle forge-3fa1b2``."""
        return f"{self.budget} {self.generator}".strip()

    def __str__(self) -> str:
        inside = ", ".join(part for part in (self.source, str(self.variant)) if part)
        return f"{self.name} ({inside})" if inside else self.name

    @classmethod
    def parse(cls, text: str) -> Arm:
        """The arm with this full name.

        Raises:
            ValueError: there is no such arm, or no such variant.
        """
        name, _, inside = text.removesuffix(")").partition(" (")
        source, _, variant = inside.partition(", ")
        budget, _, generator = source.partition(" ")
        if name not in ARMS:
            raise InvalidInputError(f"there is no arm {name!r}; expected one of {', '.join(ARMS)}")
        return cls(name=name, budget=budget, generator=generator, variant=Variant.parse(variant))


def baseline(*, unbalanced: bool) -> Arm:
    """What the primary arm is compared with.

    Where classes are unbalanced, generated digits balance them, and so must the baseline.
    """
    return Arm(name="classical+oversampled" if unbalanced else "classical")


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
