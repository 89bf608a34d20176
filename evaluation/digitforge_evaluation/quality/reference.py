"""Reference statistics: the feature distribution of held-out real images, and the floors of the metrics.

`shipped_reference` has them for MNIST's test images, so a distance can be computed without any real image.
"""

from __future__ import annotations

import functools
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.common.archives import open_archive
from digitforge_client.common.files import replacing
from digitforge_client.common.json_text import parse_json
from digitforge_client.contract import image_hashes
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features.extract import DATA, Measured
from digitforge_evaluation.metrics.frechet import Gaussian, gaussian
from digitforge_training.data import Dataset

#: Prefix of the key of a class's distance; the number of the class follows.
CLASS_DISTANCE: Final = "distance of class "
#: The same for a class's label agreement.
CLASS_AGREEMENT: Final = "agreement of class "
#: The shipped file.
SHIPPED = DATA / "mnist-test.npz"

#: Sample sizes with shipped floors.
FLOOR_SIZES = (1_000, 2_000, 5_000, 10_000)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What real images score in place of generated ones."""

    mean: float
    standard_deviation: float | None  #: over the repeats; None for a single repeat
    n: int  #: number of real images in place of the generated ones, in each repeat
    held_out: int  #: number of held-out images that they are compared with
    repeats: int


@dataclass(frozen=True, kw_only=True)
class Floors:
    """Two floors for each metric, by key: a key of ``METRICS``, or ``CLASS_DISTANCE`` and the number of a class.

    A generator that memorizes its training images reaches the floor of training images. New real images reach the floor
    of unseen images. The two differ if training and test images differ, for example because other people wrote them.
    """

    training: dict[str, Floor] = field(default_factory=dict)  #: subsets of the training images against the test images
    unseen: dict[str, Floor] = field(default_factory=dict)  #: one part of the test images against the rest


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Statistics of the held-out real images."""

    name: str  #: data set and split, for people
    features: str  #: name of the feature network
    moments: Gaussian | None  #: None if there are not more images than features
    of_classes: dict[int, Gaussian]  #: moments of each class that has more images than features
    class_counts: tuple[int, ...]  #: images of each class; generated images are drawn in these proportions
    hashes: npt.NDArray[np.int64]  #: (n,) identities of the images, to check whether a generator has seen them
    sha256: str  #: hash of images and labels; see `Dataset.sha256`
    floors: dict[int, Floors]  #: by number of generated images


def make_reference(*, test: Dataset, measured: Measured, features: str) -> Reference:
    """Compute the reference statistics of a data set's test images, without floors.

    Args:
        test: the held-out images.
        measured: their features.
        features: name of the feature network.

    Raises:
        InvalidInputError: the features are not finite, or all rows are the same.
    """
    moments, of_classes = moments_of(measured.features, test.labels, classes=len(test.class_names))
    return Reference(
        name=f"{test.name} {test.split}",
        features=features,
        moments=moments,
        of_classes=of_classes,
        class_counts=tuple(np.bincount(test.labels, minlength=len(test.class_names)).tolist()),
        hashes=np.sort(image_hashes(test.images)),
        sha256=test.sha256,
        floors={},
    )


def moments_of(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], *, classes: int
) -> tuple[Gaussian | None, dict[int, Gaussian]]:
    """The moments of all features, and of each class. Where there are not more images than features, there are none.

    Args:
        features: (n, d) features of held-out images.
        labels: (n,) classes.
        classes: number of classes.

    Raises:
        InvalidInputError: the features are not finite, or all rows are the same.
    """
    fewest = max(1, features.shape[1])
    of_classes = {}
    for label in range(classes):
        rows = labels == label
        if rows.sum() > fewest:
            with suppress(InvalidInputError):  # all rows of this class are the same; the other classes are not lost
                of_classes[label] = gaussian(features[rows], name="test")
    return gaussian(features, name="test") if len(features) > fewest else None, of_classes


def floor_of(values: list[float], *, n: int, held_out: int) -> Floor:
    """The floor from the values of some repeats, each of *n* real images against *held_out* others."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Floor(mean=float(np.mean(values)), standard_deviation=spread, n=n, held_out=held_out, repeats=len(values))


def save_reference(reference: Reference, path: Path, provenance: dict[str, Any]) -> None:
    """Write the arrays to *path*, and the readable part to a ``.json`` file of the same name.

    Args:
        reference: what to write.
        path: an ``.npz`` file.
        provenance: how the statistics were made, as JSON values: command, versions.
    """
    assert reference.moments is not None
    described = {
        "name": reference.name,
        "features": reference.features,
        "n": reference.moments.n,
        "class_counts": reference.class_counts,
        "sha256": reference.sha256,
        "floors": {n: asdict(floors) for n, floors in reference.floors.items()},
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
        "described": np.asarray(json.dumps(described)),  # `load_reference` reads this file alone
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
    """Read a file that `save_reference` wrote.

    Raises:
        DataError: the file is missing, or `save_reference` did not write it.
    """
    advice = (
        "reinstall digitforge, or make the reference statistics again with "
        "`python -m digitforge_evaluation.cli.yardstick reference`"
    )
    with open_archive(path, advice=advice) as arrays:
        described = parse_json(str(arrays["described"]))
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
                int(n): Floors(
                    **{kind: {key: Floor(**floor) for key, floor in by_key.items()} for kind, by_key in kinds.items()}
                )
                for n, kinds in described["floors"].items()
            },
        )


@functools.cache
def shipped_reference() -> Reference:
    """The statistics of MNIST's 10 000 test images in the features of digitnet-64."""
    return load_reference(SHIPPED)
