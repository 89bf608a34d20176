"""The whole experiment in one function, for ``digitforge.run_experiment`` and ``digitforge experiment run``.

Importing this module does not import TensorFlow or SciPy.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digitforge_client.common.command import import_quietly
from digitforge_client.common.tracking import FILE as TRACKING_FILE
from digitforge_client.common.tracking import Tracking, check_tracker
from digitforge_client.errors import InvalidInputError
from digitforge_training.data import Dataset, DataSource, load_splits
from digitforge_training.data.sources import OPTIONS

if TYPE_CHECKING:
    from digitforge_client.client import DigitClient
    from digitforge_client.common.parallel import Scheduler
    from digitforge_evaluation.experiment.analysis import Analysis
    from digitforge_evaluation.experiment.generators import GeneratorSource
    from digitforge_evaluation.experiment.store import CellResult
    from digitforge_evaluation.experiment_folder import State

#: Kinds of files of an experiment that are sent to MLflow.
_TRACKED = (".html", ".json", ".jsonl", ".toml", ".svg")


@dataclass(frozen=True, kw_only=True, repr=False)
class ExperimentResult:
    """The results of an experiment, and its report."""

    state: State  #: the contents of the experiment's folder
    html: Path  #: the report, with plots

    @property
    def analysis(self) -> Analysis:
        """The accuracies of all arms, and their comparisons."""
        return self.state.analysis

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdicts in words, one text for each comparison of the primary family."""
        from digitforge_evaluation.experiment.sentences import sentence

        classes = len(self.state.facts.class_names)
        return tuple(sentence(each, classes=classes, measure=self.analysis.measure) for each in self.analysis.primary)

    def __repr__(self) -> str:
        verdicts = ", ".join(each.verdict for each in self.analysis.primary)
        return f"ExperimentResult({verdicts or 'no verdict'})"

    def _repr_html_(self) -> str:
        """Show the report in a notebook, in a frame, because it has styles of its own."""
        report = html.escape(self.html.read_text("utf-8"))
        return f'<iframe srcdoc="{report}" style="width: 100%; height: 40rem; border: 1px solid gray"></iframe>'


def run_experiment(
    out: str | Path,
    *,
    data: str | Path | DataSource | tuple[Dataset, Dataset] = "mnist",
    server: str | Callable[[], DigitClient] | None = None,
    model: str | Path | Sequence[str | Path] = (),
    strict: str | None = None,
    strict_steps: int | None = None,
    strict_copies: int = 0,
    adapt: bool = False,
    adapt_fields: Mapping[str, Any] | None = None,
    arms: Sequence[str] | None = None,
    distances: int = 0,
    jobs: int = 1,
    scheduler: Scheduler | str | None = None,
    on_cell: Callable[[CellResult | None, int, int], None] = lambda _result, _done, _planned: None,
    on_note: Callable[[str], None] = lambda _: None,
    command: str = "digitforge.run_experiment",
    config: Mapping[str, Any] | None = None,
    track: str | None = None,
    **settings: Any,
) -> ExperimentResult:
    """Measure whether generated images help a classifier.

    Trains the classifier with and without generated images on random subsets of the real images, compares the
    accuracies, and writes a report. Finished cells are stored at once, and the same call continues a stopped run. A
    verdict needs at least ten subsets, and more for many sizes and generators. Fix their number before you see results.

    Args:
        out: folder for results and report. It is created if needed.
        data: the real images: a source that `digitforge.load_data` takes, or the training and the test split.
        server: ``host:port`` of a server whose generator makes the digits; or a function that connects to it, which
            can be pickled and compared.
        model: instead of *server*, the folder of an exported generator or of its versions. A list compares several.
        strict: also train a generator of this recipe on each subset's images. This is slow.
        strict_steps: training steps of the strict generators; None for the recipe's number.
        strict_copies: number of copies of each image, changed as in the classical arms, that strict generators are
            trained on too.
        adapt: also adapt the generator of *model* to each subset's images, by `digitforge.adapt`.
        adapt_fields: fields of the recipe of the adaptation to override.
        arms: names of the arms to run, keys of ``experiment.arms.ARMS``; None for all that are possible.
        distances: number of generated images for measuring each generator's feature distance; 0 to skip this.
        jobs: number of processes that run cells in parallel.
        scheduler: a Dask scheduler, or its address, ``tcp://HOST:PORT``. Its workers run the cells instead.
        on_cell: called with the newest result (None at the start) and the numbers of finished and planned cells.
        on_note: called with a sentence on how the data set was split, if it has no test images of its own.
        command: the command line, for the report.
        config: settings to save in the folder as ``experiment.toml``; None for no file.
        track: ``mlflow`` also sends settings, accuracies, verdicts and the report to MLflow.
        **settings: other fields of `digitforge_evaluation.experiment.plan.Plan`, such as ``n_per_class=(10, 100)``,
            ``subsets=10``, ``classifier="cnn"``, ``steps=500``, ``cut={"8": 0.01}``; and the options of
            `digitforge.load_data`: ``data_dir``, ``size``, ``fit``, ``channels``, ``transpose``, ``test_share``.

    Returns:
        The analysis, the verdicts and the report.

    Raises:
        InvalidInputError: a setting is out of range, ten or more subsets are too few for a verdict on so many sizes and
            generators, a generator has seen held-out images or does not fit the data, or *out* holds another
            experiment.
        DataError: the data or a generator cannot be read, or *out* cannot be written.
        ServerError: a generator's server or the scheduler went away.
        MissingExtraError: MLflow is not installed.
        DigitforgeError: MLflow cannot be reached at the start or at the end.

    Example:
        >>> result = digitforge.run_experiment("runs/help", model="models/digits")  # doctest: +SKIP
        >>> print(result.verdicts[0])  # doctest: +SKIP
    """
    folder = Path(out)
    models = [Path(model)] if isinstance(model, str | Path) else [Path(each) for each in model]
    if server is not None and models:
        raise InvalidInputError("both a server and a model are given; give only one of them")
    from digitforge_client.common.versions import newest_version
    from digitforge_evaluation import experiment_folder
    from digitforge_evaluation.classifiers.classifiers import learns_stepwise
    from digitforge_evaluation.experiment import benefit, generators, subsets
    from digitforge_evaluation.experiment.plan import Plan, check_verdicts

    all_arms = arms is None
    if arms is None:
        arms = _possible_arms(generator=bool(server or models or strict), unbalanced=bool(settings.get("cut")))
    if track:
        check_tracker(track)
    options = {name: settings.pop(name) for name in ("data_dir", *OPTIONS) if name in settings}
    plan = Plan(arms=tuple(arms), **settings)
    check_verdicts(plan, generators=bool(server) + len(models) + bool(strict) + adapt)
    steps = {"steps": strict_steps} if strict_steps else {}
    strict_source = (
        generators.TrainedInside(recipe=strict, overrides=steps, copies=strict_copies, cache=folder / "generators")
        if strict
        else None
    )
    training, test = load_splits(data, **options)
    if training.split_note:
        on_note(training.split_note)
    real = subsets.hold_out(training, test, which=plan.held_out)
    if distances:
        benefit.check_distances(real.held_out, distances)
    if plan.classifier.startswith("cnn") or models or strict or distances:
        for each in models:
            newest_version(each)
        import_quietly("tensorflow")  # slow, so only after the arguments are checked
    given_sources = [generators.Served(server)] if server else [generators.Exported(each) for each in models]
    sources, cards = experiment_folder.name_generators(given_sources, real)
    if adapt:
        sources |= _adapted(models, sources, fields=adapt_fields, cache=folder / "generators")
    if all_arms:
        plan = replace(plan, arms=(*plan.arms, *_fair_baselines(sources, stepwise=learns_stepwise(plan.classifier))))
    if strict_source:
        sources[str(generators.Budget.STRICT)] = strict_source
    experiment_folder.run(
        folder,
        plan,
        real,
        sources,
        cards=cards,
        command=command,
        jobs=jobs,
        scheduler=scheduler,
        on_cell=on_cell,
        config=config,
    )
    if distances and sources:
        experiment_folder.measure_distances(folder, plan, real, sources, n=distances)
    state, page = experiment_folder.report(folder)
    result = ExperimentResult(state=state, html=page)
    if track:
        _track(folder, result)
    return result


def _track(folder: Path, result: ExperimentResult) -> None:
    """Send an experiment to MLflow. The step of a metric is the number of real images per class."""
    tracking = Tracking(folder, advice=f"the results in {folder} are complete; repeat the command to send them")
    analysis = result.analysis
    tracking.parameters(result.state.facts.identity)
    values = [(f"accuracy/{arm.arm}", arm.accuracy, arm.n_per_class) for arm in analysis.arms]
    values += [
        (f"minority recall/{arm.arm}", arm.minority.mean, arm.n_per_class) for arm in analysis.arms if arm.minority
    ]
    for comparison in analysis.primary:
        name = f"{comparison.arm} minus {comparison.baseline}"
        values.append((f"difference/{name}", comparison.difference, comparison.n_per_class))
        if comparison.adjusted_p is not None:
            values.append((f"p/{name}", comparison.adjusted_p, comparison.n_per_class))
    tracking.metrics(values)
    for path in sorted(each for each in folder.iterdir() if each.is_file() and each.suffix in _TRACKED):
        if path.name != TRACKING_FILE:
            tracking.file(path)
    tracking.end("FINISHED")


def _possible_arms(*, generator: bool, unbalanced: bool) -> list[str]:
    """All arms that make sense with or without a generator, and with balanced or unbalanced classes.

    Without the fair baselines, which depend on what the generators have seen.
    """
    from digitforge_evaluation.experiment.arms import ARMS, FAIR_BASELINES, baseline

    for_unbalanced = baseline(unbalanced=True).name
    return [
        name
        for name, design in ARMS.items()
        if (generator or not design.generator)
        and (unbalanced or name != for_unbalanced)
        and name not in FAIR_BASELINES.values()
    ]


def _adapted(
    models: Sequence[Path], sources: Iterable[str], *, fields: Mapping[str, Any] | None, cache: Path
) -> dict[str, GeneratorSource]:
    """The source of adapted generators, by budget.

    Raises:
        InvalidInputError: there is not exactly one model, or it has seen images of the experiment.
    """
    from digitforge_evaluation.experiment.generators import AdaptedInside, Budget

    if len(models) != 1 or list(sources) != [Budget.TRANSFER]:
        raise InvalidInputError(
            "adapt needs the folder of one generator that has seen none of the real images, but there are "
            f"{len(models)} folders ({', '.join(sources) or 'no budget'}); give one such model, or leave out adapt"
        )
    return {str(Budget.ADAPTED): AdaptedInside(models[0], overrides=fields, cache=cache)}


def _fair_baselines(sources: Iterable[str], *, stepwise: bool) -> set[str]:
    """The fair baselines of these generators, given by budget and name, that this kind of classifier allows."""
    from digitforge_evaluation.experiment.arms import ARMS, FAIR_BASELINES

    budgets = {source.partition(" ")[0] for source in sources}
    return {
        arm for budget, arm in FAIR_BASELINES.items() if budget in budgets and (stepwise or not ARMS[arm].pretrained)
    }
