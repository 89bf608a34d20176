"""Analyze finished cells: accuracies, paired differences and verdicts.

Only the *primary family* of comparisons gets verdicts. It is fixed before any result is seen: classical augmentation
with generated digits against classical augmentation alone, in accuracy, for each size and generator. If some classes
are cut (they keep only a share of their images), the baseline draws all classes equally often, and the measure is
balanced accuracy. All other comparisons are descriptive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.experiment.arms import ARMS, PLAIN, PRIMARY, Arm
from digitforge_evaluation.experiment.arms import baseline as primary_baseline
from digitforge_evaluation.experiment.statistics import (
    Interval,
    Verdict,
    bootstrap_interval,
    holm,
    permutation_p_value,
    smallest_detectable,
    t_interval,
    verdict,
)
from digitforge_evaluation.experiment.store import CellKey, CellResult
from digitforge_evaluation.experiment.worth import Worth, worth

LEVEL: Final = 0.05
REAL: Final = Arm(name="real")
Measure = Literal["accuracy", "balanced accuracy"]
Score = Callable[[CellResult], float]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over subsets."""

    mean: float
    interval: Interval | None  #: Student's t interval for the mean; None for a single subset


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm at one size."""

    arm: Arm
    n_per_class: int
    subsets: int
    accuracy: float  #: mean over subsets
    interval: Interval | None  #: Student's t interval for the mean; None for a single subset
    balanced: Estimate  #: balanced accuracy: the mean of the classes' recalls
    minority: Estimate | None  #: mean recall of the cut classes; None if no classes are cut
    recalls: tuple[float, ...]  #: recall of each class, over all subsets
    confusion: tuple[tuple[int, ...], ...]  #: [true class][predicted class], summed over subsets and replicates


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An arm's score minus a baseline's, paired by subset. ``Analysis.measure`` says which score."""

    arm: Arm
    baseline: Arm
    n_per_class: int
    subsets: int  #: subsets that both arms have finished
    difference: float  #: mean; positive is better
    interval: Interval | None  #: Student's t interval; None for a single subset
    bootstrap: Interval | None  #: percentile bootstrap interval; None for a single subset
    p_value: float  #: two-sided, of the paired permutation test
    primary: bool  #: whether the comparison is in the primary family
    adjusted_p: float | None = None  #: after Holm's correction; only in the primary family
    simultaneous: Interval | None = None  #: t interval with Bonferroni's correction; only in the primary family
    #: Smallest true difference that the test finds with probability 0.8, at Bonferroni's level.
    detectable: float | None = None
    minority: Estimate | None = None  #: difference in mean recall of the cut classes; None if no class is cut
    worth: Worth | None = None  #: difference in real images per class; None if the baseline was run at one size only
    verdict: Verdict = "descriptive"


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The results of an experiment, computed from its finished cells."""

    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]  #: the primary family first
    cells: int  #: number of finished cells
    seconds: float  #: total time of the cells
    measure: Measure  #: the score that the comparisons use
    baseline: Arm  #: baseline of the primary family

    @property
    def primary(self) -> tuple[Comparison, ...]:
        """The primary family: the comparisons that get verdicts."""
        return tuple(comparison for comparison in self.comparisons if comparison.primary)


def analyze(cells: Mapping[CellKey, CellResult], *, minority: Sequence[int] = ()) -> Analysis:
    """Compare the arms with each other, and give verdicts on the primary family.

    Every arm is compared with the real images alone. Arms with a generator are also compared with the baseline.
    Variants are also compared with the same arm without the variant.

    Args:
        cells: finished cells. If some are missing, a comparison uses the subsets that both arms have finished.
        minority: indices of the cut classes.
    """
    return _Analyst(cells, tuple(minority)).analysis()


class _Analyst:
    """Computes the analysis of some finished cells."""

    def __init__(self, cells: Mapping[CellKey, CellResult], minority: tuple[int, ...]) -> None:
        self._cells: dict[tuple[Arm, int], dict[int, CellResult]] = {}  # by arm and size, then by subset
        for key in sorted(cells, key=lambda key: (key.n_per_class, _display_order(key.arm), key.subset)):
            self._cells.setdefault((key.arm, key.n_per_class), {})[key.subset] = cells[key]
        self._all_cells = tuple(cells.values())
        self._minority = minority
        self._baseline = primary_baseline(unbalanced=bool(minority))
        self._score: Score = _balanced if minority else _accuracy

    def analysis(self) -> Analysis:
        pairs = list(self._cells)
        primary = [(arm, self._baseline, n) for arm, n in pairs if _is_primary(arm)]
        variants = [(arm, replace(arm, variant=PLAIN), n) for arm, n in pairs if arm.variant != PLAIN]
        # `primary` already compares the primary arm with the baseline.
        with_baseline = [(arm, self._baseline, n) for arm, n in pairs if arm.design.generator and not _is_primary(arm)]
        with_real = [(arm, REAL, n) for arm, n in pairs if arm != REAL]
        return Analysis(
            arms=tuple(self._arm_result(arm, n, list(cells.values())) for (arm, n), cells in self._cells.items()),
            comparisons=(
                *self._with_verdicts(self._compared(primary)),
                *self._compared([*variants, *with_baseline, *with_real]),
            ),
            cells=len(self._all_cells),
            seconds=sum(cell.seconds for cell in self._all_cells),
            measure="balanced accuracy" if self._minority else "accuracy",
            baseline=self._baseline,
        )

    def _arm_result(self, arm: Arm, n: int, cells: list[CellResult]) -> ArmResult:
        accuracy = _estimate(_scores(cells, _accuracy))
        confusion = np.sum([cell.confusion for cell in cells], axis=0)
        return ArmResult(
            arm=arm,
            n_per_class=n,
            subsets=len(cells),
            accuracy=accuracy.mean,
            interval=accuracy.interval,
            balanced=_estimate(_scores(cells, _balanced)),
            minority=_estimate(_scores(cells, self._minority_recall)) if self._minority else None,
            recalls=tuple(_recalls(confusion).tolist()),
            confusion=tuple(tuple(row) for row in confusion.tolist()),
        )

    def _minority_recall(self, cell: CellResult) -> float:
        return float(np.mean(_recalls(cell.confusion)[list(self._minority)]))

    def _paired(self, arm: Arm, baseline: Arm, n: int) -> tuple[list[CellResult], list[CellResult]]:
        """The cells of both arms on the subsets that both have finished."""
        arm_cells, baseline_cells = self._cells.get((arm, n), {}), self._cells.get((baseline, n), {})
        shared = [subset for subset in arm_cells if subset in baseline_cells]
        return [arm_cells[subset] for subset in shared], [baseline_cells[subset] for subset in shared]

    def _differences(self, arm: Arm, baseline: Arm, n: int, score: Score) -> Floats:
        arm_cells, baseline_cells = self._paired(arm, baseline, n)
        return _scores(arm_cells, score) - _scores(baseline_cells, score)

    def _compared(self, pairs: list[tuple[Arm, Arm, int]]) -> list[Comparison]:
        return [self._compare(arm, baseline, n) for arm, baseline, n in pairs if self._paired(arm, baseline, n)[0]]

    def _compare(self, arm: Arm, baseline: Arm, n: int) -> Comparison:
        differences = self._differences(arm, baseline, n, self._score)
        difference = _estimate(differences)
        minority = self._differences(arm, baseline, n, self._minority_recall) if self._minority else None
        return Comparison(
            arm=arm,
            baseline=baseline,
            n_per_class=n,
            subsets=len(differences),
            difference=difference.mean,
            interval=difference.interval,
            bootstrap=bootstrap_interval(differences) if len(differences) > 1 else None,
            p_value=permutation_p_value(differences),
            primary=_is_primary(arm) and baseline == self._baseline,
            minority=None if minority is None else _estimate(minority),
            worth=self._worth(arm, n) if baseline == self._baseline else None,
        )

    def _worth(self, arm: Arm, n: int) -> Worth | None:
        def errors(cells: Iterable[CellResult]) -> Floats:
            return 1 - _scores(cells, self._score)

        curve = {size: errors(cells.values()) for (name, size), cells in self._cells.items() if name == self._baseline}
        if len(curve) < 2:
            return None
        arm_cells, baseline_cells = self._paired(arm, self._baseline, n)
        held_out = int(np.sum(arm_cells[0].confusion))
        return worth({**curve, n: errors(baseline_cells)}, n=n, arm=errors(arm_cells), smallest=0.5 / held_out)

    def _with_verdicts(self, family: list[Comparison]) -> list[Comparison]:
        """Add adjusted p-values, simultaneous intervals and verdicts to the primary family."""
        finished = []
        for comparison, adjusted in zip(family, holm([c.p_value for c in family]), strict=True):
            differences = self._differences(comparison.arm, comparison.baseline, comparison.n_per_class, self._score)
            several = len(differences) > 1
            level = LEVEL / len(family)
            finished.append(
                replace(
                    comparison,
                    adjusted_p=adjusted,
                    simultaneous=t_interval(differences, confidence=1 - level) if several else None,
                    detectable=smallest_detectable(differences, alpha=level) if several else None,
                    verdict=verdict(mean=comparison.difference, adjusted_p=adjusted, subsets=comparison.subsets),
                )
            )
        return finished


def _is_primary(arm: Arm) -> bool:
    return arm.name == PRIMARY and arm.variant == PLAIN


def _display_order(arm: Arm) -> tuple[int, str, float, str]:
    """A sort key: by arm as in ``ARMS``, then by generator, then by variant: none, ratios in order, others."""
    without_ratio = 0.0 if arm.variant == PLAIN else np.inf
    return list(ARMS).index(arm.name), arm.source, arm.variant.ratio or without_ratio, str(arm.variant)


def _scores(cells: Iterable[CellResult], score: Score) -> Floats:
    return np.array([score(cell) for cell in cells], np.float64)


def _estimate(values: Floats) -> Estimate:
    return Estimate(mean=float(values.mean()), interval=t_interval(values) if len(values) > 1 else None)


def _recalls(confusion: npt.ArrayLike) -> Floats:
    """The recall of each class; 0 for a class without held-out images."""
    counts = np.asarray(confusion)
    return np.diag(counts) / np.maximum(counts.sum(axis=1), 1)


def _accuracy(cell: CellResult) -> float:
    return cell.accuracy


def _balanced(cell: CellResult) -> float:
    """Balanced accuracy, over the classes that have held-out images."""
    return float(_recalls(cell.confusion)[np.sum(cell.confusion, axis=1) > 0].mean())
