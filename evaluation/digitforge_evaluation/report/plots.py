"""The plots of accuracies and of their differences, as SVG; and sheets of images, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.experiment.analysis import Analysis, ArmResult, Comparison, Measure
from digitforge_evaluation.experiment.arms import PLAIN, Arm
from digitforge_evaluation.experiment.statistics import Interval
from digitforge_evaluation.report.svg import (
    ACCENT,
    INK,
    LINE,
    PAPER,
    SMALL,
    WIDTH,
    axes_of,
    legend_below,
    svg_of,
    wrapped,
)

_EDGE: Final = 5  # half the axis of differences, in units of the farthest interval end
# Heights in the plot of differences, in inches.
_ROW: Final = 0.2  # an interval
_LINE: Final = 0.15  # a line of its name
_BELOW: Final = 0.45  # the axis
_BORDER: Final = 6  # units beside the axis, on either side
_SHORT: Final = 22  # characters: names up to this length fit into a legend of two columns

#: One color and one marker for each arm, on light and dark pages. The marker alone tells arms apart without color.
MARKS: Final = {
    "real": ("#7d8697", "o"),
    "oversampled": ("#a98467", "v"),
    "noise": ("#b5a642", "^"),
    "smote": ("#8f6bb3", "<"),
    "classical": ("#d9822b", "s"),
    "classical+oversampled": ("#a3541f", ">"),
    "pseudo-labeled": ("#4f9aa8", "p"),
    "gan": ("#3c8dd9", "D"),
    "classical+gan": ("#2f9e6e", "P"),
    "classical+pretrained": ("#7a6ad8", "h"),
    "synthetic": ("#d0506f", "X"),
}


def forest(comparisons: Sequence[Comparison], measure: Measure, *, within: Sequence[Comparison] = ()) -> str:
    """Comparisons as points with their intervals, the first one on top. SVG.

    Args:
        comparisons: those with an interval are drawn, at least one.
        measure: the score that is compared.
        within: the comparisons that set the range of the axis; none for *comparisons*. An arrow at the edge marks a
            value outside of it.
    """
    rows = [(c, i) for c in comparisons if (i := _interval(c)) is not None]
    ends = [end for c in within or comparisons if (i := _interval(c)) for end in (i.low, i.high)]
    edge = max(0.01, *(_EDGE * abs(end) for end in ends))
    names = [
        wrapped(f"{c.arm} − {c.baseline}, n\u00a0=\u00a0{c.n_per_class}", units=72 * WIDTH - 2 * _BORDER, size=SMALL)
        for c, _ in rows
    ]
    heights = [_ROW + _LINE * len(name) for name in names]
    figure, axes = axes_of(height=_BELOW + sum(heights))
    bottom = sum(heights)
    for (comparison, interval), name, height in zip(rows, names, heights, strict=True):
        bottom -= height
        y = bottom + _ROW / 2
        color = ACCENT if comparison.primary else INK
        shown = np.clip([interval.low, interval.high], -edge, edge)
        if shown[0] < shown[1]:
            axes.plot(100 * shown, [y, y], color=color, linewidth=2)
        if abs(comparison.difference) <= edge:
            axes.plot(100 * comparison.difference, y, marker="o", color=color, markersize=5)
        if interval.low < -edge:
            axes.plot(-100 * edge, y, marker="<", color=color, markersize=5)
        if interval.high > edge:
            axes.plot(100 * edge, y, marker=">", color=color, markersize=5)
        axes.text(
            0,
            bottom + 0.8 * _ROW,
            "\n".join(name),
            transform=axes.get_yaxis_transform(),
            fontsize=SMALL,
            color=color,
            va="bottom",
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1},
            in_layout=False,  # a long name must not push the axis aside
        )
    axes.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks([])
    axes.set_ylim(0, sum(heights))
    axes.set_xlabel(f"points of {measure}")
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    return svg_of(figure, f"differences in {measure} with their intervals, {len(rows)} of them")


def _interval(comparison: Comparison) -> Interval | None:
    return comparison.simultaneous or comparison.interval


def accuracies(analysis: Analysis) -> str:
    """Accuracy against the number of real images per class, with 95 % bands; dots if there is one size. SVG."""
    sizes = sorted({result.n_per_class for result in analysis.arms})
    arms = list(dict.fromkeys(result.arm for result in analysis.arms))
    return _curves(analysis, arms) if len(sizes) > 1 else _dots(analysis.arms)


def _curves(analysis: Analysis, arms: Sequence[Arm]) -> str:
    columns = 2 if max(len(str(arm)) for arm in arms) <= _SHORT else 1
    figure, axes = axes_of(height=3 + 0.19 * -(-len(arms) // columns))
    sizes = sorted({result.n_per_class for result in analysis.arms})
    for arm in arms:
        results = {result.n_per_class: result for result in analysis.arms if result.arm == arm}
        means, lows, highs = np.full((3, len(sizes)), np.nan)  # a missing size leaves a gap
        for place, size in enumerate(sizes):
            if size in results:
                means[place] = 100 * results[size].accuracy
                if interval := results[size].interval:
                    lows[place], highs[place] = 100 * interval.low, 100 * interval.high
        color, marker = MARKS[arm.name]
        line = "solid" if arm.variant == PLAIN else (0, (4, 2))
        axes.plot(sizes, means, color=color, marker=marker, markersize=5, linestyle=line, label=str(arm))
        axes.fill_between(sizes, lows, highs, color=color, alpha=0.18, linewidth=0)
        beside = np.isnan(np.pad(means, 1, constant_values=np.nan))
        alone = beside[:-2] & beside[2:]  # sizes without a neighbor have no visible band
        axes.vlines(np.array(sizes)[alone], lows[alone], highs[alone], color=color, alpha=0.5, linewidth=1.5)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("real images per class")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(_within_percent(axes.get_ylim()))
    axes.grid(color=LINE, linewidth=0.6)
    legend_below(figure, columns=columns)
    return svg_of(figure, "accuracy of each arm")


def _dots(results: Sequence[ArmResult]) -> str:
    figure, axes = axes_of(height=0.7 + 0.34 * len(results))
    for y, result in enumerate(reversed(results)):
        color, marker = MARKS[result.arm.name]
        if result.interval is not None:
            axes.plot([100 * result.interval.low, 100 * result.interval.high], [y, y], color=color, linewidth=2)
        axes.plot([100 * result.accuracy], [y], color=color, marker=marker, markersize=6)
    # A generator's long name on a second line leaves room for the points.
    axes.set_yticks(range(len(results)), [str(result.arm).replace(" (", "\n(") for result in reversed(results)])
    axes.tick_params(axis="y", labelsize=SMALL)
    axes.set_ylim(-0.6, len(results) - 0.4)
    axes.set_xlim(_within_percent(axes.get_xlim()))
    axes.set_xlabel("accuracy, %")
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    return svg_of(figure, "accuracy of each arm")


def _within_percent(limits: tuple[float, float]) -> tuple[float, float]:
    """Limits of an axis of accuracies. The interval of a few subsets may end below 0 or above 100 %."""
    return max(limits[0], -1.0), min(limits[1], 101.0)


def sheet(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], *, classes: int, rows: int) -> bytes:
    """A sheet of images, one column for each class. PNG.

    Args:
        images: (n, H, W, C) uint8, C 1 or 3.
        labels: (n,) int64.
        classes: number of classes.
        rows: images of each class, from the first one on; gaps stay black.
    """
    from PIL import Image

    height, width, channels = images.shape[1:]
    canvas = np.zeros((rows, height, classes, width, channels), np.uint8)
    for label in range(classes):
        of_class = images[labels == label][:rows]
        canvas[: len(of_class), :, label] = of_class
    pixels = canvas.reshape(rows * height, classes * width, channels)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, format="PNG")
    return buffer.getvalue()
