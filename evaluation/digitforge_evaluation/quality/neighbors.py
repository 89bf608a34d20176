"""A page that shows generated images beside the training images nearest to them: are they copies?

Distances are Euclidean, in the same features as the metrics. Compare them with the distances of held-out real images:
a real image that the generator never saw also has a near neighbor.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.common.files import make_folder, replacing
from digitforge_evaluation.images.sources import Images, Labels
from digitforge_evaluation.metrics.arrays import nearest_neighbors
from digitforge_evaluation.report.histogram import distance_histogram
from digitforge_evaluation.report.svg import svg_file
from digitforge_evaluation.report.templates import data_uri, template

HTML: Final = "neighbors.html"
PNG: Final = "neighbors.png"
DISTANCES: Final = "distances.svg"
NEIGHBORS: Final = 5
ROWS: Final = 20  #: images in each section of the page
_GAP: Final = 3  # pixels between images on the sheet


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighborhood:
    """Generated images, and the training images nearest to each."""

    generated: Images  #: (n, H, W, C)
    labels: Labels | None  #: (n,)
    training: Images  #: (m, H, W, C), the training images that the generator has seen
    training_labels: Labels  #: (m,)
    places: npt.NDArray[np.int64]  #: (n, NEIGHBORS) indices into `training`, nearest first
    distances: npt.NDArray[np.float64]  #: (n, NEIGHBORS)
    held_out: npt.NDArray[np.float64]  #: (h,) distance from each held-out real image to its nearest training image

    def share_nearer(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """For each generated image in *rows*, the share of held-out images that are nearer to a training image."""
        return np.searchsorted(np.sort(self.held_out), self.distances[rows, 0]) / len(self.held_out)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the images on the page come from."""

    source: str
    training: str
    held_out: str
    features: str
    seed: int
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_neighbors(
    *,
    generated: Images,
    labels: Labels | None,
    training: Images,
    training_labels: Labels,
    features: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]],
) -> Neighborhood:
    """Find the training images nearest to each generated image.

    Args:
        generated: (n, H, W, C) uint8.
        labels: (n,) int64, the requested classes, or None.
        training: (m, H, W, C) uint8, m ≥ 1.
        training_labels: (m,) int64.
        features: features of the generated, the training and the held-out real images: three arrays (·, d).
    """
    of_generated, of_training, of_held_out = features
    squares, places = nearest_neighbors(of_training, of_generated, count=min(NEIGHBORS, len(of_training)))
    return Neighborhood(
        generated=generated,
        labels=labels,
        training=training,
        training_labels=training_labels,
        places=places,
        distances=np.sqrt(squares),
        held_out=np.sqrt(nearest_neighbors(of_training, of_held_out)[0][:, 0]),
    )


def write_neighbors(folder: Path, found: Neighborhood, origin: Origin) -> Path:
    """Write the page and its pictures into *folder*. Each file is replaced atomically.

    The page shows the generated images nearest to a training image, and a random choice of generated images.

    Args:
        folder: created if it does not exist.
        found: the images to show.
        origin: where they come from. Its seed also makes the random choice.

    Returns:
        Path of the HTML file.

    Raises:
        DataError: the folder cannot be created or written to.
    """
    nearest, some = chosen_rows(found, seed=origin.seed)
    histogram = distance_histogram(generated=found.distances[:, 0], held_out=found.held_out)
    page = _render(found, origin, {"nearest": nearest, "some": some}, histogram)
    make_folder(folder)
    for name, content in (
        (PNG, _sheet(found, [nearest, some])),
        (DISTANCES, svg_file(histogram)),
        (HTML, page.encode()),
    ):
        with replacing(folder / name) as file:
            file.write(content)
    return folder / HTML


def chosen_rows(
    found: Neighborhood, *, seed: int, rows: int = ROWS
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The generated images to show: those nearest to a training image, and a random choice."""
    nearest = np.argsort(found.distances[:, 0], kind="stable")[:rows]
    return nearest, np.random.default_rng(seed).permutation(len(found.generated))[:rows]


def medians(found: Neighborhood) -> list[str]:
    """The median distance to the nearest training image, of generated and of held-out images."""
    return [f"{np.median(values):.4g}" for values in (found.distances[:, 0], found.held_out)]


def _render(found: Neighborhood, origin: Origin, chosen: dict[str, npt.NDArray[np.intp]], histogram: str) -> str:
    return template("neighbors.html.j2").render(
        origin=origin,
        count=len(found.generated),
        known=len(found.training),
        held_out=len(found.held_out),
        medians=medians(found),
        histogram=histogram,
        sections={name: template_rows(found, rows, origin.class_names) for name, rows in chosen.items()},
    )


def template_rows(found: Neighborhood, rows: npt.NDArray[np.intp], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The values of ``near.html.j2`` for some generated images."""
    return [
        {
            "image": data_uri(_picture(found.generated[row])),
            "label": None if found.labels is None else _name(int(found.labels[row]), class_names),
            "nearer": f"{100 * share:.1f} %",
            "neighbors": [
                {
                    "image": data_uri(_picture(found.training[place])),
                    "label": _name(int(found.training_labels[place]), class_names),
                    "distance": f"{distance:.3g}",
                }
                for place, distance in zip(found.places[row], found.distances[row], strict=True)
            ],
        }
        for row, share in zip(rows, found.share_nearer(rows), strict=True)
    ]


def _name(label: int, class_names: Sequence[str]) -> str:
    """The name of a class. The images of a file may have more classes than the real images."""
    return class_names[label] if 0 <= label < len(class_names) else str(label)


def _sheet(found: Neighborhood, sections: Sequence[npt.NDArray[np.intp]]) -> bytes:
    """A PNG with the sections side by side. A row shows a generated image, a gap, and its neighbors."""
    height, width, channels = found.generated.shape[1:]
    across = 1 + found.places.shape[1]
    sheet = np.full(
        (ROWS * (height + _GAP) + _GAP, len(sections) * ((across + 1) * (width + _GAP)), channels), 255, np.uint8
    )
    for section, rows in enumerate(sections):
        for at, row in enumerate(rows):
            images = [found.generated[row], *found.training[found.places[row]]]
            for column, image in enumerate(images):
                top = _GAP + at * (height + _GAP)
                left = (section * (across + 1) + column) * (width + _GAP) + (2 * _GAP if column else _GAP)
                sheet[top : top + height, left : left + width] = image
    return _picture(sheet, enlarged=2)


def _picture(image: npt.NDArray[np.uint8], *, enlarged: int = 1) -> bytes:
    """One image as a PNG file."""
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    buffer = io.BytesIO()
    picture.resize((picture.width * enlarged, picture.height * enlarged), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()
