"""Notes on a measurement: what a reader of the metrics must know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from digitforge_evaluation.features.extract import FeatureNetwork
from digitforge_evaluation.images.sources import Source
from digitforge_evaluation.quality.comparison import Comparison, images_to_draw
from digitforge_evaluation.quality.metric import Estimate
from digitforge_evaluation.quality.orientation import look_transposed
from digitforge_evaluation.quality.reference import Floors

_HELD_OUT_PER_NEIGHBOR: Final = 10  # images: with fewer, the balls of precision and recall cover everything
_FEW_HELD_OUT: Final = 100  # images: with fewer, one image is worth more than a point


def notes_on(
    source: Source,
    network: FeatureNetwork,
    comparison: Comparison,
    *,
    n: int,
    found: Mapping[str, Estimate],
    floors: Floors,
) -> Iterator[str]:
    """What a reader of the metrics must know."""
    reference, drawn = comparison.reference, len(comparison.generated)
    if source.card is None:
        yield f"{source.name} does not say what its generator was trained on"
        if comparison.real:
            train = comparison.training.data
            yield f"all {len(train)} images of {train.name} train are treated as training images of the generator"
    if comparison.real and look_transposed(
        real=comparison.test.images,
        real_labels=comparison.real.test_labels,
        generated=comparison.generated.images,
        generated_labels=comparison.generated.labels,
    ):
        yield (
            "the generated and the real images look transposed to each other: rows and columns are swapped. If the "
            "real images lie on their side, repeat this with --transpose. If --transpose did that, use --no-transpose"
        )
    if network.caution:
        yield f"features {network.name}: {network.caution}"
    if drawn < n:
        yield f"only {drawn} of {n} images could be drawn in the class proportions of {reference.name}"
    if comparison.real:
        yield from _notes_on_size(len(comparison.test), comparison.k)
    if comparison.generated.labels is None:
        yield f"the images have no labels, so their class proportions may differ from those of {reference.name}"
    if "distance" not in found:
        return
    if "distance" not in floors.training:
        if comparison.real is None:
            yield f"no floor is known for n = {drawn}; floors exist for n = {', '.join(map(str, reference.floors))}"
        else:
            yield (
                f"no training floor is known for n = {drawn}, because there are too few training images; measure "
                f"{images_to_draw(comparison.training.data)} images (--n) to have one"
            )
    unseen = floors.unseen.get("distance")
    if unseen and (unseen.n, unseen.held_out) != (drawn, len(reference.hashes)):
        yield (
            f"the unseen floor of distances compares {unseen.n} held-out images with the other {unseen.held_out}; the "
            f"generated images are {drawn} against {len(reference.hashes)}. Fewer images make a Fréchet distance larger"
        )


def _notes_on_size(held_out: int, k: int) -> Iterator[str]:
    """What few held-out images mean for the metrics."""
    if held_out < _FEW_HELD_OUT:
        yield (
            f"there are only {held_out} held-out images, so every metric is less certain than its interval says, which "
            "covers the generated images alone"
        )
    if held_out < _HELD_OUT_PER_NEIGHBOR * k:
        yield (
            f"{k} neighbors are many among {held_out} held-out images, so precision, recall, density and coverage "
            "hardly tell good images from bad ones; --k 1 helps a little"
        )
