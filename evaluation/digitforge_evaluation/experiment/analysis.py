"""From finished cells to what they say: accuracies, paired differences, verdicts.

The *primary family*, on which verdicts are taken, is fixed beforehand: classical augmentation with generated digits
against classical augmentation alone, for each size (and each generator, where there are several), in accuracy. Where
classes are cut, the baseline draws all classes equally often and the measure is balanced accuracy. Everything else is
descriptive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over subsets."""

    mean: float
    interval: Interval | None  # Student's, for the mean; None for a single subset


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm at one size."""

    arm: Arm
    n_per_class: int
    subsets: int
    accuracy: float  # mean over subsets
    interval: Interval | None  # Student's, for the mean; None for a single subset
    balanced: Estimate  # balanced accuracy: the mean of the classes' recalls
    minority: Estimate | None  # mean recall of the classes that are cut; None where none is
    recalls: tuple[float, ...]  # of each class, over all subsets
    confusion: tuple[tuple[int, ...], ...]  # [true class][predicted class], summed over subsets and replicates


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An arm's accuracy (or balanced accuracy: the analysis says) minus a baseline's, paired by subset."""

    arm: Arm
    baseline: Arm
    n_per_class: int
    subsets: int  # in which both are finished
    difference: float  # mean; positive is better
    interval: Interval | None  # Student's; None for a single subset
    bootstrap: Interval | None
    p_value: float
    primary: bool
    adjusted_p: float | None = None  # Holm's, within the primary family
    simultaneous: Interval | None = None  # all intervals of the primary family hold together
    detectable: float | None = None  # smallest difference found with probability 0.8 whatever the others are
    minority: Estimate | None = None  # the difference in recall of the classes that are cut; None where none is
    worth: Worth | None = None  # in real images per class; None where the baseline was run at one size only
    verdict: Verdict = "descriptive"


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the finished cells of an experiment say."""

    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]
    cells: int
    seconds: float  # spent in cells
    measure: Measure  # of the comparisons
    baseline: Arm  # of the primary family

    @property
    def primary(self) -> tuple[Comparison, ...]:
        """The comparisons that verdicts are taken on."""
        return tuple(comparison for comparison in self.comparisons if comparison.primary)


def analyze(cells: Mapping[CellKey, CellResult], *, minority: Sequence[int] = ()) -> Analysis:
    """Compare every arm with the real images alone and with the baseline, the primary family with verdicts.

    A variant is also compared with the same arm without it.

    Args:
        cells: finished cells; some may be missing, and then only subsets that two arms share are compared.
        minority: indices of the classes that are cut.
    """
    return _Analyst(cells, tuple(minority)).analysis()


class _Analyst:
    """The finished cells, and the questions that are put to them."""

    def __init__(self, cells: Mapping[CellKey, CellResult], minority: tuple[int, ...]) -> None:
        self._cells = cells
        self._minority = minority
        self._baseline = primary_baseline(unbalanced=bool(minority))
        self._score: Callable[[CellResult], float] = _balanced if minority else _accuracy

    def analysis(self) -> Analysis:
        sizes = sorted({key.n_per_class for key in self._cells})
        arms = sorted({key.arm for key in self._cells}, key=_display_order)
        pairs = [(arm, n) for n in sizes for arm in arms]
        primary = [
            self._compare(arm, self._baseline, n, primary=True)
            for arm, n in pairs
            if _is_primary(arm) and self._shared(arm, self._baseline, n)
        ]
        variants = [(arm, replace(arm, variant=PLAIN), n) for arm, n in pairs if arm.variant != PLAIN]
        # With the baseline, only what could take its place, and once.
        with_baseline = [(arm, self._baseline, n) for arm, n in pairs if arm.design.generator and not _is_primary(arm)]
        with_real = [(arm, REAL, n) for arm, n in pairs if arm != REAL]
        descriptive = [
            self._compare(arm, baseline, n, primary=False)
            for arm, baseline, n in (*variants, *with_baseline, *with_real)
            if self._shared(arm, baseline, n)
        ]
        return Analysis(
            arms=tuple(self._arm_result(arm, n) for arm, n in pairs if self._subsets(arm, n)),
            comparisons=(*self._judged(primary), *descriptive),
            cells=len(self._cells),
            seconds=sum(cell.seconds for cell in self._cells.values()),
            measure="balanced accuracy" if self._minority else "accuracy",
            baseline=self._baseline,
        )

    def _subsets(self, arm: Arm, n: int) -> list[int]:
        return sorted(key.subset for key in self._cells if key.arm == arm and key.n_per_class == n)

    def _shared(self, arm: Arm, baseline: Arm, n: int) -> list[int]:
        return sorted({*self._subsets(arm, n)} & {*self._subsets(baseline, n)})

    def _values(
        self, arm: Arm, n: int, subsets: Sequence[int], score: Callable[[CellResult], float]
    ) -> npt.NDArray[np.float64]:
        return np.array(
            [score(self._cells[CellKey(n_per_class=n, subset=subset, arm=arm)]) for subset in subsets], np.float64
        )

    def _recall_of_minority(self, cell: CellResult) -> float:
        return float(np.mean(_recalls(cell.confusion)[list(self._minority)]))

    def _arm_result(self, arm: Arm, n: int) -> ArmResult:
        subsets = self._subsets(arm, n)
        accuracy = _estimate(self._values(arm, n, subsets, _accuracy))
        confusion = np.sum(
            [self._cells[CellKey(n_per_class=n, subset=subset, arm=arm)].confusion for subset in subsets], axis=0
        )
        return ArmResult(
            arm=arm,
            n_per_class=n,
            subsets=len(subsets),
            accuracy=accuracy.mean,
            interval=accuracy.interval,
            balanced=_estimate(self._values(arm, n, subsets, _balanced)),
            minority=_estimate(self._values(arm, n, subsets, self._recall_of_minority)) if self._minority else None,
            recalls=tuple(_recalls(confusion).tolist()),
            confusion=tuple(tuple(row) for row in confusion.tolist()),
        )

    def _differences(
        self, arm: Arm, baseline: Arm, n: int, score: Callable[[CellResult], float]
    ) -> npt.NDArray[np.float64]:
        subsets = self._shared(arm, baseline, n)
        return self._values(arm, n, subsets, score) - self._values(baseline, n, subsets, score)

    def _compare(self, arm: Arm, baseline: Arm, n: int, *, primary: bool) -> Comparison:
        differences = self._differences(arm, baseline, n, self._score)
        difference = _estimate(differences)
        return Comparison(
            arm=arm,
            baseline=baseline,
            n_per_class=n,
            subsets=len(differences),
            difference=difference.mean,
            interval=difference.interval,
            bootstrap=bootstrap_interval(differences) if len(differences) > 1 else None,
            p_value=permutation_p_value(differences),
            primary=primary,
            minority=_estimate(self._differences(arm, baseline, n, self._recall_of_minority))
            if self._minority
            else None,
            worth=self._worth(arm, n) if baseline == self._baseline else None,
        )

    def _worth(self, arm: Arm, n: int) -> Worth | None:
        def errors(of: Arm, size: int, subsets: Sequence[int]) -> npt.NDArray[np.float64]:
            return 1 - self._values(of, size, subsets, self._score)

        shared = self._shared(arm, self._baseline, n)
        sizes = {key.n_per_class for key in self._cells if key.arm == self._baseline}
        if len(sizes) < 2:
            return None
        curve = {size: errors(self._baseline, size, self._subsets(self._baseline, size)) for size in sizes}
        curve[n] = errors(self._baseline, n, shared)
        held_out = int(np.sum(next(iter(self._cells.values())).confusion))
        return worth(curve, n=n, arm=errors(arm, n, shared), smallest=0.5 / held_out)

    def _judged(self, family: list[Comparison]) -> list[Comparison]:
        """The primary family with what belongs to a family: adjusted p-values, simultaneous intervals, verdicts."""
        judged = []
        for comparison, adjusted in zip(family, holm([c.p_value for c in family]), strict=True):
            differences = self._differences(comparison.arm, comparison.baseline, comparison.n_per_class, self._score)
            several = len(differences) > 1
            level = LEVEL / len(family)
            judged.append(
                replace(
                    comparison,
                    adjusted_p=adjusted,
                    simultaneous=t_interval(differences, confidence=1 - level) if several else None,
                    detectable=smallest_detectable(differences, alpha=level) if several else None,
                    verdict=verdict(mean=comparison.difference, adjusted_p=adjusted, subsets=comparison.subsets),
                )
            )
        return judged


def _is_primary(arm: Arm) -> bool:
    return arm.name == PRIMARY and arm.variant == PLAIN


def _display_order(arm: Arm) -> tuple[int, str, float, str]:
    """Arms as ``ARMS`` has them; each without variant first, then by ratio, then the other variants."""
    without_ratio = 0.0 if arm.variant == PLAIN else np.inf
    return list(ARMS).index(arm.name), arm.source, arm.variant.ratio or without_ratio, str(arm.variant)


def _estimate(values: npt.NDArray[np.float64]) -> Estimate:
    return Estimate(mean=float(values.mean()), interval=t_interval(values) if len(values) > 1 else None)


def _recalls(confusion: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Of each class; 0 for a class without held-out images."""
    counts = np.asarray(confusion)
    return np.diag(counts) / np.maximum(counts.sum(axis=1), 1)


def _accuracy(cell: CellResult) -> float:
    return cell.accuracy


def _balanced(cell: CellResult) -> float:
    """Balanced accuracy, over the classes that have held-out images."""
    return float(_recalls(cell.confusion)[np.sum(cell.confusion, axis=1) > 0].mean())
