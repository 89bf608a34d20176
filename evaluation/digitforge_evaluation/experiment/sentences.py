"""What an analysis says, in words."""

from __future__ import annotations

from typing import Final

from digitforge_evaluation.experiment.analysis import LEVEL, Comparison, Measure
from digitforge_evaluation.experiment.statistics import SUBSETS_FOR_A_VERDICT, Interval
from digitforge_evaluation.experiment.worth import Worth

#: A learning curve that misses a measured error by more, as a share of the held-out images, is not to be relied on.
_MISFIT: Final = 0.01


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
    n, arm = comparison.n_per_class, comparison.arm
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
