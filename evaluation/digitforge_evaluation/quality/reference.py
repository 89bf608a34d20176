"""Reference statistics: what real held-out digits look like in feature space, and how near other real digits come.

They are shipped for MNIST's test images (`shipped_reference`), so that a distance needs no real image.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from digitforge_client.common.archives import open_archive
from digitforge_client.common.files import replacing
from digitforge_client.contract import image_hashes
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features.extract import DATA, Measured
from digitforge_evaluation.images.proportions import FLOOR_REPEATS, class_counts, random_subsets
from digitforge_evaluation.metrics.copying import Cells, Nearness, copying_score, divide, nearness
from digitforge_evaluation.metrics.frechet import Gaussian, gaussian
from digitforge_evaluation.metrics.memorization import too_near
from digitforge_evaluation.quality.figures import (
    CLASS_DISTANCE,
    NEIGHBORS,
    figures_against_real_images,
    figures_without_real_images,
)
from digitforge_training.data import Dataset

SHIPPED = DATA / "mnist-test.npz"

#: Sample sizes for which a floor is shipped.
FLOOR_SIZES = (1_000, 2_000, 5_000, 10_000)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What real images score where generated ones are measured: the best that can be hoped for, at this sample size."""

    mean: float
    standard_deviation: float | None  # over the repeats; None if there was one
    n: int  # real images in each repeat
    repeats: int


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Held-out real images, as distances need them."""

    name: str  # of the data set and split, for people
    features: str  # name of the feature network
    moments: Gaussian
    of_classes: dict[int, Gaussian]  # the moments of each class that has images enough
    class_counts: tuple[int, ...]  # images of each class; generated digits are drawn in these proportions
    hashes: npt.NDArray[np.int64]  # (n,) identities of the images, to ask a generator whether it has seen them
    sha256: str  # of images and labels, as `Dataset.sha256` has it
    floors: dict[int, dict[str, Floor]]  # by sample size, then by the figure's key in `figures.KINDS`


def make_reference(*, test: Dataset, measured: Measured, features: str) -> Reference:
    """Reference statistics of a data set's test images, without floors.

    Args:
        test: the held-out images.
        measured: their features.
        features: name of the feature network.

    Raises:
        InvalidInputError: no more test images than features, or features that cannot be measured.
    """
    counts = np.bincount(test.labels, minlength=len(test.class_names))
    enough = np.flatnonzero(counts > max(1, measured.features.shape[1]))
    return Reference(
        name=f"{test.name} {test.split}",
        features=features,
        moments=gaussian(measured.features, name="test"),
        of_classes={int(c): gaussian(measured.features[test.labels == c], name="test") for c in enough},
        class_counts=tuple(int(count) for count in counts),
        hashes=np.sort(image_hashes(test.images)),
        sha256=test.sha256,
        floors={},
    )


def real_floors(
    reference: Reference,
    *,
    test: Measured,
    train: Measured,
    train_labels: npt.NDArray[np.int64],
    n: int,
    k: int = NEIGHBORS,
    repeats: int = FLOOR_REPEATS,
) -> dict[str, Floor]:
    """Every figure of random subsets of the training images against the test images.

    Args:
        reference: of the test images.
        test: the test images' features.
        train: the training images' features.
        train_labels: (m,) int64.
        n: images in a subset; they have the test images' class proportions, as generated images have.
        k: nearest neighbors.
        repeats: random subsets.

    Returns:
        A floor for each figure but those of copying (see `copying_floors`); none if there are too few training images.

    Raises:
        InvalidInputError: features that cannot be measured.
    """
    found: dict[str, list[float]] = {}
    for rows in random_subsets(train_labels, class_counts(reference.class_counts, n), repeats=repeats):
        subset = Measured(
            features=train.features[rows],
            probabilities=None if train.probabilities is None else train.probabilities[rows],
        )
        figures = figures_without_real_images(
            subset, train_labels[rows], reference.moments, of_classes=reference.of_classes
        )
        figures |= figures_against_real_images(real=test, generated=subset, k=k)
        for key, figure in figures.items():
            found.setdefault(key, []).append(figure.value)
    counts = class_counts(reference.class_counts, n)
    sizes = {f"{CLASS_DISTANCE}{label}": int(count) for label, count in enumerate(counts)}
    return {key: floor_of(values, n=sizes.get(key, n)) for key, values in found.items()}


def floor_of(values: list[float], *, n: int) -> Floor:
    """The floor that some repeats make, of *n* real images each."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Floor(mean=float(np.mean(values)), standard_deviation=spread, n=n, repeats=len(values))


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """The images that a generator has seen, and how near to them real images lie that it has not."""

    training: npt.NDArray[np.float32]  # (m, d) features
    cells: Cells
    held_out: Nearness


def known_images(*, training: npt.NDArray[np.float32], test: Measured) -> Known:
    """What telling copies needs.

    Args:
        training: (m, d) features of the images that the generator was trained on, m > 1.
        test: the held-out images' features.
    """
    cells = divide(training=training, held_out=len(test.features))
    return Known(training=training, cells=cells, held_out=nearness(cells, test.features))


def copying_floors(*, test: Measured, known: Known, repeats: int = FLOOR_REPEATS, seed: int = 0) -> dict[str, Floor]:
    """What held-out real images score where generated ones are tested for being copies.

    Args:
        test: the test images' features.
        known: of the training images.
        repeats: random halves of the test images, for ``copying``: one half is tested against the other.
        seed: of the halves.

    Returns:
        ``authenticity``, of all test images, and ``copying``, if there are test images enough.
    """
    n = len(test.features)
    share = 1 - float(too_near(training=known.training, samples=test.features).mean())
    floors = {"authenticity": floor_of([share], n=n)}
    rng, scores = np.random.default_rng(seed), []
    for _ in range(repeats):
        order = rng.permutation(n)
        one, other = (
            Nearness(cell=known.held_out.cell[rows], distance=known.held_out.distance[rows])
            for rows in (order[: n // 2], order[n // 2 :])
        )
        try:
            scores.append(copying_score(held_out=one, generated=other))
        except InvalidInputError:  # too few
            return floors
    return floors | {"copying": floor_of(scores, n=n - n // 2)}


def save_reference(reference: Reference, path: Path, provenance: dict[str, Any]) -> None:
    """Write *path* (arrays) and, beside it, the same name with ``.json`` (everything that people read).

    Args:
        reference: what to write.
        path: an ``.npz`` file.
        provenance: JSON values on how it was made: command, versions.
    """
    described = {
        "name": reference.name,
        "features": reference.features,
        "n": reference.moments.n,
        "class_counts": reference.class_counts,
        "sha256": reference.sha256,
        "floors": {n: {key: asdict(floor) for key, floor in by_key.items()} for n, by_key in reference.floors.items()},
        "made_by": provenance,
    }
    arrays = {
        "mean": reference.moments.mean,
        "covariance": reference.moments.covariance,
        "classes": np.asarray(list(reference.of_classes), np.int64),
        "class_sizes": np.asarray([of.n for of in reference.of_classes.values()], np.int64),
        "class_means": np.asarray([of.mean for of in reference.of_classes.values()]),
        "class_covariances": np.asarray([_packed(of.covariance) for of in reference.of_classes.values()]),
        "hashes": reference.hashes,
        "described": np.asarray(json.dumps(described)),  # so that the two files cannot come apart
    }
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    with replacing(path.with_suffix(".json")) as file:
        file.write((json.dumps(described, indent=2) + "\n").encode())


def _packed(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The upper triangle of a symmetric matrix."""
    return covariance[np.triu_indices(len(covariance))]


def _unpacked(packed: npt.NDArray[np.float64], d: int) -> npt.NDArray[np.float64]:
    matrix = np.zeros((d, d))
    matrix[np.triu_indices(d)] = packed
    return matrix + np.triu(matrix, 1).T


def load_reference(path: Path) -> Reference:
    """Read what `save_reference` wrote.

    Raises:
        DataError: the file is missing or is something else.
    """
    advice = (
        "it holds no reference statistics: reinstall digitforge, or make them again with "
        "`python -m digitforge_evaluation.cli.yardstick reference`"
    )
    with open_archive(path, advice=advice) as arrays:
        described = json.loads(str(arrays["described"]))
        return Reference(
            name=described["name"],
            features=described["features"],
            moments=Gaussian(mean=arrays["mean"], covariance=arrays["covariance"], n=described["n"]),
            of_classes={
                int(label): Gaussian(mean=mean, covariance=_unpacked(packed, len(mean)), n=int(size))
                for label, size, mean, packed in zip(
                    *(arrays[name] for name in ("classes", "class_sizes", "class_means", "class_covariances")),
                    strict=True,
                )
            },
            class_counts=tuple(described["class_counts"]),
            hashes=arrays["hashes"],
            sha256=described["sha256"],
            floors={
                int(n): {key: Floor(**floor) for key, floor in by_key.items()}
                for n, by_key in described["floors"].items()
            },
        )


@functools.cache
def shipped_reference() -> Reference:
    """The statistics of MNIST's 10 000 test images in digitnet-64's features."""
    return load_reference(SHIPPED)
