"""The training loop: steps, checkpoints, sample sheets, statistics; resumed by the same call.

A run folder holds

    recipe.json     the resolved recipe, the data's identity and the seed
    checkpoints/    <images seen>.npz, the newest few; best.npz, if a judge was given
    stats.jsonl     one line per report: images, losses, images per second
    sheets/         <images seen>.png, the averaged generator on fixed latents
    training.gif    the sheets in order
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.contract import row_seeds
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training import checkpoints, pictures
from digitforge_training.data import Dataset
from digitforge_training.judging import Judge, find_judge, hold_out
from digitforge_training.latents import latents_of
from digitforge_training.recipes import Recipe, from_dict
from digitforge_training.trainer import Trainer

RUN_FILE: Final = "recipe.json"
STATS_FILE: Final = "stats.jsonl"
SHEETS: Final = "sheets"
GIF_FILE: Final = "training.gif"

_SHEET_ROWS = 8
_SHEET_COLUMNS = 10  # where there are no classes
_REPORT_IMAGES = 1_600  # images between two reports; also how long Ctrl-C may wait
_CHECKPOINTS_KEPT = 2
_JUDGED_SEED = 1  # the sheets show seed 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """One report of the loop."""

    images_seen: int
    images_total: int
    images_per_second: float
    statistics: dict[str, float]  # means since the last report
    at_equilibrium: bool = False  # the training ends here, because its recipe asks for no more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What a run folder is about."""

    recipe: Recipe
    training_data: dict[str, Any]  # name, split, images, sha256; without what is held out
    held_out: int  # images of the data set that are kept for the judge
    judge: str | None  # who chooses the checkpoint that is exported; None: the newest is
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """The run as JSON-ready data."""
        return {**dataclasses.asdict(self), "recipe": self.recipe.as_dict()}


def describe(recipe: Recipe, dataset: Dataset, *, seed: int, held_out: int = 0, judge: str | None = None) -> Run:
    """What training *recipe* on *dataset*, less *held_out* images, would be, before anything is written."""
    dataset, _ = hold_out(dataset, held_out, seed=seed)
    return Run(
        recipe=recipe,
        training_data={
            "name": dataset.name, "split": dataset.split, "images": len(dataset), "sha256": dataset.sha256,
        },
        held_out=held_out,
        judge=judge,
        class_names=dataset.class_names if recipe.conditional else (),
        image_shape=dataset.images.shape[1:],
        seed=seed,
    )  # fmt: skip


def read_run(run_dir: Path) -> Run:
    """Read a run folder's description.

    Raises:
        DataError: the folder holds no run, or a damaged one.
    """
    path = run_dir / RUN_FILE
    try:
        values = json.loads(path.read_text("utf-8"))
        return Run(
            recipe=from_dict(values["recipe"]),
            training_data=values["training_data"],
            held_out=values["held_out"],
            judge=values["judge"],
            class_names=tuple(values["class_names"]),
            image_shape=tuple(values["image_shape"]),
            seed=values["seed"],
        )
    except FileNotFoundError as error:
        raise DataError(f"{run_dir} holds no run: {path} is missing; `digitforge train --out` makes one") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}; train again into another folder") from error


def train(
    recipe: Recipe,
    dataset: Dataset,
    *,
    run_dir: Path,
    seed: int = 0,
    held_out: int = 0,
    judge: str | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Run:
    """Train *recipe* on *dataset* into *run_dir*, or go on where an earlier call stopped.

    With a *judge* (see judging.py), each checkpoint is judged beside *held_out* images that are not trained on, and
    the best is kept and exported. An interrupt (Ctrl-C) writes a checkpoint before it goes on to the caller.

    Raises:
        InvalidInputError: too few images, a class without an image, sizes that the recipe cannot make, or an unknown
            judge.
        DataError: the folder cannot be written, or holds a different run.
    """
    if judge is not None and held_out == 0:
        raise InvalidInputError("a judge needs held-out images; hold out some thousands, or do without a judge")
    make_judge = find_judge(judge) if judge else None
    training, held = hold_out(dataset, held_out, seed=seed)
    _check(training, recipe)
    run = describe(recipe, dataset, seed=seed, held_out=held_out, judge=judge)
    _claim(run_dir, run)
    trainer = Trainer(recipe, training, seed=seed)
    newest = checkpoints.newest(run_dir)
    if newest is not None:
        trainer.restore(checkpoints.load(newest))
    _forget_reports_after(run_dir, trainer.images_seen)
    score = make_judge(held.images, held.labels) if make_judge else None
    try:
        _train_on(trainer, run_dir, on_progress, lambda: _keep_best(trainer, run_dir, score, held.labels))
    except KeyboardInterrupt:
        _checkpoint(trainer, run_dir)
        raise
    frames = sorted((run_dir / SHEETS).glob("*.png"))
    pictures.save_gif(frames, run_dir / GIF_FILE)
    return run


def _keep_best(trainer: Trainer, run_dir: Path, judge: Judge | None, labels: npt.NDArray[np.int64]) -> None:
    """Judge as many generated images as were held out, of the same classes; keep the generator if it is the best."""
    if judge is None:
        return
    recipe = trainer.recipe
    latents = latents_of(row_seeds(_JUDGED_SEED, len(labels)), recipe.latent_size, recipe.latent_law).numpy()
    value = judge(trainer.sample(labels, latents), labels)
    best = checkpoints.best(run_dir)
    if best is None or value < best.value:
        checkpoints.save_best(
            run_dir, trainer.averaged_state(), images_seen=trainer.images_seen, value=value, n=len(labels)
        )


def _train_on(
    trainer: Trainer, run_dir: Path, on_progress: Callable[[Progress], None], keep_best: Callable[[], None]
) -> None:
    recipe = trainer.recipe
    total = recipe.steps
    every_report = 1 if recipe.equilibrium else max(1, _REPORT_IMAGES // recipe.images_per_step)
    every_sheet = max(1, recipe.images_per_sheet // recipe.images_per_step)
    every_checkpoint = max(1, recipe.images_per_checkpoint // recipe.images_per_step)
    if trainer.steps_done == 0:
        _sheet(trainer, run_dir)
    ended = _reached_equilibrium(run_dir, trainer.images_seen)
    while (done := trainer.steps_done) < total and not ended:
        stops = [total, *(every * (done // every + 1) for every in (every_report, every_sheet, every_checkpoint))]
        began = time.perf_counter()
        statistics = trainer.run(min(stops) - done)
        seconds = time.perf_counter() - began
        progress = Progress(
            images_seen=trainer.images_seen,
            images_total=total * recipe.images_per_step,
            images_per_second=(trainer.steps_done - done) * recipe.images_per_step / seconds,
            statistics=statistics,
            at_equilibrium=_is_equilibrium(recipe, statistics),
        )
        ended = progress.at_equilibrium or trainer.steps_done == total
        _report(run_dir, progress)
        on_progress(progress)
        if trainer.steps_done % every_sheet == 0 or ended:
            _sheet(trainer, run_dir)
        if trainer.steps_done % every_checkpoint == 0 or ended:
            keep_best()  # before the checkpoint, so that a kill between the two judges again
            _checkpoint(trainer, run_dir)


def _is_equilibrium(recipe: Recipe, statistics: dict[str, float]) -> bool:
    return abs(statistics["accuracy_generated"] - 0.5) <= recipe.equilibrium > 0


def _reached_equilibrium(run_dir: Path, images_seen: int) -> bool:
    """Whether the last report, which belongs to the newest checkpoint, ended the training."""
    path = run_dir / STATS_FILE
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    last = json.loads(lines[-1]) if lines else {}
    return "ended" in last and last["images"] == images_seen


def _check(dataset: Dataset, recipe: Recipe) -> None:
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    if len(dataset) < 2:
        raise InvalidInputError(f"data set {dataset.name} has {len(dataset)} images; training needs at least 2")
    empty = [dataset.class_names[k] for k in np.flatnonzero(counts == 0)]
    if empty and recipe.conditional:
        raise InvalidInputError(
            f"data set {dataset.name} has no image of class {', '.join(empty)}; add some or leave the class out"
        )


def _claim(run_dir: Path, run: Run) -> None:
    """Write the description of the run, or check that the folder holds the same one."""
    path = run_dir / RUN_FILE
    if path.exists():
        if read_run(run_dir) != run:
            raise DataError(
                f"{run_dir} holds another run (another recipe, data set or seed, see {path}); "
                "choose another folder with --out, or remove this one"
            )
        return
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(run.as_dict(), indent=2) + "\n", "utf-8")
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"cannot write into {run_dir}: {error.strerror}; choose another folder with --out") from error


def _report(run_dir: Path, progress: Progress) -> None:
    line = {
        "images": progress.images_seen,
        **{name: round(value, 5) for name, value in progress.statistics.items()},
        "images_per_second": round(progress.images_per_second, 1),
        **({"ended": "equilibrium"} if progress.at_equilibrium else {}),
    }
    with (run_dir / STATS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _forget_reports_after(run_dir: Path, images: int) -> None:
    """Drop reports of steps that will be taken again, and a line that a kill cut short."""
    path = run_dir / STATS_FILE
    if not path.exists():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            if json.loads(line)["images"] <= images:
                kept.append(line + "\n")
        except ValueError:
            break
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(kept), "utf-8")
    temporary.replace(path)


def _sheet(trainer: Trainer, run_dir: Path) -> None:
    """Draw the averaged generator on fixed latents, a column per class, if there are classes."""
    run = read_run(run_dir)
    classes = len(run.class_names) or _SHEET_COLUMNS
    n = _SHEET_ROWS * classes
    latents = latents_of(row_seeds(0, n), run.recipe.latent_size, run.recipe.latent_law).numpy()
    images = trainer.sample(np.arange(n) % classes if run.class_names else np.zeros(n, np.int64), latents)
    path = run_dir / SHEETS / f"{trainer.images_seen:012d}.png"
    pictures.save_png(pictures.sheet(images, columns=classes), path)


def _checkpoint(trainer: Trainer, run_dir: Path) -> None:
    checkpoints.save(run_dir, trainer.images_seen, trainer.state(), keep=_CHECKPOINTS_KEPT)
