"""Train or load recipes, and measure each in the same way.

The folder of the runs holds one run of ``digitforge train`` per recipe. Each run also holds its export in ``models/``
and its measurements in ``exhibit.json``. A restarted gallery reuses both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from digitforge_client.common.files import make_folder, replacing
from digitforge_client.common.json_text import parse_json
from digitforge_client.common.versions import versions
from digitforge_client.errors import DataError
from digitforge_evaluation.features.extract import FeatureNetwork
from digitforge_evaluation.images.sources import SavedGenerator, Source
from digitforge_evaluation.quality.assess import assess
from digitforge_evaluation.quality.comparison import RealData
from digitforge_training.recipes import FIXED, RECIPES, Recipe, from_dict, written

_RECORD: Final = "exhibit.json"


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """The facts about one generator."""

    name: str  #: name of the recipe
    recipe: Mapping[str, Any]  #: the resolved recipe
    generator_id: str
    images_seen: int
    minutes: float | None  #: time spent in training steps; None if unknown
    parameters: int  #: number of the generator's trainable parameters
    figures: Mapping[str, Mapping[str, Any]]  #: the metrics by key of `registry.METRICS`, see `assess.Measurement`
    seed: int  #: seed of the measured images
    ended: str = ""  #: ``equilibrium`` if the training stopped there; empty if it ran to its last step

    @property
    def title(self) -> str:
        """The recipe's name, and the fields that differ from the preset, apart from the number of steps."""
        # Fields that depend on the device are compared as a CPU resolves them.
        preset, recipe = (one.computed(on_gpu=False).as_dict() for one in (RECIPES[self.name], from_dict(self.recipe)))
        changed = [
            f"{field}={written(recipe[field])}"
            for field in preset
            if field not in FIXED | {"steps"} and recipe[field] != preset[field]
        ]
        return " ".join([self.name, *changed])

    @property
    def n(self) -> int:
        """Number of measured images."""
        return int(next(iter(self.figures.values()))["n"])

    @property
    def steps(self) -> int:
        """Number of training steps."""
        return self.images_seen // from_dict(self.recipe).images_per_step


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An exhibit with its pictures."""

    exhibit: Exhibit
    source: Source  #: draws the samples
    animation: Path | None = None  #: GIF of the training


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure all recipes."""

    real: RealData  #: images to train on, and images to compare with
    network: FeatureNetwork  #: computes the features
    n: int  #: generated images to measure per recipe
    seed: int = 0  #: random seed of trainings and measured images
    on_progress: Callable[[str], None] = lambda _: None  #: called with a line of text


def train_and_measure(recipe: Recipe, settings: Settings, *, run_dir: Path, training: bool = True) -> Shown:
    """Train *recipe* on the real training images, or continue its training, and measure it.

    Args:
        recipe: the recipe. If *run_dir* holds a run already, it must have the same recipe.
        settings: the images, and how to measure.
        run_dir: folder of the run.
        training: False to measure the newest checkpoint without training.

    Raises:
        InvalidInputError: the recipe does not fit the images.
        DataError: *run_dir* cannot be written, holds another run, or has no checkpoint to measure.
    """
    from digitforge_training.export.saved_model import export
    from digitforge_training.runs.folder import read_run
    from digitforge_training.runs.loop import Progress, train

    def show(progress: Progress) -> None:
        settings.on_progress(f"{recipe.name}: training, {progress.images_seen / progress.images_total:.0%}")

    if training:
        train(recipe, settings.real.train, run_dir=run_dir, seed=settings.seed, on_progress=show)
    recipe = read_run(run_dir).recipe
    models = run_dir / "models"
    images_seen, minutes, ended = _training(run_dir)
    newest = _newest_export(models)
    source = SavedGenerator(newest) if newest else None
    if source is None or source.card["images_seen"] != images_seen:
        settings.on_progress(f"{recipe.name}: exporting")
        source = SavedGenerator(export(run_dir, settings.real.train, to=models))
    exhibit = _measured(source, recipe, settings, record=run_dir / _RECORD, minutes=minutes, ended=ended)
    return Shown(exhibit=exhibit, source=source, animation=run_dir / "training.gif")


def _newest_export(models: Path) -> Path | None:
    """The folder of the highest version in *models*; None before the first export."""
    found = versions(models) if models.is_dir() else {}
    return found[max(found)][-1] if found else None


def recipe_of(source: SavedGenerator) -> Recipe:
    """The recipe on a generator's card."""
    return from_dict(source.card["recipe_config"])


def measure_export(source: SavedGenerator, settings: Settings, *, record: Path) -> Shown:
    """Measure an exported generator. The result is kept in the file *record*."""
    return Shown(exhibit=_measured(source, recipe_of(source), settings, record=record), source=source)


def _training(run_dir: Path) -> tuple[int, float, str]:
    """Images seen at the newest checkpoint, minutes spent in steps until then, and why the training ended early."""
    from digitforge_training.runs import checkpoints

    newest = checkpoints.newest(run_dir)
    if newest is None:
        raise DataError(f"{run_dir} has no checkpoint to measure; leave out --no-training to train")
    seen, last, seconds, ended = checkpoints.images_of(newest), 0, 0.0, ""
    for line in (run_dir / "stats.jsonl").read_text("utf-8").splitlines():
        report = parse_json(line)
        if "images_per_second" in report and last < report["images"] <= seen:
            seconds += (report["images"] - last) / report["images_per_second"]
            last, ended = report["images"], report.get("ended", "")
    return seen, seconds / 60, ended


def _measured(
    source: SavedGenerator,
    recipe: Recipe,
    settings: Settings,
    *,
    record: Path,
    minutes: float | None = None,
    ended: str = "",
) -> Exhibit:
    card, n, seed = source.card, settings.n, settings.seed
    kept = _read_record(record)
    if kept and (kept.generator_id, kept.seed, kept.n) == (card["generator_id"], seed, n):
        return kept
    settings.on_progress(f"{recipe.name}: measuring {n} images")
    report = assess(source, network=settings.network, n=n, seed=seed, real=settings.real)
    exhibit = Exhibit(
        name=recipe.name,
        recipe=recipe.as_dict(),
        generator_id=card["generator_id"],
        images_seen=card["images_seen"],
        minutes=minutes,
        parameters=_parameters(recipe, card),
        figures={one.key: asdict(one) for one in report.figures},
        seed=seed,
        ended=ended,
    )
    make_folder(record.parent)
    with replacing(record) as file:
        file.write(json.dumps(asdict(exhibit), indent=2, ensure_ascii=False, default=list).encode() + b"\n")
    return exhibit


def _read_record(path: Path) -> Exhibit | None:
    try:
        return Exhibit(**parse_json(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None  # not measured yet, or measured by another version of digitforge


def _parameters(recipe: Recipe, card: Mapping[str, Any]) -> int:
    from digitforge_training.gan.networks import build_generator, parameter_count

    generator = build_generator(
        recipe, image_shape=tuple(card["image_shape"]), classes=len(card["class_names"]), seed=0
    )
    return parameter_count(generator)
