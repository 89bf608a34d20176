"""A training by the name of its recipe, as `digitforge train` and `digitforge.train` begin it.

Imports without TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digitforge_client.common.command import import_quietly
from digitforge_training.data import Dataset, load
from digitforge_training.recipes import Recipe, resolve, written

if TYPE_CHECKING:
    from digitforge_training.runs.loop import Progress

#: Training images kept for a judge.
HELD_OUT = 5_000


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainedRun:
    """A run folder and what it was trained on: what `digitforge.export` takes."""

    folder: Path
    data: Dataset
    recipe: Recipe
    last: Progress | None  # the last report of this call; None: nothing was left to train


def train(
    recipe: str | Recipe,
    data: Dataset | str | Path,
    *,
    out: str | Path,
    seed: int = 0,
    judge: str | None = None,
    held_out: int = HELD_OUT,
    on_progress: Callable[[Progress], None] = lambda _: None,
    **fields: Any,
) -> TrainedRun:
    """Train a generator into a folder. The same call goes on where an earlier one stopped.

    ::

        data = digitforge.load_data("digits")
        run = digitforge.train("forge-small", data, out="runs/mine", steps=2000)
        digitforge.export(run, to="models/digits")

    Args:
        recipe: a name in `digitforge.RECIPES`, or a recipe.
        data: labeled images, or a source that `digitforge.load_data` takes, whose training split is used.
        out: the run folder; made if need be.
        seed: of all randomness, 0 and up.
        judge: who chooses the checkpoint that is exported, such as ``digitnet-64``; None: the newest is exported.
        held_out: training images that are kept for the judge, and not trained on.
        on_progress: called with each report.
        **fields: of the recipe, to be replaced, such as ``steps=500`` or ``generator_widths=(256, 512)``; None leaves
            a field as it is.

    Raises:
        InvalidInputError: there is no such recipe, field or judge, or the recipe cannot be trained on these images.
        DataError: the data cannot be read, the folder cannot be written or holds a different run.
    """
    changes = {name: value for name, value in fields.items() if value is not None}
    if isinstance(recipe, str):
        recipe = resolve(recipe, {name: written(value) for name, value in changes.items()})
    else:
        recipe = dataclasses.replace(recipe, **changes)
    dataset = data if isinstance(data, Dataset) else load(data)
    import_quietly("tensorflow")  # late, so that wrong arguments are answered at once
    from digitforge_training.runs import loop

    last: list[Progress] = []

    def report(progress: Progress) -> None:
        last[:] = [progress]
        on_progress(progress)

    run = loop.train(
        recipe,
        dataset,
        run_dir=Path(out),
        seed=seed,
        held_out=held_out if judge else 0,
        judge=judge,
        on_progress=report,
    )
    return TrainedRun(folder=Path(out), data=dataset, recipe=run.recipe, last=last[0] if last else None)
