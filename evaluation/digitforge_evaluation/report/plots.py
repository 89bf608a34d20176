"""The report's pictures, as PNG files in memory. Each plot comes in four kinds: wide or narrow, light or dark."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.analysis import Analysis, ArmResult, Comparison
from digitforge_evaluation.arms import ArmName


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
_WIDE, _NARROW = 7.6, 3.5
STYLES: Final = {
    "wide light": Style(width=_WIDE, **_LIGHT),
    "wide dark": Style(width=_WIDE, **_DARK),
    "narrow light": Style(width=_NARROW, **_LIGHT),
    "narrow dark": Style(width=_NARROW, **_DARK),
}

#: One colour and one marker per arm, the same in both themes; the marker alone tells arms apart without colour.
_MARKS: Final = {
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
    """Every comparison as a point with its interval, the primary family on top. PNG."""
    rows = [c for c in analysis.comparisons if c.interval is not None]
    figure, axes = _axes(style, height=0.9 + 0.34 * len(rows) + (0.3 if analysis.primary else 0.0))
    for y, comparison in enumerate(reversed(rows)):
        interval = comparison.simultaneous or comparison.interval
        assert interval is not None  # filtered above
        colour = style.accent if comparison.primary else style.ink
        axes.plot([100 * interval.low, 100 * interval.high], [y, y], color=colour, linewidth=2)
        axes.plot([100 * comparison.difference], [y], marker="o", color=colour, markersize=7)
    axes.axvline(0, color=style.ink, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(rows)), [_row_name(c, narrow=style.width == _NARROW) for c in reversed(rows)])
    for label, comparison in zip(axes.get_yticklabels(), reversed(rows), strict=True):
        label.set_color(style.accent if comparison.primary else style.ink)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("points of accuracy")
    axes.grid(axis="x", color=style.faint, linewidth=0.6)
    return _png(figure, style)


def _row_name(comparison: Comparison, *, narrow: bool) -> str:
    gap = "\n" if narrow else " "
    return f"{comparison.arm}{gap}− {comparison.baseline}, n = {comparison.n_per_class}"


def accuracies(analysis: Analysis, style: Style) -> bytes:
    """Accuracy against the number of real images per class, with 95 % bands; dots where there is one size. PNG."""
    sizes = sorted({result.n_per_class for result in analysis.arms})
    arms = list(dict.fromkeys(result.arm for result in analysis.arms))
    return _curves(analysis, arms, style) if len(sizes) > 1 else _dots(analysis.arms, style)


def _curves(analysis: Analysis, arms: Sequence[str], style: Style) -> bytes:
    legend_rows = -(-len(arms) // (1 if style.width == _NARROW else 3))
    figure, axes = _axes(style, height=3.4 + 0.25 * legend_rows)
    for arm in arms:
        results = [result for result in analysis.arms if result.arm == arm]
        colour, marker = _MARKS[ArmName.parse(arm).arm]
        x = [result.n_per_class for result in results]
        axes.plot(x, [100 * r.accuracy for r in results], color=colour, marker=marker, label=arm)
        banded = [r for r in results if r.interval is not None]
        axes.fill_between(
            [r.n_per_class for r in banded],
            [100 * r.interval.low for r in banded if r.interval],
            [100 * r.interval.high for r in banded if r.interval],
            color=colour,
            alpha=0.18,
            linewidth=0,
        )
    axes.set_xscale("log")
    sizes = sorted({result.n_per_class for result in analysis.arms})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("real images per class")
    axes.set_ylabel("accuracy, %")
    axes.grid(color=style.faint, linewidth=0.6)
    figure.legend(
        loc="outside lower center", ncols=1 if style.width == _NARROW else 3, frameon=False, labelcolor=style.ink
    )
    return _png(figure, style)


def _dots(results: Sequence[ArmResult], style: Style) -> bytes:
    figure, axes = _axes(style, height=0.9 + 0.34 * len(results))
    for y, result in enumerate(reversed(results)):
        colour, marker = _MARKS[ArmName.parse(result.arm).arm]
        if result.interval is not None:
            axes.plot([100 * result.interval.low, 100 * result.interval.high], [y, y], color=colour, linewidth=2)
        axes.plot([100 * result.accuracy], [y], color=colour, marker=marker, markersize=7)
    axes.set_yticks(range(len(results)), [result.arm for result in reversed(results)])
    axes.set_ylim(-0.6, len(results) - 0.4)
    axes.set_xlabel("accuracy, %")
    axes.grid(axis="x", color=style.faint, linewidth=0.6)
    return _png(figure, style)


def _axes(style: Style, *, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(style.width, height), layout="constrained", facecolor=style.paper)
    axes = figure.add_subplot(facecolor=style.paper)
    axes.tick_params(colors=style.ink, length=0, labelsize=9)
    axes.xaxis.label.set_color(style.ink)
    axes.yaxis.label.set_color(style.ink)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(style.faint)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Any, style: Style) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, facecolor=style.paper)
    return buffer.getvalue()


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
