"""How good are generated digits? One feature pass over each set of images, all figures, each beside real digits' own.

A generator that was trained on an image that it would be measured against is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Final

import numpy as np

from digitforge_client.contract import image_hashes
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features.extract import FeatureNetwork, Measured
from digitforge_evaluation.images.proportions import FLOOR_REPEATS, class_counts, random_subsets
from digitforge_evaluation.images.sources import Drawn, Source
from digitforge_evaluation.metrics.bins import make_bins, partition_seeds
from digitforge_evaluation.metrics.copying import nearness
from digitforge_evaluation.metrics.extrapolation import fewest_images
from digitforge_evaluation.metrics.intervals import GROUPS, Groups, Interval, groups_of
from digitforge_evaluation.quality.figures import (
    CLASS_DISTANCE,
    KERNEL_SUBSET_SIZE,
    KINDS,
    NEIGHBORS,
    Estimates,
    figure_name,
    figures_against_real_images,
    figures_against_training_images,
    figures_without_real_images,
    missing_modes,
)
from digitforge_evaluation.quality.neighbors import Neighborhood, find_neighbors
from digitforge_evaluation.quality.reference import (
    Floor,
    Reference,
    copying_floors,
    floor_of,
    known_images,
    make_reference,
    real_floors,
    shipped_reference,
)
from digitforge_evaluation.quality.train_on_generated import both_ways
from digitforge_training.data import Dataset
from digitforge_training.gan.clusters import find_bins

#: The classes that a network of digits can judge.
DIGITS = tuple(str(digit) for digit in range(10))
_ACCURACIES: Final = ("train_on_generated", "train_on_real")
#: Most bins of a class, and fewest training images for each.
_BINS: Final = 32
_IMAGES_PER_BIN: Final = 20


@dataclass(frozen=True, kw_only=True)
class RealData:
    """A data set's two halves: what generators learn from, and what they are measured against."""

    train: Dataset
    test: Dataset


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of the generated images."""

    key: str  # of `figures.KINDS`
    name: str  # in full, with features and sample size
    value: float
    n: int  # generated images
    interval: Interval | None  # 95 %, over the generated images alone; None where there are too few for one
    real: Floor | None  # what real digits score in their place; None where that is not known


@dataclass(frozen=True, kw_only=True)
class ClassFigure:
    """The Fréchet distance of the generated images of one class from the real ones of that class."""

    label: int
    title: str  # the class's name
    figure: Figure


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `assess` found."""

    source: str
    generator_id: str | None  # None for images of unknown origin
    features: str
    reference: str  # the real images it was measured against
    reference_n: int
    n: int  # generated images measured
    seed: int
    expansion: float | None  # of the latents; None: none
    k: int
    figures: tuple[Figure, ...]
    classes: tuple[ClassFigure, ...]  # those of which there are images enough
    left_out: dict[str, str]  # key of `figures.KINDS` => why
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def assess(
    source: Source,
    *,
    network: FeatureNetwork,
    n: int = 10_000,
    seed: int = 0,
    expansion: float | None = None,
    k: int = NEIGHBORS,
    real: RealData | None = None,
    progress: Callable[[str], None] = lambda stage: None,  # noqa: ARG005
    show: Callable[[Neighborhood], None] | None = None,
    train_classifiers: bool = False,
) -> Report:
    """Draw images and measure them.

    Args:
        source: where they come from.
        network: gives the features.
        n: images to draw, in the class proportions of the held-out images.
        seed: of the drawing, 0 … 2²¹ − 1.
        expansion: what the generator's latents are multiplied by; None: nothing.
        k: nearest neighbors that the manifold's balls reach to.
        real: real images; without them the shipped statistics of MNIST's test images serve, and the figures that need
            the images themselves are left out.
        progress: called with the name of each stage as it begins.
        show: is given the generated images and the training images nearest to each; needs *real*.
        train_classifiers: whether to measure accuracy both ways as well, which takes ten classifiers; needs *real*.

    Raises:
        InvalidInputError: the generator has seen a held-out image, makes other things than the real images show, or
            too few images were asked for.
    """
    if n < 1:
        raise InvalidInputError(f"n is {n}; expected at least 1")
    progress("measuring real images" if real else "reading reference statistics")
    test = network.measure(real.test.images) if real else None
    reference = (
        make_reference(test=real.test, measured=test, features=network.name) if real and test else shipped_reference()
    )
    _refuse_unsuitable(source, network, reference, real)
    progress("drawing images")
    drawn = source.draw(n, proportions=reference.class_counts, seed=seed, expansion=expansion)
    _refuse_copies(drawn, reference)
    progress("measuring images")
    generated = network.measure(drawn.images)
    if not _shows_digits(source, real):
        generated = Measured(features=generated.features, probabilities=None)
    progress("comparing")
    groups = groups_of(drawn.labels, len(drawn.images), seed=seed)
    found = figures_without_real_images(
        generated, drawn.labels, reference.moments, of_classes=reference.of_classes, groups=groups
    )
    if real and test:
        more, floors = _against_real(
            source, network, reference, real, test=test, generated=generated, k=k, groups=groups, drawn=drawn, show=show
        )
        found |= more
        if train_classifiers and drawn.labels is not None:
            progress("training classifiers")
            both, of_real = both_ways(
                train=real.train, test=real.test, generated=drawn, proportions=reference.class_counts, seed=seed
            )
            found |= both
            floors |= of_real
    else:
        floors = dict(reference.floors.get(len(drawn.images), {}))

    def figure(key: str, n: int) -> Figure:
        return Figure(
            key=key,
            name=figure_name(key, features=network.name, n=n, k=k),
            value=found[key].value,
            n=n,
            interval=found[key].interval,
            real=floors.get(key),
        )

    names = real.test.class_names if real else DIGITS
    return Report(
        source=source.name,
        generator_id=source.card["generator_id"] if source.card else None,
        features=network.name,
        reference=reference.name,
        reference_n=reference.moments.n,
        n=len(drawn.images),
        seed=seed,
        expansion=expansion,
        k=k,
        figures=tuple(figure(key, len(drawn.images)) for key in KINDS if key in found),
        classes=tuple(
            ClassFigure(label=label, title=name, figure=figure(key, int((drawn.labels == label).sum())))
            for label, name in enumerate(names)
            if drawn.labels is not None and (key := f"{CLASS_DISTANCE}{label}") in found
        ),
        left_out={key: _why_left_out(key, generated, drawn, real, found) for key in KINDS if key not in found},
        notes=tuple(_notes(source, network, reference, real, drawn=drawn, n=n, floors=floors)),
    )


def _notes(
    source: Source,
    network: FeatureNetwork,
    reference: Reference,
    real: RealData | None,
    *,
    drawn: Drawn,
    n: int,
    floors: Mapping[str, Floor],
) -> Iterator[str]:
    """What a reader must know besides the figures."""
    if source.card is None:
        yield f"{source.name} does not say what its generator was trained on"
        if real:
            yield f"all {len(real.train)} images of {real.train.name} train were taken for training images"
    if network.caution:
        yield f"features {network.name}: {network.caution}"
    if len(drawn.images) < n:
        yield f"{len(drawn.images)} of {n} images were to be had in the class proportions of {reference.name}"
    if drawn.labels is None:
        yield "the images have no labels, so their class proportions are their own"
    if "distance" not in floors:
        sizes = ", ".join(map(str, reference.floors)) or "none: too few training images"
        yield f"no floor is known for n = {len(drawn.images)}; known: {sizes}"


def _refuse_unsuitable(source: Source, network: FeatureNetwork, reference: Reference, real: RealData | None) -> None:
    """A generator that has seen a held-out image, makes other classes, or has no statistics in these features."""
    if reference.features != network.name:
        raise InvalidInputError(
            f"the shipped statistics are in the features {reference.features}, not {network.name}; give real images "
            "(--data)"
        )
    seen = source.seen(reference.hashes)
    count = 0 if seen is None else int(seen.sum())
    trained_on = (source.card or {}).get("training_data", {}).get("sha256")
    if count or trained_on == reference.sha256:
        raise InvalidInputError(
            f"{source.name} was trained on {count or 'all'} of the {len(reference.hashes)} held-out images "
            f"({reference.name}); measure it against images it has not seen (--data)"
        )
    made = tuple((source.card or {}).get("class_names", ()))
    shown = real.test.class_names if real else DIGITS
    if made and made != shown:
        raise InvalidInputError(
            f"{source.name} makes the classes {', '.join(made)}, but {reference.name} shows {', '.join(shown)}; "
            "measure it against data of its own kind (--data)"
        )


def _refuse_copies(drawn: Drawn, reference: Reference) -> None:
    copies = int(np.isin(image_hashes(drawn.images), reference.hashes).sum())
    if copies:
        raise InvalidInputError(
            f"{copies} of the {len(drawn.images)} images are themselves among the held-out images ({reference.name}); "
            "measure them against images that they do not hold (--data)"
        )


def _shows_digits(source: Source, real: RealData | None) -> bool:
    """Whether the classes are the ten digits: a network that knows digits says nothing of other classes."""
    made = tuple((source.card or {}).get("class_names", ())) or (real.test.class_names if real else DIGITS)
    return made == DIGITS


def _against_real(
    source: Source,
    network: FeatureNetwork,
    reference: Reference,
    real: RealData,
    *,
    test: Measured,
    generated: Measured,
    k: int,
    groups: Groups,
    drawn: Drawn,
    show: Callable[[Neighborhood], None] | None,
) -> tuple[Estimates, dict[str, Floor]]:
    """The figures that need real images, and the floors of all."""
    found = figures_against_real_images(real=test, generated=generated, k=k, groups=groups)
    of_modes, floors_of_modes = _missing_modes(real, drawn, groups)
    found |= of_modes
    of_training = network.measure(real.train.images)
    floors = _floors(reference, real, test, of_training, n=len(generated.features), k=k, network=network)
    of_copying: dict[str, Floor] = {key: floors.pop(key) for key in ("authenticity", "copying") if key in floors}
    seen = source.seen(image_hashes(real.train.images))
    if seen is None:
        seen = np.ones(len(real.train), bool)
    if seen.sum() > 1:
        known = known_images(training=of_training.features[seen], test=test)
        found |= figures_against_training_images(
            training=known.training,
            generated=generated,
            held_out=known.held_out,
            nearness=nearness(known.cells, generated.features),
            groups=groups,
        )
        if not of_copying or not seen.all():
            of_copying = copying_floors(test=test, known=known)
        floors |= of_copying
        if show:
            show(
                find_neighbors(
                    generated=drawn.images,
                    labels=drawn.labels,
                    training=real.train.images[seen],
                    training_labels=real.train.labels[seen],
                    features=(generated.features, known.training, test.features),
                )
            )
    return found, floors | floors_of_modes


def _missing_modes(real: RealData, drawn: Drawn, groups: Groups) -> tuple[Estimates, dict[str, Floor]]:
    """The share of training images in modes that are missing from the images drawn, and from as many held-out ones."""
    train, test = real.train, real.test
    each = min(_BINS, int(np.bincount(train.labels, minlength=len(train.class_names)).min()) // _IMAGES_PER_BIN)
    if drawn.labels is None or each < 2:
        return {}, {}
    partitions = [
        make_bins(pixels=train.images, labels=train.labels, clusters=clusters)
        for clusters in find_bins(train, each, seeds=partition_seeds())
    ]
    n = min(len(drawn.images), len(test))
    subsets = random_subsets(
        test.labels, class_counts(np.bincount(test.labels), n), repeats=FLOOR_REPEATS if n < len(test) else 1
    )
    floor = [missing_modes(partitions, pixels=test.images[rows], labels=test.labels[rows]).value for rows in subsets]
    found = missing_modes(partitions, pixels=drawn.images, labels=drawn.labels, groups=groups)
    return {"missing": found}, {"missing": floor_of(floor, n=n)}


def _floors(
    reference: Reference,
    real: RealData,
    test: Measured,
    train: Measured,
    *,
    n: int,
    k: int,
    network: FeatureNetwork,
) -> dict[str, Floor]:
    """The shipped floors where they hold for these images, n and k; else measured now."""
    if k == NEIGHBORS and network.name == shipped_reference().features:
        shipped = shipped_reference()
        if reference.sha256 == shipped.sha256 and real.train.name == "mnist" and n in shipped.floors:
            return dict(shipped.floors[n])
    return real_floors(reference, test=test, train=train, train_labels=real.train.labels, n=n, k=k)


def _why_left_out(key: str, generated: Measured, drawn: Drawn, real: RealData | None, found: Estimates) -> str:
    reasons = (
        (
            key in {"agreement", "score"} and generated.probabilities is None,
            "the feature network cannot tell these classes",
        ),
        (key in {"agreement", "missing", *_ACCURACIES} and drawn.labels is None, "the images have no labels"),
        (
            key == "extrapolated",  # one group of a jackknife is left out at a time
            f"needs {ceil(fewest_images(generated.features.shape[1]) / (1 - 1 / GROUPS))} generated images",
        ),
        (key in _ACCURACIES, "takes ten classifiers: give --accuracy and --data"),
        (real is None, "needs real images: give --data"),
        (key == "missing", f"needs {2 * _IMAGES_PER_BIN} training images of each class"),
        (key == "kernel", f"needs {KERNEL_SUBSET_SIZE} generated and {KERNEL_SUBSET_SIZE} held-out images"),
        ("authenticity" in found, "too few generated or held-out images"),
    )
    seen_none = f"the generator saw none of the training images of {real.train.name}" if real else ""
    return next((reason for holds, reason in reasons if holds), seen_none)
