"""``digitforge.train``. Importing this module does not import TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digitforge_client.common.command import import_quietly
from digitforge_training.data import Dataset, DataSource, load
from digitforge_training.recipes import Recipe, resolve, written

if TYPE_CHECKING:
    from digitforge_training.gan.parent import Parent
    from digitforge_training.runs.loop import Progress

#: Default number of images held out for a judge.
HELD_OUT = 5_000
#: Default number of seconds between two checkpoints.
SAVE_EVERY_S = 600.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainedRun:
    """The result of `digitforge.train`. `digitforge.export` takes it."""

    folder: Path  #: The run folder.
    data: Dataset  #: The data set, including held-out images.
    recipe: Recipe  #: The resolved recipe.
    last: Progress | None  #: The last report of this call. None if there was nothing left to train.


def train(
    recipe: str | Recipe,
    data: Dataset | str | Path | DataSource,
    *,
    out: str | Path,
    seed: int = 0,
    judge: str | None = None,
    held_out: int = HELD_OUT,
    parent: Parent | None = None,
    save_every_s: float = SAVE_EVERY_S,
    track: str | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    **fields: Any,
) -> TrainedRun:
    """Train a generator into a run folder. The same call resumes a stopped training.

    ::

        data = digitforge.load_data("digits")
        run = digitforge.train("forge-small", data, out="runs/mine", steps=2000)
        digitforge.export(run, to="models/digits")

    Args:
        recipe: a name in `digitforge.RECIPES`, or a recipe.
        data: labeled images, or a source for `digitforge.load_data`, whose training split is used. For other options,
            give a `digitforge.DataSource`, such as ``DataSource(source="photos", size=32)``.
        out: the run folder, created if needed.
        seed: seed of all random numbers, 0 or above.
        judge: judge that chooses the checkpoint to export, for example ``digitnet-64``. None exports the newest.
        held_out: number of images held out for the judge. They are not trained on.
        parent: a generator to start from. `digitforge.adapt` reads one.
        save_every_s: seconds between two checkpoints, above 0. The recipe's `images_per_checkpoint` adds others.
        track: ``mlflow`` also sends parameters, statistics and sheets to MLflow. If MLflow goes away, the training goes
            on.
        on_progress: called with each report.
        **fields: recipe fields to override, for example ``steps=500`` or ``generator_widths=(256, 512)``. None keeps
            the recipe's value.

    Raises:
        InvalidInputError: the recipe, a field or the judge does not exist, or the recipe cannot train on these images.
        DataError: the data cannot be read, or the folder cannot be written or holds a different run.
        MissingExtraError: MLflow is not installed.
        DigitforgeError: MLflow cannot be reached at the start or at the end.
    """
    changes = {name: value for name, value in fields.items() if value is not None}
    if isinstance(recipe, str):
        recipe = resolve(recipe, {name: written(value) for name, value in changes.items()})
    else:
        recipe = dataclasses.replace(recipe, **changes)
    dataset = data if isinstance(data, Dataset) else load(data, need_labels=recipe.conditional)
    import_quietly("tensorflow")  # late, so that wrong arguments fail at once
    from digitforge_training.runs import loop
    from digitforge_training.runs.tracking import tracked

    last: list[Progress] = []

    def report(progress: Progress) -> None:
        last[:] = [progress]
        on_progress(progress)
        send(progress)

    with tracked(Path(out), tracker=track) if track else nullcontext(lambda _: None) as send:
        run = loop.train(
            recipe,
            dataset,
            run_dir=Path(out),
            seed=seed,
            held_out=held_out if judge else 0,
            judge=judge,
            parent=parent,
            save_every_s=save_every_s,
            on_progress=report,
        )
    return TrainedRun(folder=Path(out), data=dataset, recipe=run.recipe, last=last[0] if last else None)
