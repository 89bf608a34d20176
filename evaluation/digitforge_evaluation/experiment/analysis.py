"""From finished cells to what they say: accuracies, paired differences, verdicts, sentences.

The *primary family*, on which verdicts are taken, is fixed beforehand: classical augmentation with generated digits
against classical augmentation alone, for each size (and each generator, where there are several), in accuracy. Where
classes are cut, the baseline draws all classes equally often and the measure is balanced accuracy. Everything else is
descriptive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.experiment.arms import ARMS, PRIMARY, UNBALANCED_BASELINE, ArmName
from digitforge_evaluation.experiment.statistics import (
    SUBSETS_FOR_A_VERDICT,
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
#: A learning curve that misses a measured error by more, as a share of the held-out images, is not to be relied on.
_MISFIT: Final = 0.01
Measure = Literal["accuracy", "balanced accuracy"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over subsets."""

    mean: float
    interval: Interval | None  # Student's, for the mean; None for a single subset


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm at one size."""

    arm: str
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

    arm: str
    baseline: str
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
    measure: Measure = "accuracy"  # of the comparisons
    baseline: str = PRIMARY[1]  # of the primary family

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
        self._baseline = UNBALANCED_BASELINE if minority else PRIMARY[1]
        self._score: Callable[[CellResult], float] = _balanced if minority else _accuracy

    def analysis(self) -> Analysis:
        sizes = sorted({key.n_per_class for key in self._cells})
        names = sorted({key.arm for key in self._cells}, key=_display_order)
        pairs = [(arm, n) for n in sizes for arm in names]
        primary = [
            self._compare(arm, self._baseline, n, primary=True)
            for arm, n in pairs
            if _is_primary(arm) and self._shared(arm, self._baseline, n)
        ]
        others = [
            (arm, baseline, n)
            for baseline in (self._baseline, "real")
            for arm, n in pairs
            if arm != baseline
            # With the baseline, only what could take its place, and once.
            and (baseline == "real" or (ARMS[ArmName.parse(arm).arm].generator and not _is_primary(arm)))
        ]
        variants = [(arm, plain, n) for arm, n in pairs if (plain := _without_variant(arm)) != arm]
        descriptive = [
            self._compare(arm, baseline, n, primary=False)
            for arm, baseline, n in (*variants, *others)
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

    def _subsets(self, arm: str, n: int) -> list[int]:
        return sorted(key.subset for key in self._cells if key.arm == arm and key.n_per_class == n)

    def _shared(self, arm: str, baseline: str, n: int) -> list[int]:
        return sorted({*self._subsets(arm, n)} & {*self._subsets(baseline, n)})

    def _values(
        self, arm: str, n: int, subsets: Sequence[int], score: Callable[[CellResult], float]
    ) -> npt.NDArray[np.float64]:
        return np.array(
            [score(self._cells[CellKey(n_per_class=n, subset=subset, arm=arm)]) for subset in subsets], np.float64
        )

    def _recall_of_minority(self, cell: CellResult) -> float:
        return float(np.mean(_recalls(cell.confusion)[list(self._minority)]))

    def _arm_result(self, arm: str, n: int) -> ArmResult:
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
        self, arm: str, baseline: str, n: int, score: Callable[[CellResult], float]
    ) -> npt.NDArray[np.float64]:
        subsets = self._shared(arm, baseline, n)
        return self._values(arm, n, subsets, score) - self._values(baseline, n, subsets, score)

    def _compare(self, arm: str, baseline: str, n: int, *, primary: bool) -> Comparison:
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

    def _worth(self, arm: str, n: int) -> Worth | None:
        def errors(name: str, size: int, subsets: Sequence[int]) -> npt.NDArray[np.float64]:
            return 1 - self._values(name, size, subsets, self._score)

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


def _is_primary(name: str) -> bool:
    arm = ArmName.parse(name)
    return arm.arm == PRIMARY[0] and not arm.variant


def _without_variant(name: str) -> str:
    return str(replace(ArmName.parse(name), variant=""))


def _display_order(name: str) -> tuple[int, str, float, str]:
    arm = ArmName.parse(name)
    ratio = float(arm.variant.removesuffix("×")) if arm.variant.endswith("×") else math.inf if arm.variant else 0.0
    return list(ARMS).index(arm.arm), arm.source, ratio, arm.variant


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


def points(difference: float) -> str:
    """A difference of accuracies in percentage points: ``+1.25``."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def sentence(comparison: Comparison, *, classes: int, measure: Measure = "accuracy") -> str:
    """What a comparison says, in a few sentences.

    Args:
        comparison: of the primary family.
        classes: number of classes, to say how many real images there were in all.
        measure: what the difference is one of.
    """
    n, arm = comparison.n_per_class, ArmName.parse(comparison.arm)
    in_all = f"{n * classes:,} in all" if measure == "accuracy" else "fewer of the classes that are cut"
    where = f"With {n} real image{'s' if n > 1 else ''} per class ({in_all})"
    article = "an" if arm.budget == "oracle" else "a"
    generator = f"{article} {arm.budget} generator" + (f" ({arm.generator})" if arm.generator else "")
    baseline = "classical augmentation" + (" of equally frequent classes" if measure != "accuracy" else "")
    what = f"adding the digits of {generator} to {baseline}"
    interval = comparison.simultaneous
    evidence = (
        f"{points(comparison.difference)} points of {measure} "
        f"({_interval(interval)}{comparison.subsets} subset{'s' if comparison.subsets > 1 else ''}, "
        f"p = {comparison.adjusted_p:.2g})"
    )
    match comparison.verdict:
        case "helps" | "hurts":
            said = f"{where}, {what} {comparison.verdict}: {evidence}."
        case "no evidence":
            assert comparison.detectable is not None
            said = (
                f"{where}, there is no evidence that {what} helps or hurts: {evidence}. "
                f"This many subsets find a difference of {100 * comparison.detectable:.2f} points four times in five."
            )
        case _:
            said = (
                f"{where}, {what} made a difference of {evidence}. This is descriptive: "
                f"a verdict needs {SUBSETS_FOR_A_VERDICT} subsets."
            )
    return said + (f" {worth_sentence(comparison.worth)}" if comparison.worth else "")


def worth_sentence(value: Worth) -> str:
    """What generated digits are worth, in one sentence."""
    if value.images is None:
        return "The learning curve does not fall over these sizes, so no number of real images can be told from it."
    bounds = [_count(bound) if bound is not None else "no bound" for bound in (value.low, value.high)]
    interval = "" if value.low is value.high is None else f" (95 % interval {bounds[0]} to {bounds[1]})"
    beyond = f"; beyond {value.sizes[-1]} per class the curve is extrapolated" if value.extrapolated else ""
    if value.misfit > _MISFIT:
        beyond += (
            f"; do not rely on it, because the learning curve misses the measured errors by up to "
            f"{100 * value.misfit:.1f} points"
        )
    return f"That is worth {_count(value.images)} real images per class{interval}{beyond}."


def _count(images: float) -> str:
    """A number of images, signed: two digits are all that a curve can tell."""
    return f"{float(f'{images:.2g}'):+,.{0 if abs(images) >= 9.5 else 1}f}".replace("-", "−")


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    kind = "simultaneous 95 % interval" if interval.confidence > 1 - LEVEL else "95 % interval"
    return f"{kind} {points(interval.low)} to {points(interval.high)}, "
