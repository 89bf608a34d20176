"""What a run folder is about: the recipe, the data and the seed, in its recipe.json.

Nothing here needs TensorFlow, so what a folder cannot do is said at once.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

from digitforge_client.common.files import replacing
from digitforge_client.errors import DataError
from digitforge_training.data import Dataset
from digitforge_training.recipes import Recipe, from_dict
from digitforge_training.runs import checkpoints
from digitforge_training.runs.checkpoints import make_folder
from digitforge_training.runs.judging import hold_out

RUN_FILE: Final = "recipe.json"


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
    # Where the training had ended before it was prolonged. History, which makes no other run of it.
    earlier_steps: tuple[int, ...] = dataclasses.field(default=(), compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The run as JSON-ready data."""
        return {**dataclasses.asdict(self), "recipe": self.recipe.as_dict()}


def describe(recipe: Recipe, dataset: Dataset, *, seed: int, held_out: int = 0, judge: str | None = None) -> Run:
    """What training *recipe* on *dataset*, less *held_out* images, would be, before anything is written."""
    dataset, _ = hold_out(dataset, held_out, seed=seed)
    return Run(
        recipe=recipe,
        training_data={
            "name": dataset.name,
            "split": dataset.split,
            "images": len(dataset),
            "sha256": dataset.sha256,
        },
        held_out=held_out,
        judge=judge,
        class_names=dataset.class_names if recipe.conditional else (),
        image_shape=dataset.images.shape[1:],
        seed=seed,
    )


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
            earlier_steps=tuple(values.get("earlier_steps", ())),
        )
    except FileNotFoundError as error:
        raise DataError(f"{run_dir} holds no run: {path} is missing; `digitforge train --out` makes one") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}; train again into another folder") from error


def claim(run_dir: Path, run: Run, newest: Path | None) -> Run:
    """Write the description of the run, or find that the folder holds the same one, or one to prolong.

    Args:
        run_dir: the folder.
        run: what is asked for.
        newest: the folder's newest checkpoint.

    Returns:
        *run* with its history.

    Raises:
        DataError: the folder cannot be written, or holds a different run, or one that cannot be prolonged so.
    """
    path = run_dir / RUN_FILE
    if path.exists():
        here = read_run(run_dir)
        if here == run:
            return here
        run = _prolonged(here, run, run_dir, newest)
    make_folder(run_dir)
    with replacing(path) as file:
        file.write(json.dumps(run.as_dict(), indent=2).encode() + b"\n")
    return run


def _prolonged(here: Run, run: Run, run_dir: Path, newest: Path | None) -> Run:
    recipe, steps = run.recipe, here.recipe.steps
    if here != dataclasses.replace(run, recipe=dataclasses.replace(recipe, steps=steps)):
        raise DataError(
            f"{run_dir} holds another run (another recipe, data set or seed, see {run_dir / RUN_FILE}); "
            "choose another folder with --out, or remove this one"
        )
    if recipe.steps < steps:
        raise DataError(
            f"{run_dir} holds this run with {steps} steps, and {recipe.steps} are asked for; "
            f"go on with --steps {steps} or more, or choose another folder with --out"
        )
    if newest is None or checkpoints.images_of(newest) != steps * recipe.images_per_step:
        raise DataError(
            f"{run_dir} holds this run with {steps} steps, which it has not finished; "
            f"finish it with --steps {steps} before it is prolonged to {recipe.steps}, "
            "or choose another folder with --out"
        )
    return dataclasses.replace(run, earlier_steps=(*here.earlier_steps, steps))
