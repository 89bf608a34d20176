"""A run's description, ``recipe.json``: the recipe, the data and the seed.

Needs no TensorFlow, so that a wrong folder is reported at once.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

from digitforge_client.common.files import make_folder, replacing
from digitforge_client.common.json_text import parse_json
from digitforge_client.errors import DataError
from digitforge_training.data import Dataset
from digitforge_training.data.dataset import DataSource
from digitforge_training.recipes import Recipe, from_dict
from digitforge_training.runs import checkpoints
from digitforge_training.runs.judging import hold_out

RUN_FILE: Final = "recipe.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The description of a run."""

    recipe: Recipe  #: The resolved recipe.
    training_data: dict[str, Any]  #: ``name``, ``split``, ``images`` and ``sha256``, without the held-out images.
    held_out: int  #: Number of images held out for the judge.
    judge: str | None  #: Judge that chooses the checkpoint to export. None: the newest checkpoint.
    class_names: tuple[str, ...]  #: Empty if the generator takes no classes.
    image_shape: tuple[int, int, int]  #: (H, W, C).
    seed: int  #: Seed of all random numbers.
    #: ``generator_id``, ``recipe`` and ``training_data`` of the generator that the training started from. None: it
    #: started from new weights.
    parent: dict[str, Any] | None = None
    #: Steps at which the run had finished before it was extended. Ignored when runs are compared.
    earlier_steps: tuple[int, ...] = dataclasses.field(default=(), compare=False)
    #: Where the images were read. None if they came from elsewhere. Ignored when runs are compared: files may move.
    origin: DataSource | None = dataclasses.field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The run as JSON-ready data."""
        return {**dataclasses.asdict(self), "recipe": self.recipe.as_dict()}

    def with_name_of(self, other: Run) -> Run:
        """This run, with the data set's name from *other* if both have the same images: a file may be renamed."""
        if self.training_data["sha256"] != other.training_data["sha256"]:
            return self
        return dataclasses.replace(self, training_data=self.training_data | {"name": other.training_data["name"]})


def describe(
    recipe: Recipe,
    dataset: Dataset,
    *,
    seed: int,
    held_out: int = 0,
    judge: str | None = None,
    parent: dict[str, Any] | None = None,
) -> Run:
    """Describe the training of *recipe* on *dataset* without *held_out* of its images. Writes nothing."""
    origin = dataset.origin
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
        parent=parent,
        origin=origin,
    )


def read_run(run_dir: Path) -> Run:
    """Read a run folder's description.

    Raises:
        DataError: the folder holds no run, or a damaged one.
    """
    path = run_dir / RUN_FILE
    try:
        values = parse_json(path.read_bytes())
        return Run(
            recipe=from_dict(values["recipe"]),
            training_data=values["training_data"],
            held_out=values["held_out"],
            judge=values["judge"],
            class_names=tuple(values["class_names"]),
            image_shape=tuple(values["image_shape"]),
            seed=values["seed"],
            parent=values.get("parent"),
            earlier_steps=tuple(values.get("earlier_steps", ())),
            origin=DataSource(**origin) if (origin := values.get("origin")) else None,
        )
    except FileNotFoundError as error:
        raise DataError(
            f"{run_dir} is not a run folder: {path} is missing; `digitforge train --out FOLDER` creates a run"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error!r}; train again into another folder") from error


def claim(run_dir: Path, run: Run, newest: Path | None) -> Run:
    """Write *run* into an empty folder, or check that the folder holds the same run or one that *run* extends.

    Args:
        run_dir: the run folder.
        run: the requested run.
        newest: the newest checkpoint in the folder.

    Returns:
        *run* with its `earlier_steps`, and with the origin of its images if they have none now.

    Raises:
        DataError: the folder cannot be written, holds a different run, or holds a run that *run* cannot extend.
    """
    path = run_dir / RUN_FILE
    if path.exists():
        here = read_run(run_dir)
        run = run.with_name_of(here)
        run = dataclasses.replace(run, earlier_steps=here.earlier_steps, origin=run.origin or here.origin)
        if here != run:
            run = _extended(here, run, run_dir, newest)
        elif here.origin == run.origin:
            return here
    make_folder(run_dir)
    with replacing(path) as file:
        file.write(json.dumps(run.as_dict(), indent=2).encode() + b"\n")
    return run


def _extended(here: Run, run: Run, run_dir: Path, newest: Path | None) -> Run:
    recipe, steps = run.recipe, here.recipe.steps
    if here != dataclasses.replace(run, recipe=dataclasses.replace(recipe, steps=steps)):
        raise DataError(
            f"{run_dir} holds another run, with another recipe, data set or seed (see {run_dir / RUN_FILE}); "
            "choose another folder with --out, or remove this one"
        )
    if recipe.steps < steps:
        raise DataError(
            f"{run_dir} holds this run with {steps} steps, which is more than --steps {recipe.steps}; "
            f"use --steps {steps} or more, or choose another folder with --out"
        )
    if newest is None or checkpoints.images_of(newest) != steps * recipe.images_per_step:
        raise DataError(
            f"{run_dir} holds this run with {steps} steps, which are not finished; "
            f"finish them with --steps {steps} before you extend the run to {recipe.steps}, "
            "or choose another folder with --out"
        )
    return dataclasses.replace(run, earlier_steps=(*here.earlier_steps, steps))
