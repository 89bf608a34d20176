"""Write the gallery's page: samples and training animations of each recipe, and a table of metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from digitforge_client.common.files import make_folder, replacing
from digitforge_client.common.numerals import grouped
from digitforge_evaluation.gallery.exhibits import Exhibit, Shown
from digitforge_evaluation.images.sources import Source
from digitforge_evaluation.quality.comparison import RealData
from digitforge_evaluation.report.plots import sheet
from digitforge_evaluation.report.templates import data_uri, template
from digitforge_training.data import Dataset
from digitforge_training.recipes import RECIPES

HTML: Final = "index.html"
TABLE: Final = "table.md"
JSON: Final = "gallery.json"
#: Titles of the table's columns, without the recipe's name.
TITLES: Final = (
    "steps",
    "images seen",
    "minutes",
    "parameters",
    "feature distance",
    "÷ training floor",
    "score",
    "precision",
    "recall",
    "label agreement",
)
_ROWS, _COLUMNS = 6, 10  # of a sheet of samples; with classes, one column per class


def cells(exhibit: Exhibit) -> tuple[str, ...]:
    """One row of the table, in the order of `TITLES`."""

    def value(key: str, form: str) -> str:
        return format(exhibit.figures[key]["value"], form) if key in exhibit.figures else "–"

    distance = exhibit.figures.get("distance", {})
    floor = distance.get("training_floor")
    full = RECIPES[exhibit.name].steps
    return (
        grouped(exhibit.steps)
        + (f" of {grouped(full)}" if exhibit.steps < full else "")
        + f" {exhibit.ended}".rstrip(),
        grouped(exhibit.images_seen),
        "–" if exhibit.minutes is None else f"{exhibit.minutes:.0f}",
        grouped(exhibit.parameters),
        value("distance", ".3g"),
        f"{distance['value'] / floor['mean']:.1f}" if floor else "–",
        value("score", ".2f"),
        value("precision", ".3f"),
        value("recall", ".3f"),
        value("agreement", ".2%"),
    )


def legend(exhibits: Iterable[Exhibit], real: Dataset) -> tuple[str, ...]:
    """The sentences below the table, which explain its columns."""
    first = next(iter(exhibits))
    floors = [
        f"{figure['training_floor']['mean']:.3g} in {key}"
        for key in ("distance", "precision", "recall")
        if (figure := first.figures.get(key)) and figure["training_floor"]
    ]
    distance = first.figures.get("distance")
    held_out = distance["unseen_floor"] if distance else None
    unseen = (
        f" {held_out['n']} test images score {held_out['mean']:.3g} in distance from the other {held_out['held_out']}."
        if held_out
        else ""
    )
    name = distance["name"] if distance else "a Fréchet distance, for which there are too few images,"
    return (
        f"The feature distance is {name} between {first.n} generated images of seed {first.seed} and the {len(real)} "
        f"test images of {real.name}."
        + (f" The same number of real training images scores {', '.join(floors)}." if floors else "")
        + unseen
        + " The column ÷ training floor divides the distance by the distance of the real training images. Each "
        "recipe was trained once. Another training of the same recipe may give different numbers.",
        "Label agreement is the share of images that the network recognizes as the requested class. Minutes is the "
        "time spent in training steps on this machine. A dash means unknown or not applicable.",
    )


def write_gallery(folder: Path, shown: Sequence[Shown], real: RealData) -> Path:
    """Write the page, a table in Markdown, the metrics as JSON, and the samples as PNG files.

    Each file is replaced only when it is complete.

    Args:
        folder: folder for the files. It is created if needed.
        shown: the exhibits in the order of the page, at least one.
        real: the images that the recipes were trained on and compared with.

    Returns:
        The path of the page.

    Raises:
        DataError: the folder cannot be created or written.
    """
    exhibits = [one.exhibit for one in shown]
    sheets = [_samples(one.source, real.test) for one in shown]
    lines = legend(exhibits, real.test)
    page = template("gallery.html.j2").render(
        about=f"Trained on {len(real.train)} images of {real.train.name}, compared with {len(real.test)} test images.",
        titles=TITLES,
        legend=lines,
        exhibits=[
            {
                "name": one.exhibit.name,
                "title": one.exhibit.title,
                "summary": one.exhibit.recipe["summary"],
                "notes": one.exhibit.recipe.get("notes", ()),
                "cells": cells(one.exhibit),
                "sheet": data_uri(samples),
                "classes": (one.source.card or {}).get("class_names", ()),
                "animation": data_uri(gif.read_bytes(), "gif") if (gif := one.animation) and gif.is_file() else "",
            }
            for one, samples in zip(shown, sheets, strict=True)
        ],
    )
    table = ["| recipe | " + " | ".join(TITLES) + " |", "|---" * (1 + len(TITLES)) + "|"]
    table += [f"| `{exhibit.title}` | " + " | ".join(cells(exhibit)) + " |" for exhibit in exhibits]
    make_folder(folder)
    for name, text in (
        (JSON, json.dumps([asdict(exhibit) for exhibit in exhibits], indent=2, ensure_ascii=False, default=list)),
        (TABLE, "\n".join([*table, "", *lines])),
        (HTML, page),
    ):
        with replacing(folder / name) as file:
            file.write(text.encode() + b"\n")
    for exhibit, samples in zip(exhibits, sheets, strict=True):
        with replacing(folder / f"{exhibit.name}.png") as file:
            file.write(samples)
    return folder / HTML


def _samples(source: Source, test: Dataset) -> bytes:
    """A PNG of generated images, with one column per class if there are classes."""
    classes = len(source.card["class_names"]) if source.card else 0
    columns = classes or _COLUMNS
    drawn = source.draw(_ROWS * columns, proportions=(1,) * len(test.class_names), seed=0)
    labels = np.arange(_ROWS * columns) % columns if drawn.labels is None else drawn.labels
    return sheet(drawn.images, labels, classes=columns, rows=_ROWS)
