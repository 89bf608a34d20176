"""The arms of an experiment. An arm decides which images a classifier is trained on, and nothing else.

An arm makes training images from *n* real images and, in some arms, the digits of a generator (see ``draws.py``). The
classifier and its training are the same in all arms.

The full name of an arm with a generator contains the generator's *budget*: ``gan (strict)``. The budget says what the
generator has seen, and so what a gain means. Full names also name the generator and the variant, if there are several:
``gan (oracle forge-3fa1b2, 5×)``. Result files store full names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from digitforge_client.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class Design:
    """One way to make training images."""

    description: str
    real: bool = True  #: whether it uses the real images
    generator: bool = False  #: whether it uses generated images
    #: whether it uses other real images, whose labels come from a classifier trained on the subset
    pseudo_labels: bool = False
    pretrained: bool = False  #: whether all generated images come before the real images
    balanced: bool = False  #: whether it draws all classes equally often, whatever their size
    classical: bool = False  #: whether it applies classical augmentation to every image
    cheap: str = ""  #: cheap augmentation of half of the images: ``noise`` or ``smote``; empty for none

    @property
    def adds_images(self) -> bool:
        """Whether it uses images beside those of the subset."""
        return self.generator or self.pseudo_labels


ARMS: Final[dict[str, Design]] = {
    "real": Design(description="only the real images"),
    "oversampled": Design(description="the real images, all classes drawn equally often", balanced=True),
    "noise": Design(description="the real images, half of them with Gaussian noise", cheap="noise"),
    "smote": Design(description="the real images, half of them mixed with a neighbor of the same class", cheap="smote"),
    "classical": Design(
        description="the real images, randomly shifted, rotated, scaled, sheared and bent, never mirrored",
        classical=True,
    ),
    "classical+oversampled": Design(
        description="the same as classical, all classes drawn equally often", balanced=True, classical=True
    ),
    "pseudo-labeled": Design(
        description="the real images and unlabeled real images, which a classifier trained on the real images labels; "
        "all randomly shifted, rotated, scaled, sheared and bent",
        pseudo_labels=True,
        classical=True,
    ),
    "gan": Design(description="real and generated images", generator=True),
    "classical+gan": Design(
        description="real and generated images, all randomly shifted, rotated, scaled, sheared and bent",
        generator=True,
        classical=True,
    ),
    "classical+pretrained": Design(
        description="the same images as classical+gan, but all generated images before all real images",
        generator=True,
        pretrained=True,
        classical=True,
    ),
    "synthetic": Design(description="only generated images", real=False, generator=True),
}

#: The arm that gets verdicts. It is compared with `baseline`. Both are fixed before any result is seen.
PRIMARY: Final = "classical+gan"


#: Budget => the arm that uses the same information in the usual way. Arms of the budget are also compared with it. For
#: other data that is pretraining, here on the digits of the transfer generator.
FAIR_BASELINES: Final = {
    "semi": "pseudo-labeled",
    "transfer": "classical+pretrained",
    "adapted": "classical+pretrained",
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to use generated images. It sets at most one field, or those of GaFi. Verdicts use ``PLAIN``."""

    ratio: float | None = None  #: generated images per real image; None for the plan's ratio
    share: float | None = None  #: share of generated images among the training rows; None for the plan's share
    expansion: float | None = None  #: factor for the latents; None leaves them unchanged
    fresh: bool = False  #: use each digit only once
    filtered: bool = False  #: use only digits whose label a classifier trained on the subset confirms
    confidence: float | None = None  #: least confidence of pseudo-labels; None for the plan's

    def __post_init__(self) -> None:
        for name in ("ratio", "share", "expansion", "confidence"):
            if (value := getattr(self, name)) is not None:
                # Round as the full name does, so that a variant read from a file equals the original.
                object.__setattr__(self, name, float(f"{value:g}"))

    @property
    def of_pseudo_labels(self) -> bool:
        """Whether it also applies to real images with pseudo-labels."""
        return self.expansion is None and not self.fresh and not self.filtered

    def __str__(self) -> str:
        numbers = {
            "{:g}×": self.ratio,
            "share {:g}": self.share,
            "expansion {:g}": self.expansion,
            "confidence {:g}": self.confidence,
        }
        parts = [text.format(value) for text, value in numbers.items() if value is not None]
        return ", ".join([*parts, *(["fresh"] if self.fresh else []), *(["filtered"] if self.filtered else [])])

    @classmethod
    def parse(cls, text: str) -> Variant:
        """The inverse of ``str``.

        Raises:
            ValueError: *text* is not the text of a variant.
        """
        fields: dict[str, Any] = {}
        for part in text.split(", ") if text else ():
            name, _, value = part.rpartition(" ")
            if part in ("fresh", "filtered"):
                fields[part] = True
            elif part.endswith("×"):
                fields["ratio"] = float(part.removesuffix("×"))
            elif name in ("share", "expansion", "confidence"):
                fields[name] = float(value)
            else:
                raise ValueError(f"unknown variant {part!r}")
        return cls(**fields)


PLAIN: Final = Variant()


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An arm with its generator and variant.

    Its full name, ``str(arm)``, is ``NAME (BUDGET GENERATOR, VARIANT)`` without the empty parts.
    """

    name: str  #: a key of ``ARMS``
    budget: str = ""  #: what the generator has seen; empty without a generator
    generator: str = ""  #: name of the generator, if there are several
    variant: Variant = PLAIN

    @property
    def design(self) -> Design:
        """How the arm makes its training images."""
        return ARMS[self.name]

    @property
    def source(self) -> str:
        """Budget and name of the generator: ``oracle``, or ``oracle forge-3fa1b2``."""
        return f"{self.budget} {self.generator}".strip()

    def __str__(self) -> str:
        inside = ", ".join(part for part in (self.source, str(self.variant)) if part)
        return f"{self.name} ({inside})" if inside else self.name

    @classmethod
    def parse(cls, text: str) -> Arm:
        """The arm with the full name *text*, the inverse of ``str``.

        Raises:
            ValueError: there is no such arm or no such variant.
        """
        name, _, inside = text.removesuffix(")").partition(" (")
        if name not in ARMS:
            raise InvalidInputError(f"unknown arm {name!r}; expected one of {', '.join(ARMS)}")
        source, _, variant = inside.partition(", ") if ARMS[name].generator else ("", "", inside)
        budget, _, generator = source.partition(" ")
        return cls(name=name, budget=budget, generator=generator, variant=Variant.parse(variant))


def baseline(*, unbalanced: bool) -> Arm:
    """The arm that the primary arm is compared with.

    Generated images balance unbalanced classes. A fair baseline must balance them too.
    """
    return Arm(name="classical+oversampled" if unbalanced else "classical")


def fair_baseline(arm: Arm) -> Arm | None:
    """The arm that uses the same information as *arm* in the usual way. None if there is none, or for itself."""
    name = FAIR_BASELINES.get(arm.budget)
    if name is None or arm.design.pretrained:
        return None
    if ARMS[name].generator:
        return Arm(name=name, budget="transfer", generator=arm.generator)
    fair = Arm(name=name)
    same_variant = fair.design.pseudo_labels and arm.variant.of_pseudo_labels
    return replace(fair, variant=arm.variant) if same_variant else fair


def check_arms(names: Sequence[str]) -> tuple[str, ...]:
    """Return *names* without duplicates, in the order of ``ARMS``.

    Raises:
        InvalidInputError: *names* is empty, or has an unknown arm.
    """
    unknown = [name for name in names if name not in ARMS]
    if unknown or not names:
        problem = f"unknown arm {unknown[0]!r}" if unknown else "no arm given"
        raise InvalidInputError(f"{problem}; expected one or more of {', '.join(ARMS)}")
    return tuple(name for name in ARMS if name in names)
