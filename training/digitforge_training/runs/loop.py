"""The training loop.

A run folder holds::

    recipe.json     the resolved recipe, the identity of the data, and the seed
    checkpoints/    <images seen>.npz, the newest two; with a judge also best.npz
    stats.jsonl     one line per report: images, losses, images per second; at sheets also image statistics
    tensorboard/    the same numbers and the sheets, for TensorBoard
    sheets/         <images seen>.png, samples of the averaged generator on fixed latents
    training.gif    the sheets in order, written at the end
    walks.png       each row shows the images between two generated ones, written at the end
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.common.interrupts import held_back
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data import Dataset
from digitforge_training.gan.parent import Parent
from digitforge_training.gan.replicas import only_chief_writes
from digitforge_training.gan.trainer import Trainer, on_gpu
from digitforge_training.recipes import Recipe
from digitforge_training.runs import checkpoints, pictures
from digitforge_training.runs.diagnosis import Trouble, diagnose
from digitforge_training.runs.folder import RUN_FILE, Run, claim, describe, read_run
from digitforge_training.runs.journal import Journal
from digitforge_training.runs.judging import JUDGED_SEED, Judge, find_judge, hold_out
from digitforge_training.runs.views import Watch, draw_latents, draw_sheet, draw_walks

SHEETS: Final = "sheets"
GIF_FILE: Final = "training.gif"
WALKS_FILE: Final = "walks.png"

_CHECKPOINTS_KEPT = 2
_FEWEST_JUDGED = 1_000  # generated images
_ROOM = 8 << 20  # bytes for sheets, statistics and events; most runs need less than half


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """One report of the training loop."""

    images_seen: int  #: Real images shown so far.
    images_total: int  #: Real images of the whole training.
    images_per_second: float  #: Speed since the last report.
    #: Means since the last report. Reports at a sheet also have ``diagnosis.image_statistics``.
    statistics: dict[str, float]
    at_equilibrium: bool = False  #: Whether the training ends here, because it has reached the recipe's equilibrium.
    troubles: tuple[Trouble, ...] = ()  #: New troubles. Each is reported once per run.


@only_chief_writes
def train(
    recipe: Recipe,
    dataset: Dataset,
    *,
    run_dir: Path,
    seed: int = 0,
    held_out: int = 0,
    judge: str | None = None,
    parent: Parent | None = None,
    save_every_s: float = 600.0,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Run:
    """Train *recipe* on *dataset* into *run_dir*, or resume an earlier call.

    A finished training continues if *recipe* has more steps. Schedules depend on the fraction of all steps that are
    done, so a learning rate that has fallen along a cosine starts higher again. The result differs from that of one
    longer training, and `Run.earlier_steps` records this.

    With a *judge* (see ``runs/judging.py``), *held_out* images are not trained on. The judge compares each checkpoint
    with them, and the best checkpoint is kept and exported. A KeyboardInterrupt writes a checkpoint, then propagates.

    With a *parent*, the training starts from the parent's networks instead of new ones.

    Checkpoints are written after every `Recipe.images_per_checkpoint` images, and *save_every_s* seconds after the last
    one. They do not change the training.

    Raises:
        InvalidInputError: there are too few images, a class has no image, the recipe does not support the image size,
            the judge does not exist, or *save_every_s* is not above 0.
        DataError: the folder cannot be written, has no room for the checkpoints, or holds a different run.
    """
    if judge is not None and held_out == 0:
        raise InvalidInputError(
            f"judge is {judge!r} but held_out is 0; hold out a few thousand images, or train without a judge"
        )
    if not save_every_s > 0:
        raise InvalidInputError(f"save_every_s is {save_every_s}; expected seconds above 0")
    make_judge = find_judge(judge) if judge else None
    training, held = hold_out(dataset, held_out, seed=seed)
    _check(training, recipe)
    # Settings that depend on the device are decided when the run begins, and recorded.
    begun = (run_dir / RUN_FILE).exists()
    recipe = recipe.computed_like(read_run(run_dir).recipe) if begun else recipe.computed(on_gpu=on_gpu())
    described = None if parent is None else parent.described
    run = describe(recipe, dataset, seed=seed, held_out=held_out, judge=judge, parent=described)
    # Before anything is written, because it may reject the recipe.
    trainer = Trainer(recipe, training, seed=seed, parent=parent)
    newest = checkpoints.newest(run_dir)
    run = claim(run_dir, run, newest)
    checkpoints.remove_leftovers(run_dir)
    if parent is not None:
        checkpoints.save_parent_seen(run_dir, parent.seen)
    if newest is not None:
        trainer.restore(checkpoints.load(newest))
    if trainer.steps_done < recipe.steps:
        _check_room(run_dir, trainer, judged=judge is not None)
    score = make_judge(held.images, held.labels) if make_judge else None
    journal = Journal(run_dir, images_seen=trainer.images_seen)
    watch = Watch.of(training, conditional=recipe.conditional, seed=seed)
    keep_best = _best_keeper(trainer, run_dir, score, held.labels) if score else None
    saver = _Saver(trainer, run_dir, every_s=save_every_s)
    try:
        _train_on(
            trainer, run, run_dir, journal, watch=watch, keep_best=keep_best, saver=saver, on_progress=on_progress
        )
    except KeyboardInterrupt:
        saver.save()
        raise
    finally:
        journal.close()
    pictures.save_gif(sorted((run_dir / SHEETS).glob("*.png")), run_dir / GIF_FILE)
    draw_walks(trainer, run.class_names, run_dir / WALKS_FILE)
    return run


def _best_keeper(
    trainer: Trainer, run_dir: Path, judge: Judge, labels: npt.NDArray[np.int64]
) -> Callable[[], dict[str, float]]:
    """Make a function that scores the averaged generator and keeps the best.

    It scores as many images as were held out, or a multiple of them if these are few.
    """
    labels = np.tile(labels, -(-_FEWEST_JUDGED // len(labels)))

    def keep_best() -> dict[str, float]:
        value = judge(trainer.sample(labels, draw_latents(trainer, JUDGED_SEED, len(labels))), labels)
        best = checkpoints.best(run_dir)
        if best is None or value < best.value:
            checkpoints.save_best(
                run_dir, trainer.averaged_state(), images_seen=trainer.images_seen, value=value, n=len(labels)
            )
        return {"judge": value}

    return keep_best


def _train_on(
    trainer: Trainer,
    run: Run,
    run_dir: Path,
    journal: Journal,
    *,
    watch: Watch,
    keep_best: Callable[[], dict[str, float]] | None,
    saver: _Saver,
    on_progress: Callable[[Progress], None],
) -> None:
    recipe = trainer.recipe
    total = recipe.steps
    every_report = recipe.steps_at_once
    every_sheet = max(1, recipe.images_per_sheet // recipe.images_per_step)
    every_checkpoint = max(1, recipe.images_per_checkpoint // recipe.images_per_step)
    reported = {name for line in journal.lines for name in line.get("troubles", ())}

    def evaluate(*, ended: bool) -> dict[str, float]:
        """Write a sheet, compute image statistics and ask the judge, if they are due at this step."""
        found: dict[str, float] = {}
        if trainer.steps_done % every_sheet == 0 or ended:
            path = run_dir / SHEETS / f"{trainer.images_seen:012d}.png"
            draw_sheet(trainer, run.class_names, path)
            journal.show(path, images_seen=trainer.images_seen)
            found |= watch.statistics(trainer)
        judged = trainer.steps_done > 0 or run.parent is not None  # new networks make noise, but a parent may be best
        if keep_best and judged and (trainer.steps_done % every_checkpoint == 0 or ended):
            # Before the checkpoint, so that the judge is asked again if the process is killed in between.
            found |= keep_best()
        return found

    if trainer.steps_done == 0 or journal.images_seen < trainer.images_seen:
        evaluate(ended=trainer.steps_done == total)  # the run is new, or was interrupted before this
    # The last report belongs to the newest checkpoint.
    ended = any("ended" in line for line in journal.lines[-1:])
    while (done := trainer.steps_done) < total and not ended:
        stops = [total, *(every * (done // every + 1) for every in (every_report, every_sheet, every_checkpoint))]
        statistics, seconds = _run_to(min(stops), trainer, saver)
        at_equilibrium = _is_equilibrium(recipe, statistics)
        ended = at_equilibrium or trainer.steps_done == total
        # A training that resumed without this report would not know that it has reached the equilibrium.
        with held_back() if at_equilibrium else nullcontext():
            statistics |= evaluate(ended=ended)
            line: dict[str, Any] = {
                "images": trainer.images_seen,
                **{name: round(value, 5) for name, value in statistics.items()},
                "images_per_second": round((trainer.steps_done - done) * recipe.images_per_step / seconds, 1),
                **({"ended": "equilibrium"} if at_equilibrium else {}),
            }
            troubles = [
                trouble
                for trouble in diagnose([*journal.lines, line], recipe=recipe, judged=keep_best is not None)
                if trouble.name not in reported
            ]
            if troubles:
                line["troubles"] = [trouble.name for trouble in troubles]
                reported.update(line["troubles"])
            journal.report(line)
            on_progress(
                Progress(
                    images_seen=trainer.images_seen,
                    images_total=total * recipe.images_per_step,
                    images_per_second=line["images_per_second"],
                    statistics=statistics,
                    at_equilibrium=at_equilibrium,
                    troubles=tuple(troubles),
                )
            )
            if trainer.steps_done % every_checkpoint == 0 or ended or saver.seconds_left <= 0:
                saver.save()


def _run_to(stop: int, trainer: Trainer, saver: _Saver) -> tuple[dict[str, float], float]:
    """Train until *stop* steps are done, with the checkpoints that are due by time.

    Returns:
        The means of the statistics, and the seconds in training steps.
    """
    began, seconds = trainer.steps_done, 0.0
    sums: dict[str, float] = {}
    while (done := trainer.steps_done) < stop:
        if done > began and saver.seconds_left <= 0:
            saver.save()
        steps = min(stop - done, saver.steps_left)
        started = time.perf_counter()
        means = trainer.run(steps)
        took = time.perf_counter() - started
        saver.step_s = took / steps
        seconds += took
        sums = {name: sums.get(name, 0.0) + steps * mean for name, mean in means.items()}
    return {name: value / (stop - began) for name, value in sums.items()}, seconds


def _is_equilibrium(recipe: Recipe, statistics: dict[str, float]) -> bool:
    return abs(statistics["accuracy_generated"] - 0.5) <= recipe.equilibrium > 0


def _check(dataset: Dataset, recipe: Recipe) -> None:
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    if len(dataset) < 2:
        raise InvalidInputError(f"data set {dataset.name} has {len(dataset)} training images; expected at least 2")
    empty = [dataset.class_names[k] for k in np.flatnonzero(counts == 0)]
    if empty and recipe.conditional:
        raise InvalidInputError(
            f"data set {dataset.name} has no image of class {', '.join(empty)}; add images or remove the class"
        )


def _check_room(run_dir: Path, trainer: Trainer, *, judged: bool) -> None:
    """Check that the disk has room for the run's checkpoints and sheets."""
    state = sum(array.nbytes for array in trainer.state().values())
    present = sum(path.stat().st_size for path in (run_dir / checkpoints.FOLDER).glob("*.npz"))
    # A new checkpoint is written before the oldest is removed, so there is one more for a moment. There are also two
    # best checkpoints for a moment, each at most a third of the size of a checkpoint.
    needed = (_CHECKPOINTS_KEPT + 1 + judged) * state + _ROOM - present
    free = shutil.disk_usage(run_dir).free
    if free < needed:
        raise DataError(
            f"{run_dir} is on a disk with {free >> 20} MiB free, but the run needs {-(-needed >> 20)} MiB; "
            "free some space, or choose another folder with --out"
        )


class _Saver:
    """Writes checkpoints, and says when the next one is due by time."""

    def __init__(self, trainer: Trainer, run_dir: Path, *, every_s: float) -> None:
        self._trainer, self._run_dir, self._every_s = trainer, run_dir, every_s
        self._saved_s = time.monotonic()
        self.step_s = math.inf  # seconds per step, of the latest steps

    def save(self) -> None:
        """Write a checkpoint."""
        checkpoints.save(self._run_dir, self._trainer.images_seen, self._trainer.state(), keep=_CHECKPOINTS_KEPT)
        self._saved_s = time.monotonic()

    @property
    def seconds_left(self) -> float:
        """Seconds until a checkpoint is due, zero or below if it is due now."""
        return self._saved_s + self._every_s - time.monotonic()

    @property
    def steps_left(self) -> int:
        """Number of steps that can be taken before a checkpoint is due, at least 1."""
        return max(1, int(min(self.seconds_left / self.step_s, 1e9)))
