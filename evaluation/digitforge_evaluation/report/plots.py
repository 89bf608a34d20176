"""The report's pictures, as PNG files in memory. Each plot comes in four styles: wide or narrow, light or dark."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.experiment.analysis import Analysis, ArmResult
from digitforge_evaluation.experiment.arms import PLAIN, Arm
from digitforge_evaluation.experiment.sentences import points


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a plot looks."""

    width: float  # inches, at 100 dots each: the width at which text has its natural size
    ink: str
    faint: str
    accent: str
    paper: str


_LIGHT: Final = {"ink": "#1d2433", "faint": "#c9cfda", "accent": "#0b63b5", "paper": "#ffffff"}
_DARK: Final = {"ink": "#e6e9ef", "faint": "#475063", "accent": "#74b3f5", "paper": "#171b23"}
_WIDE, NARROW = 7.6, 3.5
_COLORS: Final = 128  # of a PNG's palette
_EDGE: Final = 5  # of a plot of differences, in the farthest ends of the primary family's intervals
STYLES: Final = {
    "wide light": Style(width=_WIDE, **_LIGHT),
    "wide dark": Style(width=_WIDE, **_DARK),
    "narrow light": Style(width=NARROW, **_LIGHT),
    "narrow dark": Style(width=NARROW, **_DARK),
}

#: One color and one marker per arm, the same in both themes; the marker alone tells arms apart without color.
MARKS: Final = {
    "real": ("#7d8697", "o"),
    "oversampled": ("#a98467", "v"),
    "noise": ("#b5a642", "^"),
    "smote": ("#8f6bb3", "<"),
    "classical": ("#d9822b", "s"),
    "classical+oversampled": ("#a3541f", ">"),
    "gan": ("#3c8dd9", "D"),
    "classical+gan": ("#2f9e6e", "P"),
    "synthetic": ("#d0506f", "X"),
}


def forest(analysis: Analysis, style: Style) -> bytes:
    """Every comparison as a point with its interval, the primary family on top. PNG.

    The axis is made for the primary family: what lies far beyond it is an arrow at the edge. A wide plot has numbers.
    """
    rows = [(c, i) for c in reversed(analysis.comparisons) if (i := c.simultaneous or c.interval) is not None]
    primary = [interval for comparison, interval in rows if comparison.primary] or [interval for _, interval in rows]
    edge = max(0.01, *(_EDGE * abs(end) for interval in primary for end in (interval.low, interval.high)))
    figure, axes = axes_of(style, height=0.9 + 0.34 * len(rows))
    narrow = style.width == NARROW
    for y, (comparison, interval) in enumerate(rows):
        color = style.accent if comparison.primary else style.ink
        ends = np.clip([interval.low, interval.high], -edge, edge)
        if ends[0] < ends[1]:
            axes.plot(100 * ends, [y, y], color=color, linewidth=2)
        if abs(comparison.difference) <= edge:
            axes.plot(100 * comparison.difference, y, marker="o", color=color, markersize=7)
        if interval.low < -edge:
            axes.plot(-100 * edge, y, marker="<", color=color, markersize=7)
        if interval.high > edge:
            axes.plot(100 * edge, y, marker=">", color=color, markersize=7)
        name = f"{comparison.arm} − {comparison.baseline}, n = {comparison.n_per_class}"
        across = axes.get_yaxis_transform()
        if narrow:  # above its point, or names would leave the points no room
            axes.text(
                0,
                y + 0.25,
                name,
                transform=across,
                fontsize=8,
                color=color,
                va="bottom",
                bbox={"facecolor": style.paper, "edgecolor": "none", "pad": 1},
            )
        else:
            axes.text(-0.02, y, name, transform=across, fontsize=9, color=color, ha="right", va="center")
            numbers = f"{points(comparison.difference)} [{points(interval.low)}, {points(interval.high)}]"
            axes.text(1.02, y, numbers, transform=across, fontsize=9, color=color, va="center")
    axes.axvline(0, color=style.ink, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks([])
    axes.set_ylim(-0.6, len(rows) - 0.2)
    axes.set_xlabel(f"points of {analysis.measure}")
    axes.grid(axis="x", color=style.faint, linewidth=0.6)
    return png_of(figure, style)


def accuracies(analysis: Analysis, style: Style) -> bytes:
    """Accuracy against the number of real images per class, with 95 % bands; dots where there is one size. PNG."""
    sizes = sorted({result.n_per_class for result in analysis.arms})
    arms = list(dict.fromkeys(result.arm for result in analysis.arms))
    return _curves(analysis, arms, style) if len(sizes) > 1 else _dots(analysis.arms, style)


def _curves(analysis: Analysis, arms: Sequence[Arm], style: Style) -> bytes:
    legend_rows = -(-len(arms) // (1 if style.width == NARROW else 3))
    figure, axes = axes_of(style, height=3.4 + 0.25 * legend_rows)
    sizes = sorted({result.n_per_class for result in analysis.arms})
    for arm in arms:
        results = {result.n_per_class: result for result in analysis.arms if result.arm == arm}
        means, lows, highs = np.full((3, len(sizes)), np.nan)  # what is missing is not drawn over
        for place, size in enumerate(sizes):
            if size in results:
                means[place] = 100 * results[size].accuracy
                if interval := results[size].interval:
                    lows[place], highs[place] = 100 * interval.low, 100 * interval.high
        color, marker = MARKS[arm.name]
        line = "solid" if arm.variant == PLAIN else (0, (4, 2))
        axes.plot(sizes, means, color=color, marker=marker, linestyle=line, label=str(arm))
        axes.fill_between(sizes, lows, highs, color=color, alpha=0.18, linewidth=0)
        beside = np.isnan(np.pad(means, 1, constant_values=np.nan))
        alone = beside[:-2] & beside[2:]  # no band is seen there
        axes.vlines(np.array(sizes)[alone], lows[alone], highs[alone], color=color, alpha=0.5, linewidth=1.5)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("real images per class")
    axes.set_ylabel("accuracy, %")
    axes.grid(color=style.faint, linewidth=0.6)
    figure.legend(
        loc="outside lower center", ncols=1 if style.width == NARROW else 3, frameon=False, labelcolor=style.ink
    )
    return png_of(figure, style)


def _dots(results: Sequence[ArmResult], style: Style) -> bytes:
    figure, axes = axes_of(style, height=0.9 + 0.34 * len(results))
    for y, result in enumerate(reversed(results)):
        color, marker = MARKS[result.arm.name]
        if result.interval is not None:
            axes.plot([100 * result.interval.low, 100 * result.interval.high], [y, y], color=color, linewidth=2)
        axes.plot([100 * result.accuracy], [y], color=color, marker=marker, markersize=7)
    # a generator's long name on a line of its own leaves a narrow plot its room
    gap = "\n(" if style.width == NARROW else " ("
    axes.set_yticks(range(len(results)), [str(result.arm).replace(" (", gap) for result in reversed(results)])
    axes.set_ylim(-0.6, len(results) - 0.4)
    axes.set_xlabel("accuracy, %")
    axes.grid(axis="x", color=style.faint, linewidth=0.6)
    return png_of(figure, style)


def axes_of(style: Style, *, height: float) -> tuple[Any, Any]:
    """A figure of *height* inches with one pair of axes, and these."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(style.width, height), layout="constrained", facecolor=style.paper)
    axes = figure.add_subplot(facecolor=style.paper)
    axes.tick_params(which="both", colors=style.ink, length=0, labelsize=9)
    axes.xaxis.label.set_color(style.ink)
    axes.yaxis.label.set_color(style.ink)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(style.faint)
    axes.set_axisbelow(True)
    return figure, axes


def png_of(figure: Any, style: Style) -> bytes:
    """The figure as a PNG file, with a palette because a plot has few colors: that takes a third of the room."""
    from PIL import Image

    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=200, facecolor=style.paper)
    Image.open(drawn).convert("RGB").quantize(_COLORS).save(packed, format="PNG", optimize=True)
    return packed.getvalue()


def sheet(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], *, classes: int, rows: int) -> bytes:
    """A sheet of images, one column per class. PNG.

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
