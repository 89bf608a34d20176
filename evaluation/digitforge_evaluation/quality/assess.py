"""Computes all metrics of generated images, and of real images for comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features.extract import About, FeatureNetwork, Measured
from digitforge_evaluation.images.seen import seen_images
from digitforge_evaluation.images.sources import Drawn, Source
from digitforge_evaluation.metrics.arrays import checked_points
from digitforge_evaluation.metrics.intervals import Interval, groups_of
from digitforge_evaluation.metrics.label_agreement import agreeing
from digitforge_evaluation.quality.comparison import (
    NEIGHBORS,
    Comparison,
    Real,
    RealData,
    Sample,
    Training,
    images_to_draw,
)
from digitforge_evaluation.quality.floors import measure_floors
from digitforge_evaluation.quality.metric import Estimate
from digitforge_evaluation.quality.neighbors import Neighborhood, find_neighbors
from digitforge_evaluation.quality.notes import notes_on
from digitforge_evaluation.quality.reference import (
    CLASS_AGREEMENT,
    CLASS_DISTANCE,
    Floor,
    Floors,
    floor_of,
    make_reference,
    shipped_reference,
)
from digitforge_evaluation.quality.registry import METRICS
from digitforge_evaluation.quality.suitability import (
    DIGITS,
    matched,
    refuse_copies,
    refuse_other_shape,
    refuse_unsuitable,
)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One metric of the generated images."""

    key: str  #: key in ``METRICS``
    name: str  #: full name, with features and sample size
    value: float
    n: int  #: number of generated images
    interval: Interval | None  #: 95 %, over the generated images alone; None if it cannot be computed
    #: The same metric of random subsets of the real training images; None if unknown or not defined.
    training_floor: Floor | None
    #: The same metric of real images that no generator has seen: held-out images; None if unknown or not defined.
    unseen_floor: Floor | None


@dataclass(frozen=True, kw_only=True)
class ClassFigure:
    """A metric of the generated images of one class."""

    label: int
    title: str  #: name of the class
    figure: Measurement  #: the metric


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a measurement. ``digitforge evaluate --json`` prints the same field names."""

    source: str  #: where the generated images come from
    generator_id: str | None  #: None for images of unknown origin
    features: str  #: name of the features
    about_features: About  #: what the features are, and what they can and cannot see
    #: Share of the held-out images that the feature network assigns to their class; None if it does not classify them.
    features_accuracy: float | None
    reference: str  #: name of the held-out real images
    reference_n: int  #: number of held-out real images
    n: int  #: number of generated images
    seed: int  #: for drawing the images
    expansion: float | None  #: factor on the generator's latents; None leaves them unchanged
    k: int  #: number of nearest neighbors for precision, recall, density and coverage
    figures: tuple[Measurement, ...]  #: the metrics
    classes: tuple[ClassFigure, ...]  #: the distances of the classes with enough images
    agreements: tuple[ClassFigure, ...]  #: the label agreement of each class, if the feature network classifies
    left_out: dict[str, str]  #: key in ``METRICS`` => why the metric was left out
    notes: tuple[str, ...]  #: warnings for the reader of the metrics

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """The images behind a report, for a page."""

    generated: Drawn
    #: The training images nearest to each; None if it is unknown which training images the generator has seen.
    neighborhood: Neighborhood | None


def assess(
    source: Source,
    *,
    network: FeatureNetwork,
    n: int | None = None,
    seed: int = 0,
    expansion: float | None = None,
    k: int = NEIGHBORS,
    real: RealData | None = None,
    progress: Callable[[str], None] = lambda stage: None,  # noqa: ARG005
    show: Callable[[Pictures], None] | None = None,
    train_classifiers: bool = False,
) -> Report:
    """Draw images and measure them with all metrics.

    The feature network runs once over each set of images.

    Args:
        source: where the images come from.
        network: computes the features.
        n: number of images to draw, in the class proportions of the held-out images; None for `images_to_draw`.
        seed: for drawing the images, 0 … 2²¹ − 1.
        expansion: factor on the generator's latents; None leaves them unchanged.
        k: number of nearest neighbors for precision, recall, density and coverage.
        real: real images. None: use the shipped statistics of MNIST's test images, and leave out the metrics that
            need the images themselves.
        progress: called with the name of each stage when the stage begins.
        show: called with the generated images and the training images nearest to each.
        train_classifiers: whether to measure classification accuracy too, which trains ten classifiers; needs *real*.

    Raises:
        InvalidInputError: *n* is below 1, the generator has seen a held-out image, its classes or the shape of its
            images differ from those of the real images, or all its images are the same.
    """
    n = images_to_draw(real.train if real else None) if n is None else n
    if n < 1:
        raise InvalidInputError(f"n is {n}; expected at least 1")
    source = matched(source, real)
    refuse_unsuitable(source, real)
    comparison = _compare(
        source, network, n=n, seed=seed, expansion=expansion, k=k, real=real, progress=progress, train=train_classifiers
    )
    found, left_out = _measure(comparison, progress)
    progress("measuring real images in place of generated ones")
    floors = _floors(comparison, found)
    if show:
        near = _neighborhood(comparison) if "authenticity" in found else None
        show(Pictures(generated=comparison.generated, neighborhood=near))
    reference, drawn = comparison.reference, comparison.generated

    def measurement(key: str, n: int, metric: str) -> Measurement:
        return Measurement(
            key=key,
            name=METRICS[metric].full_name(features=network.name, n=n, k=k),
            value=found[key].value,
            n=n,
            interval=found[key].interval,
            training_floor=floors.training.get(key),
            unseen_floor=floors.unseen.get(key),
        )

    def of_classes(prefix: str, metric: str) -> tuple[ClassFigure, ...]:
        return tuple(
            ClassFigure(
                label=label,
                title=name,
                figure=measurement(key, int(np.count_nonzero(drawn.labels == label)), metric),
            )
            for label, name in enumerate(real.test.class_names if real else DIGITS)
            if (key := f"{prefix}{label}") in found
        )

    return Report(
        source=source.name,
        generator_id=source.card["generator_id"] if source.card else None,
        features=network.name,
        about_features=network.about,
        features_accuracy=_accuracy(comparison),
        reference=reference.name,
        reference_n=len(reference.hashes),
        n=len(drawn),
        seed=seed,
        expansion=expansion,
        k=k,
        figures=tuple(measurement(key, len(drawn), key) for key in METRICS if key in found),
        classes=of_classes(CLASS_DISTANCE, "distance"),
        agreements=of_classes(CLASS_AGREEMENT, "agreement"),
        left_out=left_out,
        notes=tuple(notes_on(source, network, comparison, n=n, found=found, floors=floors)),
    )


def _compare(
    source: Source,
    network: FeatureNetwork,
    *,
    n: int,
    seed: int,
    expansion: float | None,
    k: int,
    real: RealData | None,
    progress: Callable[[str], None],
    train: bool,
) -> Comparison:
    """Draw the generated images and compute the features of all images."""
    progress("measuring real images" if real else "reading reference statistics")
    classifies = network.class_names == (real.test.class_names if real else DIGITS)
    test = _sample(Drawn(images=real.test.images, labels=real.test.labels), network, classifies) if real else None
    if real and test:
        reference = make_reference(test=real.test, measured=test.measured, features=network.name)
    else:
        reference = shipped_reference()
        if reference.features != network.name:
            raise InvalidInputError(
                f"the shipped statistics are for the features {reference.features}, not {network.name}; give real "
                "images (--data)"
            )
    progress("drawing images")
    drawn = source.draw(n, proportions=reference.class_counts, seed=seed, expansion=expansion)
    refuse_other_shape(source, drawn.images.shape[1:], real)
    refuse_copies(drawn, reference)
    progress("measuring images")
    return Comparison(
        generated=_generated(drawn, network, classifies),
        reference=reference,
        real=Real(test=test, training=_training(source, network, real, classifies)) if real and test else None,
        k=k,
        groups=groups_of(drawn.labels, len(drawn.images), seed=seed),
        classifier_seed=seed if real and train else None,
    )


def _sample(images: Drawn, network: FeatureNetwork, classifies: bool) -> Sample:
    """Images with their features, and with class probabilities if the network *classifies* them."""
    measured = network.measure(images.images)
    if not classifies:
        measured = Measured(features=measured.features, probabilities=None)
    return Sample(images=images.images, labels=images.labels, measured=measured)


def _generated(drawn: Drawn, network: FeatureNetwork, classifies: bool) -> Sample:
    sample = _sample(drawn, network, classifies)
    checked_points("generated", sample.features)
    return sample


def _training(source: Source, network: FeatureNetwork, real: RealData, classifies: bool) -> Training:
    """The training images, and which of them the generator has seen. If the source does not know, assume all."""
    seen = seen_images(source, real.train)
    return Training(
        data=real.train,
        sample=_sample(Drawn(images=real.train.images, labels=real.train.labels), network, classifies),
        seen=np.ones(len(real.train), bool) if seen is None else seen,
        held_out=len(real.test),
    )


def _accuracy(comparison: Comparison) -> float | None:
    """The share of held-out images that the feature network assigns to their class; None if it does not classify."""
    if comparison.real is None or comparison.test.measured.probabilities is None:
        return None
    return float(agreeing(comparison.test.measured.probabilities, comparison.real.test_labels).mean())


def _measure(comparison: Comparison, progress: Callable[[str], None]) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Compute every metric and the distance of every class. Also return the reasons for metrics that are left out."""
    found: dict[str, Estimate] = {}
    left_out: dict[str, str] = {}
    stage = ""
    for key, metric in METRICS.items():
        if metric.stage != stage:
            progress(stage := metric.stage)
        try:
            found[key] = metric.measure(comparison)
        except InvalidInputError as error:
            left_out[key] = str(error)
    for label in comparison.reference.of_classes if comparison.generated.labels is not None else ():
        with suppress(InvalidInputError):
            estimate = METRICS["distance"].measure(comparison.of_class(label))
            if estimate.interval:  # no interval: the class has too few images for a useful distance
                found[f"{CLASS_DISTANCE}{label}"] = estimate
    for label in np.unique(comparison.labels) if "agreement" in found else ():
        with suppress(InvalidInputError):  # a single image of this class
            found[f"{CLASS_AGREEMENT}{label}"] = METRICS["agreement"].measure(comparison.of_class(int(label)))
    return found, left_out


def _floors(comparison: Comparison, found: Mapping[str, Estimate]) -> Floors:
    """The metrics of real images. Uses the shipped floors if they fit these images, n and k. Measures all others."""
    n = len(comparison.generated)
    if comparison.real is None:
        return comparison.reference.floors.get(n, Floors())
    of_classes = Floors(
        training=_agreements(found, comparison.training.sample, len(comparison.test)),
        unseen=_agreements(found, comparison.test, len(comparison.test)),
    )
    shipped, training = shipped_reference(), comparison.training
    known = Floors()
    if (comparison.k, comparison.reference.features) == (NEIGHBORS, shipped.features) and (
        comparison.reference.sha256 == shipped.sha256 and training.data.name == "mnist"
    ):
        known = shipped.floors.get(n, known)
    on_seen = set() if training.seen.all() else {"authenticity", "copying"}  # these need the seen training images
    unknown = found.keys() - (known.training.keys() | known.unseen.keys()) | on_seen & found.keys()
    measured = measure_floors(comparison, {key: METRICS[key] for key in METRICS if key in unknown})
    return Floors(
        training=known.training | measured.training | of_classes.training,
        unseen=known.unseen | measured.unseen | of_classes.unseen,
    )


def _agreements(found: Mapping[str, Estimate], real: Sample, held_out: int) -> dict[str, Floor]:
    """The label agreement of all real images of each class."""
    floors: dict[str, Floor] = {}
    if real.measured.probabilities is None or real.labels is None:
        return floors
    right = agreeing(real.measured.probabilities, real.labels)
    for label in np.unique(real.labels):
        of_class = right[real.labels == label]
        if (key := f"{CLASS_AGREEMENT}{label}") in found:
            floors[key] = floor_of([float(of_class.mean())], n=len(of_class), held_out=held_out)
    return floors


def _neighborhood(comparison: Comparison) -> Neighborhood:
    """Find the training images nearest to each generated one."""
    generated, training = comparison.generated, comparison.training
    return find_neighbors(
        generated=generated.images,
        labels=generated.labels,
        training=training.data.images[training.seen],
        training_labels=training.data.labels[training.seen],
        features=(generated.features, training.seen_features, comparison.test.features),
    )
