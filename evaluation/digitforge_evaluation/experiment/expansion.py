"""Choose the expansion of a generator, the factor for its latents, with real training images.

For each factor and repeat, a classifier trains on generated images alone. Its error is the share of the real training
images that it gets wrong. Test images have no part in this. The generator may have seen the training images, so the
errors are too low and serve only to compare factors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from digitforge_client.common.parallel import side_by_side
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.classifiers import classifier
from digitforge_evaluation.experiment.draws import draw_for
from digitforge_evaluation.experiment.generators import GeneratorSource
from digitforge_training.data import Dataset


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The error of one classifier."""

    factor: float  #: factor for the latents
    repeat: int  #: number from 0; seeds the digits and the classifier, so that factors are paired
    error: float  #: share of the real images that the classifier gets wrong, 0 … 1


@dataclass(frozen=True, kw_only=True)
class Tried:
    """All replicates of one factor."""

    factor: float  #: factor for the latents
    error: float  #: mean over replicates, 0 … 1
    excess: float  #: *error* minus that of the best factor, at least 0
    standard_error: float  #: of *excess*, from differences paired by repeat


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen factor, and all that were tried."""

    factor: float  #: chosen factor
    tried: tuple[Tried, ...]  #: in ascending order of the factor


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What to try."""

    factors: tuple[float, ...]  #: at least two different factors above 0
    replicates: int = 5  #: classifiers for each factor, at least 3
    n: int = 10_000  #: generated images for each classifier, equally many of each class
    classifier: str = "cnn"  #: name of a classifier, or ``MODULE:NAME``
    steps: int = 500  #: optimizer steps of each classifier

    def __post_init__(self) -> None:
        """Check factors and replicates."""
        if len(set(self.factors)) < 2 or not all(0 < factor < math.inf for factor in self.factors):
            raise InvalidInputError(
                f"the factors are {list(self.factors)}; expected at least two different numbers above 0, such as 1,1.2"
            )
        if self.replicates < 3:
            raise InvalidInputError(f"replicates is {self.replicates}; expected at least 3, for a standard error")


@dataclass(frozen=True, kw_only=True)
class _Job:
    factor: float
    repeat: int
    trials: Trials
    real: Dataset
    source: GeneratorSource


def run_trials(
    trials: Trials, real: Dataset, source: GeneratorSource, *, done: Collection[Trial] = (), jobs: int = 1
) -> Iterator[Trial]:
    """Train the classifiers, and yield each result as soon as it is ready.

    Args:
        trials: what to try.
        real: real training images to count errors on.
        source: the generator.
        done: results of an earlier run, which are not computed again.
        jobs: number of processes.
    """
    finished = {(trial.factor, trial.repeat) for trial in done}
    left = (
        _Job(factor=factor, repeat=repeat, trials=trials, real=real, source=source)
        for repeat in range(trials.replicates)
        for factor in sorted(set(trials.factors))
        if (factor, repeat) not in finished
    )
    return side_by_side(_run, left, jobs=jobs, imports=["tensorflow"])


def _run(job: _Job) -> Trial:
    real, trials = job.real, job.trials
    classes = len(real.class_names)
    generator = job.source.generator_for(real, seed=job.repeat)
    drawn = generator.draw(trials.n, proportions=(1,) * classes, seed=job.repeat, expansion=job.factor)
    if drawn.labels is None:
        raise InvalidInputError(f"{generator.name} has no classes; expected a generator that labels its digits")
    model = classifier(trials.classifier, image_shape=real.images.shape[1:], classes=classes, steps=trials.steps)
    digits = (drawn.images, drawn.labels)
    model.fit(draw_for("synthetic", images=real.images, labels=real.labels, generated=digits), seed=job.repeat)
    wrong = model.predict(real.images) != real.labels
    return Trial(factor=job.factor, repeat=job.repeat, error=float(wrong.mean()))


def choose(results: Sequence[Trial]) -> Choice:
    """Choose the factor closest to 1 whose error is at most one standard error above the lowest.

    This is the one-standard-error rule of Breiman et al., *Classification and regression trees*, 1984, with differences
    paired by repeat: a factor far from 1 must be clearly better, because it also makes more labels wrong.

    Args:
        results: equally many replicates, at least 3, of each factor.

    Raises:
        InvalidInputError: factors have different replicates, or fewer than three.
    """
    factors = sorted({trial.factor for trial in results})
    errors = {of: {trial.repeat: trial.error for trial in results if trial.factor == of} for of in factors}
    replicates = {tuple(sorted(by_repeat)) for by_repeat in errors.values()}
    if len(replicates) != 1 or len(*replicates) < 3:
        raise InvalidInputError(
            f"the replicates of the factors are {sorted(replicates)}; expected the same ones, at least 3, for all"
        )
    table = np.array([[errors[of][repeat] for repeat in sorted(errors[of])] for of in factors])  # (factors, replicates)
    differences = table - table[table.mean(axis=1).argmin()]
    standard_errors = differences.std(axis=1, ddof=1) / math.sqrt(table.shape[1])
    tried = tuple(
        Tried(factor=factor, error=float(error), excess=float(excess), standard_error=float(standard_error))
        for factor, error, excess, standard_error in zip(
            factors, table.mean(axis=1), differences.mean(axis=1), standard_errors, strict=True
        )
    )
    good = [each.factor for each in tried if each.excess <= each.standard_error]
    return Choice(factor=min(good, key=lambda factor: abs(math.log(factor))), tried=tried)
