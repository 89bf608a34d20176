"""An experiment from its settings to its report, as `digitforge experiment run` and `digitforge.run_experiment` do it.

Imports without TensorFlow and SciPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digitforge_client.common.command import import_quietly
from digitforge_client.errors import InvalidInputError
from digitforge_training.data import Dataset, load_splits

if TYPE_CHECKING:
    from digitforge_evaluation.experiment.analysis import Analysis
    from digitforge_evaluation.experiment.store import CellResult
    from digitforge_evaluation.experiment_folder import State


@dataclass(frozen=True, kw_only=True)
class ExperimentResult:
    """What an experiment has found so far, and where its report is."""

    state: State
    html: Path  # the report, with plots

    @property
    def analysis(self) -> Analysis:
        """Accuracies of all arms, and their comparisons."""
        return self.state.analysis

    @property
    def verdicts(self) -> tuple[str, ...]:
        """One sentence for each comparison that a verdict is taken on."""
        from digitforge_evaluation.experiment.sentences import sentence

        classes = len(self.state.facts.class_names)
        return tuple(sentence(each, classes=classes, measure=self.analysis.measure) for each in self.analysis.primary)


def run_experiment(
    out: str | Path,
    *,
    data: str | Path | tuple[Dataset, Dataset] = "mnist",
    data_dir: str | Path | None = None,
    transpose: bool = False,
    server: str | None = None,
    model: str | Path | Sequence[str | Path] = (),
    strict: str | None = None,
    strict_steps: int | None = None,
    arms: Sequence[str] | None = None,
    distances: int = 0,
    jobs: int = 1,
    scheduler: str | None = None,
    on_cell: Callable[[CellResult | None, int, int], None] = lambda _result, _done, _planned: None,
    command: str = "digitforge.run_experiment",
    config: Mapping[str, Any] | None = None,
    **settings: Any,
) -> ExperimentResult:
    """Train a classifier with and without generated digits on random subsets of real images, and compare.

    ::

        result = digitforge.run_experiment("runs/help", data="digits", model="models/digits", n_per_class=(10,))
        print(*result.verdicts, sep="\\n")

    Every finished cell is stored at once; the same call goes on where an earlier one stopped. A verdict needs ten
    subsets.

    Args:
        out: folder for results and report; made if need be.
        data: a source that `digitforge.load_data` takes, or the training and the test split.
        data_dir: see `digitforge.load_data`.
        transpose: see `digitforge.load_data`.
        server: ``host:port`` of a running server whose generator makes the digits.
        model: instead, an exported generator: its folder, or that of its versions; or several, to be compared.
        strict: recipe of generators that are trained inside, on each subset's images alone. Slow.
        strict_steps: training steps of those, instead of the recipe's.
        arms: what to compare, of `digitforge_evaluation.experiment.arms.ARMS`; None: all that can be had.
        distances: measure each generator's feature distance on so many digits, and set it against what they did.
        jobs: cells side by side.
        scheduler: address of a Dask scheduler whose workers run the cells instead, ``tcp://HOST:PORT``.
        on_cell: called with the newest result (None at the start), and how many cells are finished and planned.
        command: what the report says it was made by.
        config: settings to be kept beside the results as ``experiment.toml``; None: none.
        **settings: fields of `digitforge_evaluation.experiment.plan.Plan`, such as ``n_per_class=(10, 100)``,
            ``subsets=10``, ``classifier="cnn"``, ``steps=500``, ``cut={"8": 0.01}``.

    Raises:
        InvalidInputError: a setting is out of range, a generator has seen held-out images or does not fit the data, or
            *out* holds another experiment.
        DataError: data or a model cannot be read, or *out* cannot be written.
        ServerError: a generator's server or the scheduler went away.
    """
    folder = Path(out)
    models = [Path(model)] if isinstance(model, str | Path) else [Path(each) for each in model]
    if server is not None and models:
        raise InvalidInputError("name one generator: --server or --model")
    from digitforge_evaluation import experiment_folder
    from digitforge_evaluation.experiment import benefit, generators, subsets
    from digitforge_evaluation.experiment.arms import ARMS, baseline
    from digitforge_evaluation.experiment.plan import Plan
    from digitforge_evaluation.images.sources import newest_version

    if arms is None:
        has_generator = bool(server or models or strict)
        for_cut_classes = baseline(unbalanced=True).name
        arms = [
            name
            for name, design in ARMS.items()
            if (has_generator or not design.generator) and (settings.get("cut") or name != for_cut_classes)
        ]
    plan = Plan(arms=tuple(arms), **settings)
    steps = {"steps": strict_steps} if strict_steps else {}
    inside = generators.TrainedInside(recipe=strict, overrides=steps, cache=folder / "generators") if strict else None
    training, test = load_splits(data, data_dir=data_dir, transpose=transpose)
    real = subsets.hold_out(training, test, which=plan.held_out)
    if distances:
        benefit.check_distances(real.held_out, distances)
    if plan.classifier.startswith("cnn") or models or strict or distances:
        for each in models:
            newest_version(each)
        import_quietly("tensorflow")  # late, so that wrong arguments are answered at once
    outside = [generators.Served(server)] if server else [generators.Exported(each) for each in models]
    sources, cards = experiment_folder.by_name(outside, real)
    if inside:
        sources[str(generators.Budget.STRICT)] = inside
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
    state, html = experiment_folder.report(folder)
    return ExperimentResult(state=state, html=html)
