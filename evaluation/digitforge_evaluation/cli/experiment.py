"""``digitforge experiment``: do synthetic digits help a classifier?"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digitforge_client.common.command import import_quietly
from digitforge_client.errors import InvalidInputError

if TYPE_CHECKING:
    from digitforge_evaluation.experiment.analysis import Estimate
    from digitforge_evaluation.experiment.store import CellResult
    from digitforge_evaluation.experiment_folder import State

_FOLDER = click.Path(file_okay=False, path_type=Path)


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


class _List(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """Values between commas, or a list in a file."""

    def __init__(self, kind: Callable[[str], Any], example: str) -> None:
        self.name = f"{kind.__name__} list"
        self._kind, self._example = kind, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        try:
            parts = value if isinstance(value, list | tuple) else str(value).split(",")
            return tuple(self._kind(str(part).strip()) for part in parts)
        except ValueError:
            self.fail(f"{value!r}; expected {self._example}", param, ctx)


class _Shares(click.ParamType):  # type: ignore[type-arg]
    """Names with shares: ``8=0.01,9=0.1``, or a table in a file."""

    name = "shares"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        try:
            pairs = value if isinstance(value, dict) else dict(part.rsplit("=", 1) for part in str(value).split(","))
            return {str(name).strip(): float(share) for name, share in pairs.items()}
        except (TypeError, ValueError):
            self.fail(f"{value!r}; expected classes and the share that is kept, like 8=0.01,9=0.1", param, ctx)


_SIZES = _List(int, "whole numbers separated by commas, like 10,100")
_RATIOS = _List(float, "numbers separated by commas, like 0.5,1,5,50")
_ARMS = _List(str, "names separated by commas")


def _read_config(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    """Let the file's settings be the defaults of this call: options on the command line go before them."""
    if value is not None:
        from digitforge_evaluation.experiment.configuration import read_config

        options = {option.name for option in context.command.params if isinstance(option, click.Option)}
        known = {name for name in options if name and name not in _NOT_IN_A_FILE}
        context.default_map = read_config(value, known=known)
    return value


#: What is said on the command line alone.
_NOT_IN_A_FILE = ("as_json", "help")
#: What does not change a result, and so is not kept with it.
_NOT_KEPT = ("config", "out", "as_json", "jobs", "scheduler", "data_dir")


@experiment.command()
@click.argument(
    "config", required=False, is_eager=True, callback=_read_config, type=click.Path(dir_okay=False, path_type=Path)
)
@click.option("--server", metavar="HOST:PORT", help="A running server whose generator makes the digits.")
@click.option(
    "--model",
    type=_FOLDER,
    multiple=True,
    help="Instead, an exported generator: its folder, or that of its versions. Several are compared.",
)
@click.option(
    "--strict",
    metavar="RECIPE",
    help="Add strict arms: train a generator of this recipe inside, on each subset's images alone. Slow; trained "
    "generators are kept in the output folder.",
)
@click.option("--strict-steps", type=click.IntRange(min=1), help="Training steps of those, instead of the recipe's.")
@click.option(
    "--data",
    default="mnist",
    show_default=True,
    help="Real images: mnist, digits, a folder or an .npz, as for `digitforge train`.",
)
@click.option(
    "--data-dir", type=_FOLDER, envvar="DIGITFORGE_DATA_DIR", show_envvar=True, help="Folder with MNIST's four files."
)
@click.option("--transpose", is_flag=True, help="Swap rows and columns of IDX images, as EMNIST needs it.")
@click.option("--arms", type=_ARMS, metavar="ARM,ARM,…", help="Only these.  [default: all that can be had]")
@click.option(
    "--n-per-class", type=_SIZES, default="10", show_default=True, metavar="N,N,…", help="Real images per class."
)
@click.option(
    "--curve",
    type=_SIZES,
    default=(),
    metavar="N,N,…",
    help="Further sizes for the baseline alone: from its learning curve follows what generated digits are worth in "
    "real images.",
)
@click.option("--subsets", type=click.IntRange(min=1), default=10, show_default=True, help="Subsets per size.")
@click.option(
    "--replicates",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Classifier seeds and generator draws inside each subset.",
)
@click.option(
    "--classifier",
    default="cnn",
    show_default=True,
    help="cnn, cnn-large, logistic, svm, forest, or MODULE:NAME of something with fit and predict.",
)
@click.option("--steps", type=click.IntRange(min=1), default=500, show_default=True, help="Optimizer steps of a cnn.")
@click.option(
    "--ratio",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Generated digits per real image.",
)
@click.option(
    "--generated-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Share of generated digits among training rows, in arms with both.",
)
@click.option(
    "--sweep",
    type=_RATIOS,
    default=(),
    metavar="R,R,…",
    help="Compare these ratios too, as arms of their own, like 0.5,1,2,5,20,50.",
)
@click.option(
    "--expansions",
    type=_RATIOS,
    default=(),
    metavar="F,F,…",
    help="Compare with digits of more variety, whose latents are multiplied by each of these, like 1.2,1.5.",
)
@click.option("--fresh", is_flag=True, help="Compare with generated digits of which none is used twice. Slow.")
@click.option(
    "--filtered",
    is_flag=True,
    help="Compare with generated digits whose label a classifier agrees with that saw the same real images.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Use digits of a generator without classes if the classifier that labels them, having seen the same real "
    "images, is at least so sure. An svm always is.",
)
@click.option(
    "--cut",
    type=_Shares(),
    default={},
    metavar="CLASS=SHARE,…",
    help="Unbalanced classes: keep this share of their images, as in 8=0.01.",
)
@click.option(
    "--noisy-labels",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    help="Share of the real images whose label is wrong.",
)
@click.option(
    "--elastic",
    type=click.FloatRange(min=0),
    default=0.7,
    show_default=True,
    help="Elastic distortion in classical augmentation: pixels of displacement; 0 for none.",
)
@click.option(
    "--distances",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Measure each generator's feature distance on N digits, and set it against what they did.",
)
@click.option(
    "--held-out",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="validation sets a twelfth of the training set aside: use it to choose settings.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all randomness.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Cells side by side.")
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="Instead, on the workers of this Dask scheduler.")
@click.option("--out", type=_FOLDER, required=True, help="Folder for results and report; may hold finished cells.")
@click.option("--json", "as_json", is_flag=True, help="Print the analysis as JSON.")
@click.pass_context
def run(
    context: click.Context,
    /,
    *,
    config: Path | None,  # noqa: ARG001 - its settings have arrived in the other arguments
    server: str | None,
    model: tuple[Path, ...],
    strict: str | None,
    strict_steps: int | None,
    data: str,
    data_dir: Path | None,
    transpose: bool,
    arms: tuple[str, ...] | None,
    classifier: str,
    jobs: int,
    scheduler: str | None,
    distances: int,
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
    if server is not None and model:
        raise InvalidInputError("name one generator: --server or --model")
    from digitforge_evaluation import experiment_folder
    from digitforge_evaluation.experiment import benefit, generators, subsets
    from digitforge_evaluation.experiment.arms import ARMS, UNBALANCED_BASELINE
    from digitforge_evaluation.experiment.plan import Plan
    from digitforge_evaluation.images.sources import newest_version
    from digitforge_training.data import load

    has_generator = bool(server or model or strict)
    if arms is None:
        arms = tuple(
            name
            for name, arm in ARMS.items()
            if (has_generator or not arm.generator) and (settings["cut"] or name != UNBALANCED_BASELINE)
        )
    plan = Plan(arms=arms, classifier=classifier, **settings)
    steps = {"steps": strict_steps} if strict_steps else {}
    inside = generators.TrainedInside(recipe=strict, overrides=steps, cache=out / "generators") if strict else None
    training, test = (load(data, split=split, data_dir=data_dir, transpose=transpose) for split in ("train", "test"))
    real = subsets.hold_out(training, test, which=plan.held_out)
    if distances:
        benefit.check_distances(real.held_out, distances)
    if classifier.startswith("cnn") or model or strict or distances:
        for folder in model:
            newest_version(folder)
        import_quietly("tensorflow")  # late, so that wrong arguments are answered at once
    outside = [generators.Served(server)] if server else [generators.Exported(folder) for folder in model]
    sources, cards = experiment_folder.by_name(outside, real)
    if inside:
        sources[str(generators.Budget.STRICT)] = inside
    with cell_progress() as on_cell:
        experiment_folder.run(
            out,
            plan,
            real,
            sources,
            cards=cards,
            command=shlex.join(["digitforge", *sys.argv[1:]]),
            jobs=jobs,
            scheduler=scheduler,
            on_cell=on_cell,
            config={name: value for name, value in context.params.items() if name not in _NOT_KEPT},
        )
    if distances and sources:
        experiment_folder.measure_distances(out, plan, real, sources, n=distances)
    _show(*experiment_folder.report(out), as_json=as_json)


@experiment.command()
@click.argument("folder", type=_FOLDER)
@click.option("--out", type=_FOLDER, help="Where to write the report, instead of FOLDER.")
@click.option("--json", "as_json", is_flag=True, help="Print the analysis as JSON.")
def report(*, folder: Path, out: Path | None, as_json: bool) -> None:
    """Write the report of FOLDER anew, even while it runs."""
    from digitforge_evaluation import experiment_folder

    _show(*experiment_folder.report(folder, out), as_json=as_json)


@experiment.command()
@click.argument("folder", type=_FOLDER)
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
    with Progress(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=600) as progress:
        task = progress.add_task("cells", total=None)
        yield lambda _result, done, planned: progress.update(task, completed=done, total=planned)


def _show(state: State, html: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**asdict(state.analysis), "report": str(html)}, indent=2))
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

    from digitforge_evaluation.experiment.analysis import Estimate, sentence

    arms = state.analysis.arms
    sizes = sorted({result.n_per_class for result in arms})

    def show(values: dict[tuple[str, int], Estimate], legend: str) -> None:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("trained on")
        for n in sizes:
            table.add_column(f"{n} real per class", justify="right")
        for arm in dict.fromkeys(result.arm for result in arms):
            table.add_row(arm, *(_percent(values.get((arm, n))) for n in sizes))
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
