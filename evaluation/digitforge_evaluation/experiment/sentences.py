"""The sentences that report an analysis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from digitforge_client.common.numerals import grouped
from digitforge_evaluation.experiment.analysis import Analysis, Comparison, Measure
from digitforge_evaluation.experiment.statistics import SUBSETS_FOR_A_VERDICT, subsets_needed
from digitforge_evaluation.experiment.worth import Worth

#: Warn when the learning curve misses a size that is left out by more than this share of the held-out images.
_LARGEST_MISFIT: Final = 0.01
#: The summary names each comparison if there are at most this many. Otherwise it counts them.
_NAMED: Final = 3
_PLACED: Final = {
    "helps": "generated images help",
    "hurts": "generated images hurt",
    "inconclusive": "the effect of generated images is inconclusive",
    "descriptive": "there is no verdict",
}
_COUNTED: Final = {
    "helps": "they help in",
    "hurts": "they hurt in",
    "inconclusive": "the effect is inconclusive in",
    "descriptive": "there is no verdict in",
}
#: Name the share of one held-out image if it is larger.
_COARSE: Final = 0.002


def points(difference: float) -> str:
    """Format a difference of accuracies in percentage points: ``+1.25``."""
    return f"{100 * difference:+z.2f}".replace("-", "−")


def summary(analysis: Analysis, *, data: str, classifier: str) -> str:
    """The result of an experiment in one sentence, for a reader who reads nothing else.

    Args:
        analysis: the results.
        data: name of the real images.
        classifier: name of the classifier.
    """
    where = f"On {data}, with the classifier {classifier},"
    primary = analysis.primary
    found = {
        name: [comparison for comparison in primary if comparison.verdict == name]
        for name in ("helps", "hurts", "inconclusive", "descriptive")
    }
    if not primary or len(found["descriptive"]) == len(primary):
        return f"{where} there is no verdict yet on whether generated images help."
    if len(primary) > _NAMED:
        counts = [f"{words} {len(found[name])}" for name, words in _COUNTED.items() if found[name]]
        return f"{where} generated images were tested in {len(primary)} comparisons: {', '.join(counts)}."
    parts = [
        f"{words} with {_and([_place(each, primary) for each in found[name]])}"
        for name, words in _PLACED.items()
        if found[name]
    ]
    return f"{where} {_and(parts)}."


def _place(comparison: Comparison, primary: Sequence[Comparison]) -> str:
    """Where a comparison was made: ``10 real images per class (+1.25 points)``."""
    n = comparison.n_per_class
    several = len({each.arm.source for each in primary}) > 1
    generator = f"{comparison.arm.source}: " if several else ""
    return f"{n} real image{'s' if n > 1 else ''} per class ({generator}{points(comparison.difference)} points)"


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def sentence(comparison: Comparison, *, classes: int, measure: Measure = "accuracy") -> str:
    """The verdict on a comparison, in a few sentences.

    Args:
        comparison: one of the primary family.
        classes: number of classes. The sentence gives the total number of real images.
        measure: the score that is compared.
    """
    n, arm = comparison.n_per_class, comparison.arm
    balanced = measure != "accuracy"
    total = "fewer of each cut class" if balanced else f"{grouped(n * classes)} in total"
    size = f"With {n} real image{'s' if n > 1 else ''} per class ({total})"
    article = "an" if arm.budget[:1] in ("a", "o") else "a"
    generator = f"{article} {arm.budget} generator" + (f" ({arm.generator})" if arm.generator else "")
    baseline = "class-balanced classical augmentation" if balanced else "classical augmentation"
    change = f"adding images from {generator} to {baseline}"
    evidence = (
        f"{points(comparison.difference)} points of {measure} on {grouped(comparison.held_out)} held-out images "
        f"({_details(comparison)})"
    )
    match comparison.verdict:
        case "helps" | "hurts":
            text = f"{size}, {change} {comparison.verdict}: {evidence}."
        case "inconclusive":
            text = f"{size}, the effect of {change} is inconclusive: {evidence}. {_power(comparison)}"
        case _:
            text = f"{size}, {change} gives {evidence}. This is descriptive: {_missing(comparison)}."
    return " ".join([text, *_warnings(comparison)])


def fair_sentence(comparison: Comparison) -> str:
    """Compare an arm with the arm that uses the same information in the usual way.

    Args:
        comparison: one of ``Analysis.fair``.
    """
    interval = comparison.interval
    details = f"95 % interval {points(interval.low)} to {points(interval.high)}, " if interval else ""
    n, pretrained = comparison.n_per_class, comparison.baseline.design.pretrained
    how = "by pretraining the classifier" if pretrained else "without a generator"
    side = "above" if comparison.difference >= 0 else "below"
    distance = f"{100 * abs(comparison.difference):.2f} points {side}"
    return (
        f"With {n} real image{'s' if n > 1 else ''} per class, {comparison.arm} is {distance} {comparison.baseline}, "
        f"which uses the same information {how} "
        f"({details}{_subsets(comparison.subsets)}, descriptive)."
    )


def _details(comparison: Comparison) -> str:
    """Interval, number of subsets and p-value."""
    parts = []
    if (interval := comparison.simultaneous) is not None:
        name = "simultaneous 95 % interval" if comparison.family > 1 else "95 % interval"
        parts.append(f"{name} {points(interval.low)} to {points(interval.high)}")
    parts.append(_subsets(comparison.subsets))
    if comparison.adjusted_p is not None:
        correction = f" after correction for {comparison.family} comparisons" if comparison.family > 1 else ""
        parts.append(f"p = {comparison.adjusted_p:.2g}{correction}")
    return ", ".join(parts)


def _power(comparison: Comparison) -> str:
    """What the comparison could have found."""
    subsets = _subsets(comparison.subsets)
    if comparison.detectable is None:
        return (
            f"{subsets} cannot give a verdict on {comparison.family} comparisons. Plan at least "
            f"{subsets_needed(comparison.family)} subsets."
        )
    return (
        f"With {subsets}, a true difference of {100 * comparison.detectable:.2f} points would be found with 80 % "
        "probability."
    )


def _missing(comparison: Comparison) -> str:
    if comparison.subsets < comparison.planned:
        return f"only {comparison.subsets} of {_subsets(comparison.planned)} are finished"
    return f"a verdict needs at least {SUBSETS_FOR_A_VERDICT} subsets"


def _warnings(comparison: Comparison) -> list[str]:
    """Sentences on what limits the result, and its worth."""
    found = []
    if comparison.skewness is not None:
        found.append(
            f"Caution: the differences are strongly skewed (skewness {comparison.skewness:+.1f}), so the error of the "
            "test may exceed 5 %.".replace("-", "−")
        )
    if comparison.one_image > _COARSE:
        found.append(f"One held-out image is worth {100 * comparison.one_image:.2f} points.")
    if comparison.worth:
        found.append(worth_sentence(comparison.worth))
    return found


def worth_sentence(value: Worth) -> str:
    """What the generated images are worth in real images, in one to three sentences."""
    if value.images is None:
        return (
            "The effect cannot be expressed in real images, because the baseline's error does not fall with more of "
            "them."
        )
    if value.beyond and abs(value.images) < 0.5:  # the arm has the smallest or the largest size
        which = "larger" if value.n == value.sizes[-1] else "smaller"
        return f"The effect cannot be expressed in real images, because no {which} size was measured."
    direction = "fewer" if value.images < 0 else "more"
    end, size = ("largest", value.sizes[-1]) if value.images > 0 else ("smallest", value.sizes[0])
    number = f"{'more than ' if value.beyond else ''}{_rounded(abs(value.images))} {direction} real images per class"
    text = f"The effect equals {number}{_worth_interval(value)}."
    if value.beyond:
        text += f" No measured size has this accuracy; the {end} has {size} image{'s' if size > 1 else ''} per class."
    if value.misfit is not None and value.misfit > _LARGEST_MISFIT:
        text += (
            " Do not rely on this number: the learning curve misses a size that is left out by "
            f"{100 * value.misfit:.1f} points."
        )
    return text


def _worth_interval(value: Worth) -> str:
    if value.low is value.high is None:
        return ""
    low = f"less than {_signed(value.sizes[0] - value.n)}" if value.low is None else _signed(value.low)
    high = f"more than {_signed(value.sizes[-1] - value.n)}" if value.high is None else _signed(value.high)
    return f" (95 % interval {low} to {high})"


def _rounded(images: float) -> str:
    """A number of images, rounded to the two digits that a learning curve can support."""
    return grouped(float(f"{images:.2g}"), decimals=0 if abs(images) >= 9.5 else 1)


def _signed(images: float) -> str:
    return ("−" if images < 0 else "+") + _rounded(abs(images))


def _subsets(number: int) -> str:
    return f"{number} subset{'s' if number > 1 else ''}"
