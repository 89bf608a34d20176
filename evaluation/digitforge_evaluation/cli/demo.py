"""``digitforge demo``: show everything in a few minutes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from digitforge_client.cli.renamed import renamed
from digitforge_client.common.command import resumable
from digitforge_client.common.extras import check_extras
from digitforge_evaluation.cli.tables import print_table

if TYPE_CHECKING:
    from rich.console import Console

    from digitforge_evaluation.experiment_folder import State
    from digitforge_evaluation.quality.assess import Report
    from digitforge_evaluation.quality.reference import Floor

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.option(
    "--out",
    type=_FOLDER,
    default="digitforge-demo",
    show_default=True,
    help="Folder for the report. An earlier report in it is replaced.",
)
@click.option(
    "--data-dir",
    type=_FOLDER,
    envvar="DIGITFORGE_DATA_DIR",
    show_envvar=True,
    help="Folder with the four MNIST files. Default: the cache, filled by a download if needed. If the download fails, "
    "the demo uses scikit-learn's digits.",
)
@click.option("--model", type=_FOLDER, help="Folder of a generator's versions.  [default: the shipped generator]")
@click.option(
    "--n", "-n", type=click.IntRange(min=100), default=10_000, show_default=True, help="Digits to request and measure."
)
@click.option(
    "--subsets",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Subsets of 100 real images. A verdict needs at least 10.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=300, show_default=True, help="Optimizer steps of each classifier."
)
@click.option("--seed", type=click.IntRange(0, 2**21 - 1), default=0, show_default=True, help="Random seed.")
@renamed("--model-base-path", "--model")
@renamed("--digits", "--n")
@renamed("--repeats", "--subsets")
def demo(*, out: Path, **settings: Any) -> None:
    """Serve the shipped generator, request digits, measure them, and test whether they help a classifier.

    The demo starts the embedded server on a free port and requests labeled digits over gRPC. It measures how close
    they are to real digits, trains classifiers on 100 real images with and without them, and writes a report. This
    takes about eight minutes on two otherwise idle cores, and prints each result when it is there. Without a network,
    it uses scikit-learn's digits instead of MNIST.

    \b
    Examples:
      digitforge demo
      digitforge demo --n 1000 --subsets 3 --out quick
    """
    check_extras("evaluation,serving", "`digitforge demo`")
    from digitforge_evaluation.demo import demo as job

    with resumable(lambda: "nothing is kept, and the same command starts over"), _Screen() as screen:
        outcome = job.run(
            out, job.Settings(**settings), listener=screen, command=shlex.join(["digitforge", *sys.argv[1:]])
        )
        with screen.results() as console:
            console.print()
            console.print(f"Report: {outcome.html.resolve()}", markup=False, soft_wrap=True)


class _Screen:
    """Prints each result when it is there, and the stages. Shows a progress bar if standard error is a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False)
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(
            TextColumn("  "),
            *columns,
            console=self._console,
            transient=True,
            speed_estimate_period=600,
            redirect_stdout=False,  # results belong to standard output
        )
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def stage(self, name: str) -> None:
        """Print the stage, and remove the previous stage's bar."""
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        self._console.print(f"{name} …", markup=False, style="dim")

    def progress(self, done: int, total: int) -> None:
        """Update the bar."""
        if self._task is None:
            self._task = self._bar.add_task("", total=total)
        self._bar.update(self._task, completed=done, total=total)

    @contextmanager
    def results(self) -> Iterator[Console]:
        """A console for results. The bar is hidden meanwhile."""
        from rich.console import Console

        self._bar.stop()
        yield Console(highlight=False)
        sys.stdout.flush()
        if self._console.is_terminal:
            self._bar.start()

    def connected(self, card: Mapping[str, Any], notes: tuple[str, ...]) -> None:
        """Print what the generator was trained on."""
        data = card["training_data"]
        with self.results() as console:
            for note in notes:
                console.print(note, markup=False)
            console.print(
                f"Generator {card['generator_id']} of recipe {card['recipe']} was trained on {data['images']} images "
                f"of {data['name']} {data['split']}.",
                markup=False,
            )

    def requested(self, n: int, seconds: float) -> None:
        """Print how fast the digits came."""
        with self.results() as console:
            console.print(
                f"The server sent {n} labeled digits over gRPC in {seconds:.1f} s, {n / seconds:.0f} per second.",
                markup=False,
            )

    def measured(self, quality: Report) -> None:
        """Print the metrics."""
        with self.results() as console:
            _heading(console, "How good are they?")
            _print_quality(console, quality)

    def tested(self, state: State, real: str) -> None:
        """Print accuracies and verdicts."""
        from digitforge_evaluation.cli.experiment import print_analysis

        with self.results() as console:
            _heading(console, f"Do they help a classifier with 100 real images of {real}?")
            print_analysis(console, state)


def _heading(console: Any, text: str) -> None:
    console.print()
    console.print(text, markup=False, style="bold")


def _print_quality(console: Any, quality: Report) -> None:
    def mean(floor: Floor | None) -> str:
        return "" if floor is None else f"{floor.mean:.4g}"

    print_table(
        console,
        ("metric", "generated", "training floor", "unseen floor"),
        [
            (each.name, f"{each.value:.4g}", mean(each.training_floor), mean(each.unseen_floor))
            for each in quality.figures
        ],
    )
    console.print(
        "The floors are the scores of real digits: training digits, and held-out digits that no generator has seen.",
        style="dim",
    )
    for note in quality.notes:
        console.print(f"Note: {note}", markup=False, style="dim")
