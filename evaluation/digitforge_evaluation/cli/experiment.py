"""``digitforge experiment``: do synthetic digits help a classifier?"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digitforge_evaluation.cli.experiment_options import FOLDER, NOT_KEPT, read_config_file, run_options

if TYPE_CHECKING:
    from digitforge_evaluation.experiment.analysis import Estimate
    from digitforge_evaluation.experiment.arms import Arm
    from digitforge_evaluation.experiment.store import CellResult
    from digitforge_evaluation.experiment_folder import State


@click.group()
def experiment() -> None:
    """Train a classifier with and without synthetic digits, and say whether they help.

    The unit is a random subset of the real training images. On every subset each arm trains the same classifier for
    the same number of steps from the same seed: arms differ in their training images only. A verdict is taken on
    classical augmentation with generated digits against classical augmentation alone, and needs ten subsets.

    \b
    Arms:
      real           the real images alone
      oversampled    the real images, every class drawn equally often
      noise, smote   half of them changed by noise, or mixed with a neighbor
      classical      the real images, shifted, turned, scaled, sheared and bent
      gan            real images and generated digits
      classical+gan  the same, and all shifted, turned, scaled, sheared and bent
      synthetic      generated digits alone
      classical+oversampled   classical, every class drawn equally often: the
                              baseline where classes are cut
    """


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
    config: Path | None,  # noqa: ARG001 - its settings have arrived in the other arguments
    out: Path,
    as_json: bool,
    **settings: Any,
) -> None:
    """Run an experiment and write its report.

    CONFIG is a TOML file with these options by name, as `n-per-class = [10, 100]` or `cut = { "8" = 0.01 }`; options
    given here go before it. The settings are kept as experiment.toml beside the results, which CONFIG may name.

    Every finished cell is stored at once. After Ctrl-C, a crash or a power cut, the same command goes on from there.

    \b
    Examples:
      digitforge experiment run --server localhost:8500 --n-per-class 10,100 --out runs/e
      digitforge experiment run --data digits --strict forge-small --out runs/strict
      digitforge experiment run --arms real,smote,classical --classifier forest --out runs/f
      digitforge experiment run --server localhost:8500 --cut 8=0.01 --n-per-class 100 --out runs/rare
      digitforge experiment run runs/rare/experiment.toml --out runs/again
    """
    from digitforge_evaluation.run_experiment import run_experiment

    with cell_progress() as on_cell:
        result = run_experiment(
            out,
            command=shlex.join(["digitforge", *sys.argv[1:]]),
            config={name: value for name, value in context.params.items() if name not in NOT_KEPT},
            on_cell=on_cell,
            **settings,
        )
    _show(result.state, result.html, as_json=as_json)


@experiment.command()
@click.argument("folder", type=FOLDER)
@click.option("--out", type=FOLDER, help="Where to write the report, instead of FOLDER.")
@click.option("--json", "as_json", is_flag=True, help="Print the analysis as JSON.")
def report(*, folder: Path, out: Path | None, as_json: bool) -> None:
    """Write the report of FOLDER anew, even while it runs."""
    from digitforge_evaluation import experiment_folder

    _show(*experiment_folder.report(folder, out), as_json=as_json)


@experiment.command()
@click.argument("folder", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def status(*, folder: Path, as_json: bool) -> None:
    """Say how far FOLDER is."""
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
        click.echo(f"{mean:.1f} s per cell so far: about {left / 60:.0f} minutes left with --jobs 1")


@contextmanager
def cell_progress() -> Iterator[Callable[[CellResult | None, int, int], None]]:
    """A bar on standard error if that is a terminal; gives the function that moves it."""
    if not sys.stderr.isatty():
        yield lambda _result, _done, _planned: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("classifiers"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=600)
    task = progress.add_task("cells", total=None)

    def on_cell(_result: CellResult | None, done: int, planned: int) -> None:
        progress.start()  # not before the first cell: importing TensorFlow would disturb it
        progress.update(task, completed=done, total=planned)

    try:
        yield on_cell
    finally:
        progress.stop()


def _show(state: State, html: Path, *, as_json: bool) -> None:
    if as_json:
        from digitforge_evaluation.experiment.store import as_json as fields_of

        click.echo(json.dumps({**vars(state.analysis), "report": str(html)}, default=fields_of, indent=2))
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
    """Print accuracies and verdicts, at the console's width."""
    from rich.table import Table

    from digitforge_evaluation.experiment.analysis import Estimate
    from digitforge_evaluation.experiment.sentences import sentence

    arms = state.analysis.arms
    sizes = sorted({result.n_per_class for result in arms})

    def show(values: dict[tuple[Arm, int], Estimate], legend: str) -> None:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("trained on")
        for n in sizes:
            table.add_column(f"{n} real per class", justify="right")
        for arm in dict.fromkeys(result.arm for result in arms):
            table.add_row(str(arm), *(_percent(values.get((arm, n))) for n in sizes))
        console.print(table)
        console.print(f"{legend}: mean ± 95 % interval over subsets.", style="dim")

    show({(r.arm, r.n_per_class): Estimate(mean=r.accuracy, interval=r.interval) for r in arms}, "Accuracy")
    rare = {(r.arm, r.n_per_class): r.minority for r in arms if r.minority}
    if rare:
        console.print()
        show(rare, "Recall of the classes that are cut")
    for comparison in state.analysis.primary:
        console.print()
        console.print(
            sentence(comparison, classes=len(state.facts.class_names), measure=state.analysis.measure), markup=False
        )
    if len(state.finished) < len(state.planned):
        console.print(f"Unfinished: {len(state.finished)} of {len(state.planned)} cells.", markup=False)
