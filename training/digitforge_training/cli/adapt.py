"""The command ``digitforge adapt``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digitforge_client.common.extras import check_extras
from digitforge_client.contract import MODEL_NAME
from digitforge_training.cli.progress import announced, say_done
from digitforge_training.cli.run_options import parse_overrides, run_options
from digitforge_training.data.cli import data_options

if TYPE_CHECKING:
    from digitforge_training.data.sources import Choice


@click.command()
@click.argument("generator", type=click.Path(path_type=Path), required=False)
@data_options(default=None)
@run_options(keep="best", judge="kernel", held_out=None)
@click.option("--steps", type=click.IntRange(min=1), help="Number of training steps.  [default: 150]")
def adapt(  # noqa: PLR0917 – click passes by name
    generator: Path | None,
    data: Choice,
    out: Path,
    steps: int | None,
    seed: int,
    overrides: tuple[str, ...],
    keep: str,
    judge: str,
    held_out: int | None,
    save_every_s: float,
    dry_run: bool,
) -> None:
    """Fine-tune an exported generator on a few images of your own.

    GENERATOR is a folder that `digitforge export` wrote, or the folder of its versions. Default: the generator that
    comes with digitforge. Your images need its size and its classes. A hundred images take a few minutes.

    \b
    Examples:
      digitforge adapt --data mine.npz --out runs/mine
      digitforge adapt models/digits --data photos --size 28 --channels gray --out runs/photos

    Ctrl-C and SIGTERM write a checkpoint, as in `digitforge train`. Repeat the command to resume from it. Publish the
    finished run with `digitforge export RUN --to FOLDER`. Its card names the generator that it was adapted from.
    """
    check_extras("training", "`digitforge adapt`")
    from digitforge_client.common.shipped import shipped_models
    from digitforge_training import adaptation
    from digitforge_training import data as data_module
    from digitforge_training.runs.folder import describe

    if data.source is None:
        raise click.UsageError("Missing option '--data'.")
    dataset = data_module.load(data.source, **data.options)
    if dataset.split_note:
        click.echo(dataset.split_note, err=True)
    parent = adaptation.read_parent(generator or shipped_models() / MODEL_NAME)
    adaptation.check_fits(parent, dataset)
    recipe = adaptation.recipe_for(parent, **parse_overrides(overrides, steps=steps))
    choice: dict[str, Any] = {}
    if keep == "best":
        choice = {"judge": judge, "held_out": held_out or adaptation.held_out_of(dataset)}
    run = describe(recipe, dataset, seed=seed, parent=parent.described, **choice)
    if dry_run:
        click.echo(json.dumps(run.as_dict(), indent=2))
        return
    with announced(run, out) as show_progress:
        adaptation.adapt(
            parent,
            dataset,
            out=out,
            recipe=recipe,
            seed=seed,
            save_every_s=save_every_s,
            on_progress=show_progress,
            **choice,
        )
    click.echo(f"{out}")
    say_done(out)
