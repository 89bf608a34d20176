"""``digitforge experiment``: do synthetic digits help a classifier?"""

from __future__ import annotations

import functools
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digitforge_client.cli.scheduler_options import SCHEDULER, scheduler_of
from digitforge_client.cli.server_options import CONNECTION, optional_access, without_secrets
from digitforge_client.common.command import Group, resumable
from digitforge_client.common.numerals import grouped
from digitforge_evaluation.cli.choose_expansion import choose_expansion
from digitforge_evaluation.cli.experiment_options import (
    FOLDER,
    NOT_KEPT,
    check_origin,
    read_config_file,
    run_options,
)
from digitforge_evaluation.cli.tables import print_table

if TYPE_CHECKING:
    from digitforge_evaluation.experiment.analysis import Estimate
    from digitforge_evaluation.experiment.arms import Arm
    from digitforge_evaluation.experiment.store import CellResult
    from digitforge_evaluation.experiment_folder import State
    from digitforge_training.data.sources import Choice


@click.group(cls=Group)
def experiment() -> None:
    """Measure whether generated images help a classifier.

    An experiment draws random subsets of the real training images. On each subset, all arms train the same classifier
    for the same number of steps from the same seeds. Only the training images differ. The verdict compares classical
    augmentation with generated images (classical+gan) against classical augmentation alone (classical). It needs at
    least ten subsets, and more for many sizes and generators.

    \b
    Arms:
      real           only the real images
      oversampled    the real images, all classes drawn equally often
      noise          the real images, half of them with noise
      smote          the real images, half of them mixed with a neighbor
      classical      the real images, shifted, rotated, scaled, sheared, bent
      pseudo-labeled as classical, with more real images, which a classifier
                     labels; the fair baseline of a semi generator
      gan            real and generated images
      classical+gan  the same as gan, with the changes of classical
      classical+pretrained
                     the images of classical+gan, generated ones first
      synthetic      only generated images
      classical+oversampled
                     the same as classical, all classes drawn equally often;
                     the baseline if classes are cut

    \b
    Examples:
      digitforge experiment run --model models/digits --data digits --out runs/help
      digitforge experiment status runs/help
      digitforge experiment report runs/help
    """


experiment.add_command(choose_expansion)


@experiment.command()
@click.argument(
    "config", required=False, is_eager=True, callback=read_config_file, type=click.Path(dir_okay=False, path_type=Path)
)
@run_options
@click.pass_context
def run(
    context: click.Context,
    /,
    *,
    config: Path | None,  # noqa: ARG001 - its settings are in the other arguments
    out: Path,
    as_json: bool,
    server: str | None,
    data: Choice,
    **settings: Any,
) -> None:
    """Run an experiment and write its report.

    CONFIG is a TOML file with the options below, such as `n-per-class = [10, 100]` or `cut = { "8" = 0.01 }`. Options
    on the command line override it. A classifier of your own (MODULE:NAME) and a --scheduler run code, so they must be
    named on the command line. Each run saves its settings as experiment.toml in the output folder, which can be the
    CONFIG of another run.

    Finished cells are stored at once. After Ctrl-C, a crash or a power cut, the same command continues the run.

    \b
    Examples:
      digitforge experiment run --server localhost:8500 --n-per-class 10,100 --out runs/e
      digitforge experiment run --data digits --strict forge-small --out runs/strict
      digitforge experiment run --arms real,smote,classical --classifier forest --out runs/f
      digitforge experiment run --server localhost:8500 --cut 8=0.01 --n-per-class 100 --out runs/rare
      digitforge experiment run runs/rare/experiment.toml --out runs/again
    """
    from digitforge_evaluation.run_experiment import run_experiment

    check_origin(context)
    access = optional_access(server, **{name: settings.pop(name) for name in CONNECTION})
    scheduler = scheduler_of(**{name: settings.pop(name) for name in SCHEDULER})
    stored = "finished cells are kept"

    def count(result: CellResult | None, done: int, planned: int) -> None:
        nonlocal stored
        stored = f"{done} of {planned} cells are finished and kept"
        show(result, done, planned)

    with resumable(lambda: f"{stored}, and the same command continues"), cell_progress() as show:
        result = run_experiment(
            out,
            data=data.source or "mnist",
            **data.options,
            server=access,
            scheduler=scheduler,
            command=shlex.join(["digitforge", *without_secrets(sys.argv[1:])]),
            config={name: value for name, value in context.params.items() if name not in NOT_KEPT},
            on_cell=count,
            on_note=functools.partial(click.echo, err=True),
            **settings,
        )
    _show(result.state, result.html, as_json=as_json)


@experiment.command()
@click.argument("folders", type=FOLDER, nargs=-1, required=True, metavar="FOLDER...")
@click.option("--out", type=FOLDER, help="Folder for the report, or for a folder with each report.  [default: FOLDER]")
@click.option("--json", "as_json", is_flag=True, help="Print the analysis as JSON, one line per experiment.")
def report(*, folders: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Write the report of the experiment in FOLDER again, even while it runs.

    With several experiments, the verdicts are corrected together, over all their comparisons. Do this before you
    publish them together.

    \b
    Examples:
      digitforge experiment report runs/help
      digitforge experiment report runs/a runs/b --out reports
    """
    from digitforge_evaluation import experiment_folder

    if len(folders) == 1:
        _show(*experiment_folder.report(folders[0], out), as_json=as_json)
        return
    for folder, (state, html) in zip(folders, experiment_folder.report_together(folders, out), strict=True):
        if not as_json:
            click.echo(f"{folder}:")
        _show(state, html, as_json=as_json, indent=None)


@experiment.command()
@click.argument("folder", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def status(*, folder: Path, as_json: bool) -> None:
    """Show the progress of the experiment in FOLDER.

    \b
    Examples:
      digitforge experiment status runs/help
    """
    from digitforge_evaluation import experiment_folder

    state = experiment_folder.read(folder)
    done, planned = len(state.finished), len(state.planned)
    mean = state.analysis.seconds / done if done else None
    left = None if mean is None else mean * (planned - done)
    if as_json:
        click.echo(json.dumps({"finished": done, "planned": planned, "seconds_left": left}))
        return
    click.echo(f"{done} of {planned} cells are finished")
    if done < planned and mean is not None and left is not None:
        click.echo(f"About {left / 60:.0f} minutes left with --jobs 1, at {mean:.1f} s per cell")


@contextmanager
def cell_progress() -> Iterator[Callable[[CellResult | None, int, int], None]]:
    """Show a progress bar if standard error is a terminal. Yields the function that updates it."""
    if not sys.stderr.isatty():
        yield lambda _result, _done, _planned: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("classifiers"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=600)
    task = progress.add_task("cells", total=None)

    def on_cell(_result: CellResult | None, done: int, planned: int) -> None:
        progress.start()  # late, because TensorFlow prints while it is imported
        progress.update(task, completed=done, total=planned)

    try:
        yield on_cell
    finally:
        progress.stop()


def _show(state: State, html: Path, *, as_json: bool, indent: int | None = 2) -> None:
    if as_json:
        from digitforge_evaluation.experiment.store import as_json as fields_of

        click.echo(json.dumps({**vars(state.analysis), "report": str(html)}, default=fields_of, indent=indent))
        return
    from rich.console import Console

    console = Console(highlight=False)
    print_analysis(console, state)
    console.print(f"Report: {html}", markup=False, soft_wrap=True)


def _percent(value: Estimate | None) -> str:
    if value is None:
        return "–"
    half = f" ± {50 * (value.interval.high - value.interval.low):.2f}" if value.interval else ""
    return f"{100 * value.mean:.2f} %{half}"


def print_analysis(console: Any, state: State) -> None:
    """Print accuracies and verdicts."""
    from digitforge_evaluation.experiment.analysis import Estimate
    from digitforge_evaluation.experiment.sentences import fair_sentence, sentence

    arms = state.analysis.arms
    sizes = sorted({result.n_per_class for result in arms})
    held_out = grouped(arms[0].held_out) if arms else "the"

    def show(values: dict[tuple[Arm, int], Estimate], legend: str) -> None:
        print_table(
            console,
            ("trained on", *(f"{n} real per class" for n in sizes)),
            [
                (str(arm), *(_percent(values.get((arm, n))) for n in sizes))
                for arm in dict.fromkeys(result.arm for result in arms)
            ],
        )
        interval = ", mean ± 95 % interval over subsets" if any(v and v.interval for v in values.values()) else ""
        console.print(f"{legend}{interval}.", style="dim")

    show(
        {(r.arm, r.n_per_class): Estimate(mean=r.accuracy, interval=r.interval) for r in arms},
        f"Accuracy on {held_out} held-out images",
    )
    rare = {(r.arm, r.n_per_class): r.minority for r in arms if r.minority}
    if rare:
        console.print()
        show(rare, "Recall of the cut classes")
    for comparison in state.analysis.primary:
        console.print()
        console.print(
            sentence(comparison, classes=len(state.facts.class_names), measure=state.analysis.measure), markup=False
        )
    for comparison in state.analysis.fair:
        console.print()
        console.print(fair_sentence(comparison), markup=False)
    for note in state.facts.notes:
        console.print()
        console.print(f"Caution: {note}", markup=False)
    if len(state.finished) < len(state.planned):
        console.print(f"Unfinished: {len(state.finished)} of {len(state.planned)} cells are finished.", markup=False)
