"""Writes the report of a measurement as one HTML page, with samples, neighbors and a row for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from digitforge_client.common.files import make_folder, replacing
from digitforge_client.common.numerals import grouped
from digitforge_evaluation.images.sources import Drawn
from digitforge_evaluation.quality.assess import Pictures, Report
from digitforge_evaluation.quality.comparison import RealData
from digitforge_evaluation.quality.neighbors import Neighborhood, chosen_rows, medians, template_rows
from digitforge_evaluation.quality.registry import METRICS
from digitforge_evaluation.quality.suitability import DIGITS
from digitforge_evaluation.report.histogram import distance_histogram
from digitforge_evaluation.report.plots import sheet
from digitforge_evaluation.report.templates import data_uri, template

SHEET_ROWS: Final = 8  #: images of each class on a sheet of samples
NEAR_ROWS: Final = 8  #: images shown with their neighbors
_COLUMNS: Final = 10  # of a sheet of images without labels


def write_page(path: Path, report: Report, pictures: Pictures, real: RealData | None) -> None:
    """Write the page. It is one file, replaced atomically.

    Args:
        path: the HTML file. Its folder is created if it does not exist.
        report: the metrics.
        pictures: the generated images, and their neighbors.
        real: the real images; None if only their statistics are known.

    Raises:
        DataError: the file cannot be written.
    """
    class_names = real.test.class_names if real else DIGITS
    sheets = [("Generated", _sheet(pictures.generated, len(class_names), report.seed))]
    if real:
        held_out = Drawn(images=real.test.images, labels=real.test.labels)
        sheets.append(("Real, held out", _sheet(held_out, len(class_names), report.seed)))
    reasons = dict.fromkeys(report.left_out.values())
    page = template("quality.html.j2", number=number, grouped=grouped).render(
        report=report,
        summary=summary(report),
        figures=[(found, METRICS[found.key].title, METRICS[found.key].better) for found in report.figures],
        classes=sorted(
            [(each, "Fréchet distance") for each in report.classes]
            + [(each, METRICS["agreement"].title) for each in report.agreements],
            key=lambda pair: pair[0].label,
        ),
        left_out=[
            (", ".join(METRICS[key].title for key in report.left_out if report.left_out[key] == why), why)
            for why in reasons
        ],
        sheets=[(title, data_uri(png)) for title, png in sheets],
        columns=class_names if pictures.generated.labels is not None else (),
        near=_near(pictures.neighborhood, class_names, report.seed) if pictures.neighborhood else None,
    )
    make_folder(path.parent)
    with replacing(path) as file:
        file.write(page.encode())


def summary(report: Report) -> str:
    """One or two sentences with the figures to look at first."""
    found = {each.key: each for each in report.figures}
    sentences = []
    if key := next((key for key in ("distance", "kernel") if key in found), None):
        one = found[key]
        floors = [
            f"{what} score {number(floor.mean)}"
            for floor, what in ((one.training_floor, "training images"), (one.unseen_floor, "new real images"))
            if floor
        ]
        sentences.append(f"{one.name} is {number(one.value)}" + (f"; {', '.join(floors)}" if floors else ""))
    if (agreement := found.get("agreement")) is not None:
        real = agreement.unseen_floor
        sentences.append(
            f"{agreement.value:.1%} of the images look like their label"
            + (f" ({real.mean:.1%} of held-out real images)" if real else "")
        )
    return " ".join(f"{sentence}." for sentence in sentences) or "No metric that sums up the images can be computed."


def number(value: float, digits: int = 4) -> str:
    """A number with *digits* significant digits and a true minus sign."""
    return f"{value:.{digits}g}".replace("-", "−")


def _sheet(drawn: Drawn, classes: int, seed: int) -> bytes:
    """Random images, one column for each class. Images without labels fill a grid."""
    order = np.random.default_rng(seed).permutation(len(drawn.images))
    if drawn.labels is None:
        classes = _COLUMNS
        order = order[: classes * SHEET_ROWS]
    labels = np.arange(len(order)) % classes if drawn.labels is None else drawn.labels[order]
    rows = min(SHEET_ROWS, int(np.bincount(labels).max()))
    return sheet(drawn.images[order], labels, classes=classes, rows=rows)


def _near(found: Neighborhood, class_names: tuple[str, ...], seed: int) -> dict[str, Any]:
    """The template's values for the section on copies."""
    nearest, some = chosen_rows(found, seed=seed, rows=NEAR_ROWS)
    return {
        "histogram": distance_histogram(generated=found.distances[:, 0], held_out=found.held_out),
        "known": len(found.training),
        "medians": medians(found),
        "nearest": template_rows(found, nearest, class_names),
        "some": template_rows(found, some, class_names),
    }
