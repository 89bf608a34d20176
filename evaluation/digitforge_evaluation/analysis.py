"""From finished cells to what they say: accuracies, paired differences, verdicts, sentences.

The *primary family*, on which verdicts are taken, is fixed beforehand: classical augmentation with generated digits
against classical augmentation alone, for each size (and each generator, where there are several). Everything else
is descriptive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from digitforge_evaluation.arms import ARMS, PRIMARY, split_name
from digitforge_evaluation.statistics import (
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
from digitforge_evaluation.store import CellKey, CellResult

LEVEL: Final = 0.05


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """One arm at one size."""

    arm: str
    n_per_class: int
    subsets: int
    accuracy: float  # mean over subsets
    interval: Interval | None  # Student's, for the mean; None for a single subset
    recalls: tuple[float, ...]  # of each class, over all subsets


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An arm's accuracy minus a baseline's, paired by subset."""

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
    detectable: float | None = None  # smallest difference found with probability 0.8
    verdict: Verdict = "descriptive"


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the finished cells of an experiment say."""

    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]
    cells: int
    seconds: float  # spent in cells

    @property
    def primary(self) -> tuple[Comparison, ...]:
        """The comparisons that verdicts are taken on."""
        return tuple(comparison for comparison in self.comparisons if comparison.primary)


def analyse(cells: Mapping[CellKey, CellResult]) -> Analysis:
    """Compare every arm with the real images alone, and the primary family with its baseline.

    Args:
        cells: finished cells; some may be missing, and then only subsets that two arms share are compared.
    """
    sizes = sorted({key.n_per_class for key in cells})
    names = sorted({key.arm for key in cells}, key=_display_order)
    arms = [_arm_result(cells, arm, n) for n in sizes for arm in names if _subsets(cells, arm, n)]
    primary = [
        _compare(cells, arm, PRIMARY[1], n, primary=True)
        for n in sizes
        for arm in names
        if split_name(arm)[0] == PRIMARY[0] and _shared(cells, arm, PRIMARY[1], n)
    ]
    others = [
        _compare(cells, arm, "real", n, primary=False)
        for n in sizes
        for arm in names
        if arm != "real" and _shared(cells, arm, "real", n)
    ]
    return Analysis(
        arms=tuple(arms),
        comparisons=(*_judged(primary, cells), *others),
        cells=len(cells),
        seconds=sum(cell.seconds for cell in cells.values()),
    )


def _display_order(arm: str) -> tuple[int, str]:
    name, budget = split_name(arm)
    return list(ARMS).index(name), budget


def _subsets(cells: Mapping[CellKey, CellResult], arm: str, n: int) -> list[int]:
    return sorted(key.subset for key in cells if key.arm == arm and key.n_per_class == n)


def _shared(cells: Mapping[CellKey, CellResult], arm: str, baseline: str, n: int) -> list[int]:
    return sorted({*_subsets(cells, arm, n)} & {*_subsets(cells, baseline, n)})


def _arm_result(cells: Mapping[CellKey, CellResult], arm: str, n: int) -> ArmResult:
    of_arm = [cells[CellKey(n_per_class=n, subset=subset, arm=arm)] for subset in _subsets(cells, arm, n)]
    accuracies = [cell.accuracy for cell in of_arm]
    confusion = np.sum([cell.confusion for cell in of_arm], axis=0)
    recalls = np.diag(confusion) / np.maximum(confusion.sum(axis=1), 1)
    return ArmResult(
        arm=arm,
        n_per_class=n,
        subsets=len(of_arm),
        accuracy=float(np.mean(accuracies)),
        interval=t_interval(accuracies) if len(accuracies) > 1 else None,
        recalls=tuple(float(recall) for recall in recalls),
    )


def _differences(cells: Mapping[CellKey, CellResult], arm: str, baseline: str, n: int) -> list[float]:
    return [
        cells[CellKey(n_per_class=n, subset=subset, arm=arm)].accuracy
        - cells[CellKey(n_per_class=n, subset=subset, arm=baseline)].accuracy
        for subset in _shared(cells, arm, baseline, n)
    ]


def _compare(cells: Mapping[CellKey, CellResult], arm: str, baseline: str, n: int, *, primary: bool) -> Comparison:
    differences = _differences(cells, arm, baseline, n)
    several = len(differences) > 1
    return Comparison(
        arm=arm,
        baseline=baseline,
        n_per_class=n,
        subsets=len(differences),
        difference=float(np.mean(differences)),
        interval=t_interval(differences) if several else None,
        bootstrap=bootstrap_interval(differences) if several else None,
        p_value=permutation_p_value(differences),
        primary=primary,
    )


def _judged(family: list[Comparison], cells: Mapping[CellKey, CellResult]) -> list[Comparison]:
    """The primary family with what belongs to a family: adjusted p-values, simultaneous intervals, verdicts."""
    judged = []
    for comparison, adjusted in zip(family, holm([c.p_value for c in family]), strict=True):
        differences = _differences(cells, comparison.arm, comparison.baseline, comparison.n_per_class)
        several = len(differences) > 1
        judged.append(
            replace(
                comparison,
                adjusted_p=adjusted,
                simultaneous=t_interval(differences, confidence=1 - LEVEL / len(family)) if several else None,
                detectable=smallest_detectable(differences) if several else None,
                verdict=verdict(mean=comparison.difference, adjusted_p=adjusted, subsets=comparison.subsets),
            )
        )
    return judged


def points(difference: float) -> str:
    """A difference of accuracies in percentage points: ``+1.25``."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def sentence(comparison: Comparison, *, classes: int) -> str:
    """What a comparison says, in one sentence or two.

    Args:
        comparison: of the primary family.
        classes: number of classes, to say how many real images there were in all.
    """
    n = comparison.n_per_class
    budget = split_name(comparison.arm)[1]
    where = f"With {n} real image{'s' if n > 1 else ''} per class ({n * classes:,} in all)"
    article = "an" if budget == "oracle" else "a"
    what = f"adding the digits of {article} {budget} generator to classical augmentation"
    interval = comparison.simultaneous
    evidence = (
        f"{points(comparison.difference)} points of accuracy "
        f"({_interval(interval)}{comparison.subsets} subset{'s' if comparison.subsets > 1 else ''}, "
        f"p = {comparison.adjusted_p:.2g})"
    )
    match comparison.verdict:
        case "helps" | "hurts":
            return f"{where}, {what} {comparison.verdict}: {evidence}."
        case "no evidence":
            assert comparison.detectable is not None
            return (
                f"{where}, there is no evidence that {what} helps or hurts: {evidence}. "
                f"This many subsets find a difference of {100 * comparison.detectable:.2f} points four times in five."
            )
        case _:
            return (
                f"{where}, {what} made a difference of {evidence}. This is descriptive: "
                f"a verdict needs {SUBSETS_FOR_A_VERDICT} subsets."
            )


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    kind = "simultaneous 95 % interval" if interval.confidence > 1 - LEVEL else "95 % interval"
    return f"{kind} {points(interval.low)} to {points(interval.high)}, "
