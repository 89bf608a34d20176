"""The gallery: recipes trained or loaded, measured in the same way, and shown beside each other on one page.

The folder of the runs holds, for each recipe, the run of `digitforge train`, its export in ``models/`` and what was
measured of it in ``exhibit.json``, so that a stopped gallery goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from digitforge_client.common.files import replacing
from digitforge_client.errors import DataError
from digitforge_evaluation.features.extract import FeatureNetwork
from digitforge_evaluation.images.sources import SavedGenerator, Source
from digitforge_evaluation.quality.assess import Figure, RealData, assess
from digitforge_evaluation.report.plots import sheet
from digitforge_evaluation.report.templates import data_uri, template
from digitforge_training.data import Dataset
from digitforge_training.recipes import FIXED, RECIPES, Recipe, from_dict, written

HTML: Final = "index.html"
TABLE: Final = "table.md"
JSON: Final = "gallery.json"
#: Titles of the table's columns behind the recipe's name.
TITLES: Final = (
    "steps",
    "images seen",
    "minutes",
    "parameters",
    "feature distance",
    "÷ floor",
    "score",
    "precision",
    "recall",
    "label agreement",
)
_ROWS, _COLUMNS = 6, 10  # of a sheet of samples
_RECORD: Final = "exhibit.json"


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """What is known of one generator."""

    name: str  # of its recipe, with what was overridden
    recipe: Mapping[str, Any]  # resolved
    generator_id: str
    images_seen: int
    minutes: float | None  # spent in training steps; None where no run says so
    parameters: int  # trained ones of the generator
    figures: Mapping[str, Mapping[str, Any]]  # by key of `figures.KINDS`, as `quality.Figure` has them
    seed: int  # of the images measured
    ended: str = ""  # "equilibrium" where the training ended there, before its last step

    @property
    def title(self) -> str:
        """The recipe's name, and which of its fields have other values than its preset has, but for its length."""
        # What a recipe leaves to the device is no change of it, whether it says so or holds what a CPU makes of it.
        preset, recipe = (one.computed(on_gpu=False).as_dict() for one in (RECIPES[self.name], from_dict(self.recipe)))
        changed = [
            f"{field}={written(recipe[field])}"
            for field in preset
            if field not in FIXED | {"steps"} and recipe[field] != preset[field]
        ]
        return " ".join([self.name, *changed])

    @property
    def steps(self) -> int:
        """Steps trained."""
        return self.images_seen // from_dict(self.recipe).images_per_step


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An exhibit, and what there is to look at."""

    exhibit: Exhibit
    source: Source  # to draw samples from
    animation: Path | None = None  # GIF of the training


def train_and_measure(
    recipe: Recipe,
    *,
    run_dir: Path,
    real: RealData,
    network: FeatureNetwork,
    n: int,
    seed: int = 0,
    training: bool = True,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Shown:
    """Train *recipe* on the real training images into *run_dir*, as far as it is not trained yet, and measure it.

    Args:
        recipe: what to train; a run that *run_dir* holds already must be of the same one.
        run_dir: of the run.
        real: what to train on, and what to measure against.
        network: gives the features.
        n: generated images to measure.
        seed: of the training and of the images measured.
        training: False to measure the newest checkpoint as it is.
        on_progress: called with a line of text.

    Raises:
        InvalidInputError: the data do not suit the recipe.
        DataError: the folder cannot be written, holds another run, or holds nothing to measure.
    """
    from digitforge_training.export.saved_model import export
    from digitforge_training.runs.folder import read_run
    from digitforge_training.runs.loop import Progress, train

    def show(progress: Progress) -> None:
        on_progress(f"{recipe.name}: training, {progress.images_seen / progress.images_total:.0%}")

    if training:
        train(recipe, real.train, run_dir=run_dir, seed=seed, on_progress=show)
    recipe = read_run(run_dir).recipe
    models = run_dir / "models"
    images_seen, minutes, ended = _training(run_dir)
    newest = max(models.glob("[0-9]*"), key=lambda path: int(path.name), default=None)
    source = SavedGenerator(newest) if newest else None
    if source is None or source.card["images_seen"] != images_seen:
        on_progress(f"{recipe.name}: exporting")
        source = SavedGenerator(export(run_dir, real.train, to=models))
    exhibit = _measured(
        source,
        recipe,
        record=run_dir / _RECORD,
        minutes=minutes,
        ended=ended,
        real=real,
        network=network,
        n=n,
        seed=seed,
        on_progress=on_progress,
    )
    return Shown(exhibit=exhibit, source=source, animation=run_dir / "training.gif")


def measure_export(
    folder: Path,
    *,
    record: Path,
    real: RealData,
    network: FeatureNetwork,
    n: int,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Shown:
    """Measure a generator that was exported before; what was found is kept in *record*.

    Raises:
        DataError: *folder* holds no exported generator.
    """
    source = SavedGenerator(folder)
    exhibit = _measured(
        source,
        from_dict(source.card["recipe_config"]),
        record=record,
        minutes=None,
        ended="",
        real=real,
        network=network,
        n=n,
        seed=seed,
        on_progress=on_progress,
    )
    return Shown(exhibit=exhibit, source=source)


def _training(run_dir: Path) -> tuple[int, float, str]:
    """Images seen at the newest checkpoint, minutes spent in steps until then, and what ended the training early."""
    from digitforge_training.runs import checkpoints

    newest = checkpoints.newest(run_dir)
    if newest is None:
        raise DataError(f"{run_dir} has no checkpoint to measure; train first")
    seen, last, seconds, ended = checkpoints.images_of(newest), 0, 0.0, ""
    for line in (run_dir / "stats.jsonl").read_text("utf-8").splitlines():
        report = json.loads(line)
        if "images_per_second" in report and last < report["images"] <= seen:
            seconds += (report["images"] - last) / report["images_per_second"]
            last, ended = report["images"], report.get("ended", "")
    return seen, seconds / 60, ended


def _measured(
    source: SavedGenerator,
    recipe: Recipe,
    *,
    record: Path,
    minutes: float | None,
    ended: str,
    real: RealData,
    network: FeatureNetwork,
    n: int,
    seed: int,
    on_progress: Callable[[str], None],
) -> Exhibit:
    card = source.card
    kept = _read_record(record)
    if kept and kept.generator_id == card["generator_id"] and kept.seed == seed and _n_of(kept) == n:
        return kept
    on_progress(f"{recipe.name}: measuring {n} images")
    report = assess(source, network=network, n=n, seed=seed, real=real)
    exhibit = Exhibit(
        name=recipe.name,
        recipe=recipe.as_dict(),
        generator_id=card["generator_id"],
        images_seen=card["images_seen"],
        minutes=minutes,
        parameters=_parameters(recipe, card),
        figures={figure.key: _as_dict(figure) for figure in report.figures},
        seed=seed,
        ended=ended,
    )
    record.parent.mkdir(parents=True, exist_ok=True)
    with replacing(record) as file:
        file.write(json.dumps(asdict(exhibit), indent=2, ensure_ascii=False, default=list).encode() + b"\n")
    return exhibit


def _as_dict(figure: Figure) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(figure)))  # lists for tuples, as the record has


def _read_record(path: Path) -> Exhibit | None:
    try:
        return Exhibit(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # not measured yet, or by another version


def _n_of(exhibit: Exhibit) -> int:
    return int(exhibit.figures["distance"]["n"])


def _parameters(recipe: Recipe, card: Mapping[str, Any]) -> int:
    from digitforge_training.gan.networks import build_generator

    generator = build_generator(
        recipe, image_shape=tuple(card["image_shape"]), classes=len(card["class_names"]), seed=0
    )
    return sum(int(np.prod(variable.shape)) for variable in generator.trainable_variables)


def cells(exhibit: Exhibit) -> tuple[str, ...]:
    """One row of the table, in the order of `TITLES`."""

    def value(key: str, form: str) -> str:
        return format(exhibit.figures[key]["value"], form) if key in exhibit.figures else "–"

    distance = exhibit.figures["distance"]
    floor = distance["real"]
    full = RECIPES[exhibit.name].steps
    return (
        f"{exhibit.steps:,}" + (f" of {full:,}" if exhibit.steps < full else "") + f" {exhibit.ended}".rstrip(),
        f"{exhibit.images_seen:,}",
        "–" if exhibit.minutes is None else f"{exhibit.minutes:.0f}",
        f"{exhibit.parameters:,}",
        value("distance", ".3g"),
        f"{distance['value'] / floor['mean']:.1f}" if floor else "–",
        value("score", ".2f"),
        value("precision", ".3f"),
        value("recall", ".3f"),
        value("agreement", ".2%"),
    )


def legend(exhibits: Iterable[Exhibit], real: Dataset) -> tuple[str, ...]:
    """What the table's figures are, in sentences."""
    first = next(iter(exhibits))
    named = {key: figure["name"] for key, figure in first.figures.items()}
    return (
        f"{named['distance']}, {_n_of(first)} generated images of seed {first.seed} against the {len(real)} "
        f"test images of {real.name}; the floor is the same distance for as many real training images, which score "
        + ", ".join(
            f"{first.figures[key]['real']['mean']:.3g} in {key}"
            for key in ("distance", "precision", "recall")
            if key in first.figures and first.figures[key]["real"]
        )
        + ". One training of each recipe; no interval covers other trainings.",
        "Label agreement is the share of images that the network recognizes as the class asked for; a recipe without "
        "classes has none. Minutes are those spent in training steps on the machine at hand. A dash stands for what "
        "is not known or has no meaning.",
    )


def write_gallery(folder: Path, shown: Sequence[Shown], real: RealData) -> Path:
    """Write the page, the table in Markdown and all figures as JSON into *folder*; each appears whole or not at all.

    Args:
        folder: made if need be.
        shown: what to show, in this order; one at least.
        real: what was measured against.

    Returns:
        The page.

    Raises:
        DataError: the folder cannot be made.
    """
    exhibits = [one.exhibit for one in shown]
    sheets = [_samples(one.source, real.test) for one in shown]
    lines = legend(exhibits, real.test)
    page = template("gallery.html.j2").render(
        about=f"{len(real.train)} training images of {real.train.name}, measured against {len(real.test)} others.",
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
                "animation": data_uri(gif.read_bytes(), "gif") if (gif := one.animation) and gif.is_file() else "",
            }
            for one, samples in zip(shown, sheets, strict=True)
        ],
    )
    table = ["| recipe | " + " | ".join(TITLES) + " |", "|---" * (1 + len(TITLES)) + "|"]
    table += [f"| `{exhibit.title}` | " + " | ".join(cells(exhibit)) + " |" for exhibit in exhibits]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); choose another folder with --out") from error
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
    """A sheet of generated images, a column for each class, if there are classes."""
    classes = len(source.card["class_names"]) if source.card else 0
    columns = classes or _COLUMNS
    drawn = source.draw(_ROWS * columns, proportions=(1,) * len(test.class_names), seed=0)
    labels = np.arange(_ROWS * columns) % columns if drawn.labels is None else drawn.labels
    return sheet(drawn.images, labels, classes=columns, rows=_ROWS)
