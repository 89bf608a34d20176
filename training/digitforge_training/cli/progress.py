"""What a command prints while it trains: the start, the progress, and how to continue."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from digitforge_client.common.command import import_quietly, resumable
from digitforge_client.common.interrupts import announcing

if TYPE_CHECKING:
    from digitforge_training.runs.folder import Run
    from digitforge_training.runs.loop import Progress


@contextlib.contextmanager
def announced(run: Run, out: Path) -> Iterator[Callable[[Progress], None]]:
    """Announce a training into *out*, show its progress, and say how to continue if it is stopped."""
    from digitforge_training.runs import checkpoints

    def kept() -> str:
        how = (
            "there is no checkpoint yet, so the same command starts over"
            if checkpoints.newest(out) is None
            else f"the same command resumes from the checkpoint in {out}"
        )
        return f"{how}:\n  {shlex.join(['digitforge', *sys.argv[1:]])}"

    recipe, data = run.recipe, run.training_data
    parent = f", from generator {run.parent['generator_id']}" if run.parent else ""
    classes = f"{len(run.class_names)} classes" if recipe.conditional else "labels not used"
    held = f"; {run.held_out} others held out for the judge" if run.held_out else ""
    with resumable(kept):
        click.echo(
            f"{recipe.name}{parent}: {recipe.steps} steps of {recipe.batch_size} images on {data['name']} "
            f"({data['images']} images, {classes}{held}), seed {run.seed}, into {out}",
            err=True,
        )
        import_quietly("tensorflow")  # before the progress line appears, which TensorFlow's log would break
        with _live_line() as show_progress, announcing(_say_stopping):
            yield show_progress


def say_done(out: Path) -> None:
    """Say how to publish a finished run."""
    publish = shlex.join(["digitforge", "export", str(out), "--to", "models/digits"])
    click.echo(f"done; publish it with: {publish}", err=True)


def _say_stopping() -> None:
    click.echo(
        "\nstopping: the current step ends first, then a checkpoint is written. "
        "A second Ctrl-C or SIGTERM stops at once, without a checkpoint.",
        err=True,
    )


@contextlib.contextmanager
def _live_line() -> Iterator[Callable[[Progress], None]]:
    """Report progress on one live line of a terminal, elsewhere as a plain line every 5 %."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("compiling the training step") as status:

            def live(progress: Progress) -> None:
                status.update(_describe(progress))
                for line in _warnings(progress):
                    console.print(line, markup=False, highlight=False, soft_wrap=True)

            yield live
        return
    printed = -1

    def plain(progress: Progress) -> None:
        nonlocal printed
        twentieth = 20 * progress.images_seen // progress.images_total
        if twentieth > printed:
            printed = twentieth
            click.echo(_describe(progress), err=True)
        for line in _warnings(progress):
            click.echo(line, err=True)

    yield plain


def _warnings(progress: Progress) -> Iterator[str]:
    for trouble in progress.troubles:
        yield f"after {progress.images_seen} images: {trouble.seen}. To fix it, {trouble.remedy}"


def _describe(progress: Progress) -> str:
    left = (progress.images_total - progress.images_seen) / progress.images_per_second
    values = progress.statistics
    return (
        f"{progress.images_seen / progress.images_total:4.0%}  D {values['discriminator_loss']:.2f}  "
        f"G {values['generator_loss']:.2f}  real {values['accuracy_real']:.0%}  "
        f"generated {values['accuracy_generated']:.0%}  "
        f"{progress.images_per_second:.0f} images/s  {left / 60:.0f} min left"
    )
