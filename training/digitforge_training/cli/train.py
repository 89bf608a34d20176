"""The command ``digitforge train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digitforge_client.cli.track_option import track_option
from digitforge_client.common.extras import check_extras
from digitforge_training.cli.progress import announced, say_done
from digitforge_training.cli.recipes import complete_recipe
from digitforge_training.cli.run_options import parse_overrides, run_options
from digitforge_training.data.cli import data_options
from digitforge_training.recipes import resolve

if TYPE_CHECKING:
    from digitforge_training.data.sources import Choice


@click.command()
@click.option(
    "--recipe",
    "recipe_name",
    default="forge",
    show_default=True,
    shell_complete=complete_recipe,
    help="Recipe to train. `digitforge recipes` lists them.",
)
@data_options(default="mnist")
@run_options(keep="last", judge="digitnet-64", held_out=5_000)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Number of training steps. Default: the recipe's. A larger number extends a finished run.",
)
@track_option("parameters, statistics and sheets")
@click.option("--jit/--no-jit", default=None, help="Compile the training step with XLA. Default: as the recipe says.")
def train(  # noqa: PLR0917 – click passes by name
    recipe_name: str,
    data: Choice,
    out: Path,
    steps: int | None,
    seed: int,
    overrides: tuple[str, ...],
    keep: str,
    judge: str,
    held_out: int,
    save_every_s: float,
    track: str | None,
    jit: bool | None,
    dry_run: bool,
) -> None:
    """Train a generator on labeled images, or with forge-unlabeled on images without labels.

    \b
    Examples:
      digitforge train --out runs/forge
      digitforge train --recipe forge-small --data mine.npz --out runs/mine
      digitforge train --recipe forge-unlabeled --data scans --size 28 --out runs/scans
      digitforge train --recipe forge-small --data photos --size 32 --out runs/photos
      digitforge train --steps 200 --set learning_rate=1e-4 --out runs/try
      digitforge train --track mlflow --out runs/forge

    Ctrl-C (exit status 130) and SIGTERM (143) write a checkpoint. Repeat the command to resume from it. Publish the
    finished run with `digitforge export RUN --to FOLDER`.
    """
    check_extras("training", "`digitforge train`")
    from digitforge_training import data as data_module
    from digitforge_training.runs.folder import describe
    from digitforge_training.runs.train import train as begin

    recipe = resolve(recipe_name, parse_overrides(overrides, steps=steps, jit=jit))
    dataset = data_module.load(data.source or "mnist", **data.options, need_labels=recipe.conditional)
    choice: dict[str, Any] = {"judge": judge, "held_out": held_out} if keep == "best" else {}
    if dataset.split_note:
        click.echo(dataset.split_note, err=True)
    run = describe(recipe, dataset, seed=seed, **choice)
    if dry_run:
        click.echo(json.dumps(run.as_dict(), indent=2))
        return

    with announced(run, out) as show_progress:
        trained = begin(
            recipe,
            dataset,
            out=out,
            seed=seed,
            save_every_s=save_every_s,
            track=track,
            on_progress=show_progress,
            **choice,
        )
    click.echo(f"{out}")
    if recipe.equilibrium and trained.last is not None:
        how = "at equilibrium" if trained.last.at_equilibrium else "without an equilibrium"
        click.echo(f"ended {how}, after {trained.last.images_seen // recipe.images_per_step} rounds", err=True)
    say_done(out)
