"""Analyze finished cells: accuracies, paired differences and verdicts.

Only the *primary family* of comparisons gets verdicts. It is fixed before any result is seen: classical augmentation
with generated images against classical augmentation alone, in accuracy, for each size and generator. If some classes
are cut (they keep only a share of their images), the baseline draws all classes equally often, and the measure is
balanced accuracy. All other comparisons are descriptive.

The number of subsets is fixed beforehand, too. A comparison gets its verdict when all planned subsets are finished.
Verdicts on fewer, as results come in, would be wrong more often than in 5 % of experiments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.experiment.arms import ARMS, PLAIN, PRIMARY, Arm, fair_baseline
from digitforge_evaluation.experiment.arms import baseline as primary_baseline
from digitforge_evaluation.experiment.statistics import (
    LEVEL,
    SUBSETS_FOR_A_VERDICT,
    SUBSETS_FOR_AN_INTERVAL,
    Interval,
    Verdict,
    holm,
    permutation_p_value,
    skewness,
    smallest_detectable,
    t_interval,
    verdict,
)
from digitforge_evaluation.experiment.store import CellKey, CellResult
from digitforge_evaluation.experiment.worth import Worth, worth

REAL: Final = Arm(name="real")
Measure = Literal["accuracy", "balanced accuracy"]
Score = Callable[[CellResult], float]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over subsets."""

    mean: float
    interval: Interval | None  #: Student's t interval for the mean; None below three subsets


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm at one size."""

    arm: Arm
    n_per_class: int
    subsets: int
    held_out: int  #: number of held-out images
    accuracy: float  #: mean over subsets
    interval: Interval | None  #: Student's t interval for the mean; None below three subsets
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
    planned: int  #: subsets that both arms are planned for
    held_out: int  #: number of held-out images
    one_image: float  #: the largest change of the score by one held-out image
    difference: float  #: mean; positive is better
    interval: Interval | None  #: Student's t interval; None below three subsets
    p_value: float | None  #: two-sided, of the paired permutation test; None below three subsets
    primary: bool  #: whether the comparison is in the primary family
    family: int = 1  #: number of comparisons that the p-value is corrected for
    #: After Holm's correction; only in the primary family, and only if all planned subsets are finished.
    adjusted_p: float | None = None
    simultaneous: Interval | None = None  #: t interval with Bonferroni's correction; only in the primary family
    #: Smallest true difference that the permutation test finds with probability 0.8, at Bonferroni's level. None if the
    #: comparison has no verdict, or if the test cannot reach this level.
    detectable: float | None = None
    skewness: float | None = None  #: of the differences; only with a verdict, and only if it is strong
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

    @property
    def fair(self) -> tuple[Comparison, ...]:
        """The primary arm against the arm that uses the same information in the usual way. They get no verdict."""
        return tuple(c for c in self.comparisons if _is_primary(c.arm) and c.baseline == fair_baseline(c.arm))


def analyze(
    cells: Mapping[CellKey, CellResult],
    *,
    minority: Sequence[int] = (),
    replicates: int = 1,
    planned: Iterable[CellKey] | None = None,
    others: Sequence[float] = (),
) -> Analysis:
    """Compare the arms with each other, and give verdicts on the primary family.

    Every arm is compared with the real images alone. Arms with images from elsewhere are also compared with the
    baseline, and those with a generator with the fair baseline of its budget.
    Variants are also compared with the same arm without the variant.

    Args:
        cells: finished cells. If some are missing, a comparison uses the subsets that both arms have finished.
        minority: indices of the cut classes.
        replicates: classifiers per cell.
        planned: the cells of the plan. Comparisons without all of them get no verdict yet, but count for the
            correction. None for *cells*.
        others: p-values of comparisons in other experiments, to correct for as well.
    """
    analyst = _Analyst(cells, tuple(minority), replicates, cells if planned is None else planned, tuple(others))
    return analyst.analysis()


class _Analyst:
    """Computes the analysis of some finished cells."""

    def __init__(
        self,
        cells: Mapping[CellKey, CellResult],
        minority: tuple[int, ...],
        replicates: int,
        planned: Iterable[CellKey],
        others: tuple[float, ...],
    ) -> None:
        self._cells: dict[tuple[Arm, int], dict[int, CellResult]] = {}  # by arm and size, then by subset
        for key in sorted(cells, key=lambda key: (key.n_per_class, _display_order(key.arm), key.subset)):
            self._cells.setdefault((key.arm, key.n_per_class), {})[key.subset] = cells[key]
        self._all_cells = tuple(cells.values())
        self._planned: dict[tuple[Arm, int], set[int]] = {}
        for key in planned:
            self._planned.setdefault((key.arm, key.n_per_class), set()).add(key.subset)
        self._others = others
        self._minority = minority
        self._replicates = replicates
        self._baseline = primary_baseline(unbalanced=bool(minority))
        self._score: Score = _balanced if minority else _accuracy

    def analysis(self) -> Analysis:
        pairs = list(self._cells)
        primary = [(arm, self._baseline, n) for arm, n in pairs if _is_primary(arm)]
        variants = [(arm, replace(arm, variant=PLAIN), n) for arm, n in pairs if arm.variant != PLAIN]
        # `primary` already compares the primary arm with the baseline.
        added = [(arm, n) for arm, n in pairs if arm.design.adds_images]
        with_fair_baseline = [(arm, fair, n) for arm, n in pairs if (fair := fair_baseline(arm))]
        with_baseline = [(arm, self._baseline, n) for arm, n in added if not _is_primary(arm)]
        with_real = [(arm, REAL, n) for arm, n in pairs if arm != REAL]
        return Analysis(
            arms=tuple(self._arm_result(arm, n, list(cells.values())) for (arm, n), cells in self._cells.items()),
            comparisons=(
                *self._with_verdicts(self._compared(primary)),
                *self._compared([*with_fair_baseline, *variants, *with_baseline, *with_real]),
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
            held_out=int(self._held_out(cells).sum()),
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
        held_out = self._held_out(self._paired(arm, baseline, n)[0])
        enough = len(differences) >= SUBSETS_FOR_AN_INTERVAL
        return Comparison(
            arm=arm,
            baseline=baseline,
            n_per_class=n,
            subsets=len(differences),
            planned=len(self._planned_subsets(arm, baseline, n)),
            held_out=int(held_out.sum()),
            one_image=self._one_image(held_out),
            difference=difference.mean,
            interval=difference.interval,
            p_value=permutation_p_value(differences) if enough else None,
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

    def _planned_subsets(self, arm: Arm, baseline: Arm, n: int) -> set[int]:
        return self._planned.get((arm, n), set()) & self._planned.get((baseline, n), set())

    def _held_out(self, cells: Iterable[CellResult]) -> npt.NDArray[np.int64]:
        """Number of held-out images of each class: the smallest over *cells*, which may differ with ``rest``."""
        counts: npt.NDArray[np.int64] = np.min([np.sum(cell.confusion, axis=1) for cell in cells], axis=0)
        return counts // self._replicates

    def _one_image(self, held_out: npt.NDArray[np.int64]) -> float:
        if not self._minority:
            return 1 / float(held_out.sum())
        present = held_out[held_out > 0]
        return 1 / float(len(present) * present.min())

    def _with_verdicts(self, own: list[Comparison]) -> list[Comparison]:
        """Add adjusted p-values, simultaneous intervals and verdicts to the primary family."""
        planned = sum(
            _is_primary(arm) and bool(self._planned_subsets(arm, self._baseline, n)) for arm, n in self._planned
        )
        family = max(planned, len(own)) + len(self._others)
        # An unfinished comparison may end with any p-value.
        p_values = [1.0 if _unfinished(c) or c.p_value is None else c.p_value for c in own]
        adjusted = holm([*p_values, *self._others, *[1.0] * (family - len(own) - len(self._others))])
        return [self._with_verdict(c, p, family) for c, p in zip(own, adjusted[: len(own)], strict=True)]

    def _with_verdict(self, comparison: Comparison, adjusted: float, family: int) -> Comparison:
        differences = self._differences(comparison.arm, comparison.baseline, comparison.n_per_class, self._score)
        level = LEVEL / family
        simultaneous = None
        if len(differences) >= SUBSETS_FOR_AN_INTERVAL:
            simultaneous = t_interval(differences, confidence=1 - level)
        comparison = replace(comparison, family=family, simultaneous=simultaneous)
        if _unfinished(comparison) or comparison.p_value is None:
            return comparison
        found = verdict(mean=comparison.difference, adjusted_p=adjusted, subsets=comparison.subsets)
        comparison = replace(comparison, adjusted_p=adjusted, verdict=found)
        if comparison.subsets < SUBSETS_FOR_A_VERDICT:
            return comparison
        return replace(
            comparison,
            detectable=smallest_detectable(differences, alpha=level),
            skewness=skewness(differences),
        )


def _unfinished(comparison: Comparison) -> bool:
    return comparison.subsets < comparison.planned


def _is_primary(arm: Arm) -> bool:
    return arm.name == PRIMARY and arm.variant == PLAIN


def _display_order(arm: Arm) -> tuple[int, str, float, str]:
    """A sort key: by arm as in ``ARMS``, then by generator, then by variant: none, ratios in order, others."""
    without_ratio = 0.0 if arm.variant == PLAIN else np.inf
    return list(ARMS).index(arm.name), arm.source, arm.variant.ratio or without_ratio, str(arm.variant)


def _scores(cells: Iterable[CellResult], score: Score) -> Floats:
    return np.array([score(cell) for cell in cells], np.float64)


def _estimate(values: Floats) -> Estimate:
    return Estimate(
        mean=float(values.mean()), interval=t_interval(values) if len(values) >= SUBSETS_FOR_AN_INTERVAL else None
    )


def _recalls(confusion: npt.ArrayLike) -> Floats:
    """The recall of each class; 0 for a class without held-out images."""
    counts = np.asarray(confusion)
    return np.diag(counts) / np.maximum(counts.sum(axis=1), 1)


def _accuracy(cell: CellResult) -> float:
    return cell.accuracy


def _balanced(cell: CellResult) -> float:
    """Balanced accuracy, over the classes that have held-out images."""
    return float(_recalls(cell.confusion)[np.sum(cell.confusion, axis=1) > 0].mean())
