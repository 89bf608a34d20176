"""The report's pictures, as PNG files in memory. Each plot comes in four kinds: wide or narrow, light or dark."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.experiment.analysis import Analysis, ArmResult, Measure, points
from digitforge_evaluation.experiment.arms import ArmName
from digitforge_evaluation.experiment.benefit import Benefit


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
_COLORS: Final = 128  # of a PNG's palette
_EDGE: Final = 5  # of a plot of differences, in the farthest ends of the primary family's intervals
_WRITTEN_CLASSES: Final = 12  # up to so many, numbers and names fit into a confusion matrix
STYLES: Final = {
    "wide light": Style(width=_WIDE, **_LIGHT),
    "wide dark": Style(width=_WIDE, **_DARK),
    "narrow light": Style(width=_NARROW, **_LIGHT),
    "narrow dark": Style(width=_NARROW, **_DARK),
}

#: One color and one marker per arm, the same in both themes; the marker alone tells arms apart without color.
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
    """Every comparison as a point with its interval, the primary family on top. PNG.

    The axis is made for the primary family: what lies far beyond it is an arrow at the edge. A wide plot has numbers.
    """
    rows = [(c, i) for c in reversed(analysis.comparisons) if (i := c.simultaneous or c.interval) is not None]
    primary = [interval for comparison, interval in rows if comparison.primary] or [interval for _, interval in rows]
    edge = max(0.01, *(_EDGE * abs(end) for interval in primary for end in (interval.low, interval.high)))
    figure, axes = _axes(style, height=0.9 + 0.34 * len(rows))
    narrow = style.width == _NARROW
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
    return _png(figure, style)


def accuracies(analysis: Analysis, style: Style) -> bytes:
    """Accuracy against the number of real images per class, with 95 % bands; dots where there is one size. PNG."""
    sizes = sorted({result.n_per_class for result in analysis.arms})
    arms = list(dict.fromkeys(result.arm for result in analysis.arms))
    return _curves(analysis, arms, style) if len(sizes) > 1 else _dots(analysis.arms, style)


def _curves(analysis: Analysis, arms: Sequence[str], style: Style) -> bytes:
    legend_rows = -(-len(arms) // (1 if style.width == _NARROW else 3))
    figure, axes = _axes(style, height=3.4 + 0.25 * legend_rows)
    sizes = sorted({result.n_per_class for result in analysis.arms})
    for arm in arms:
        results = {result.n_per_class: result for result in analysis.arms if result.arm == arm}
        means, lows, highs = np.full((3, len(sizes)), np.nan)  # what is missing is not drawn over
        for place, size in enumerate(sizes):
            if size in results:
                means[place] = 100 * results[size].accuracy
                if interval := results[size].interval:
                    lows[place], highs[place] = 100 * interval.low, 100 * interval.high
        color, marker = _MARKS[ArmName.parse(arm).arm]
        line = (0, (4, 2)) if ArmName.parse(arm).variant else "solid"
        axes.plot(sizes, means, color=color, marker=marker, linestyle=line, label=arm)
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
        loc="outside lower center", ncols=1 if style.width == _NARROW else 3, frameon=False, labelcolor=style.ink
    )
    return _png(figure, style)


def compared(analysis: Analysis, n: int) -> tuple[ArmResult, ...]:
    """The two arms at one size whose confusion is shown: the baseline and what is compared with it, if both ran."""
    results = {result.arm: result for result in analysis.arms if result.n_per_class == n}
    pairs = [(c.baseline, c.arm) for c in analysis.comparisons if c.n_per_class == n]  # the primary ones come first
    return tuple(results[name] for name in pairs[0]) if pairs else ()


def confusions(results: Sequence[ArmResult], class_names: Sequence[str], style: Style) -> bytes:
    """One matrix for each arm: what share of each class's images is taken for each other class. PNG.

    The diagonal, which would outshine everything, holds the recall as a number only.

    Args:
        results: the arms.
        class_names: of the matrices' rows and columns.
        style: how it looks; narrow matrices stand below each other.
    """
    from matplotlib.figure import Figure

    stacked = style.width == _NARROW
    side = style.width if stacked else style.width / len(results)
    figure = Figure(
        figsize=(style.width, side * (len(results) if stacked else 1) + 0.3),
        layout="constrained",
        facecolor=style.paper,
    )
    shares = [np.array(r.confusion) / np.maximum(np.sum(r.confusion, axis=1, keepdims=True), 1) for r in results]
    wrong = [np.where(np.eye(len(share), dtype=bool), 0.0, share) for share in shares]
    strongest = max(*(float(part.max()) for part in wrong), 0.01)
    written = len(class_names) <= _WRITTEN_CLASSES
    for axes, result, share, errors in zip(
        np.ravel(figure.subplots(len(results) if stacked else 1, 1 if stacked else len(results))),
        results,
        shares,
        wrong,
        strict=True,
    ):
        axes.set_facecolor(style.paper)
        axes.imshow(_shades(errors / strongest, style))
        for row, column in np.argwhere(share >= 0.005) if written else ():
            loud = errors[row, column] > 0.65 * strongest
            axes.text(
                column,
                row,
                f"{100 * share[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color=style.paper if loud else style.ink,
                fontweight="bold" if row == column else "normal",
                in_layout=False,  # it stays inside, so the layout need not measure it
            )
        axes.set_title(result.arm, color=style.ink, fontsize=9)
        if written:
            axes.set_xticks(range(len(class_names)), class_names)
            axes.set_yticks(range(len(class_names)), class_names)
        axes.set_xlabel("taken for", color=style.ink)
        axes.set_ylabel("is a", color=style.ink)
        axes.tick_params(colors=style.ink, length=0, labelsize=8)
        for spine in axes.spines.values():
            spine.set_color(style.faint)
    return _png(figure, style)


def _shades(shares: npt.NDArray[np.float64], style: Style) -> npt.NDArray[np.float64]:
    """From the paper's color (0) to the accent (1): (h, w) => (h, w, 3)."""
    from matplotlib.colors import to_rgb

    paper, accent = np.array(to_rgb(style.paper)), np.array(to_rgb(style.accent))
    return paper + shares[..., np.newaxis] * (accent - paper)


def distance_against_benefit(benefit: Benefit, measure: Measure, style: Style) -> bytes:
    """Each generator's difference against its distance, one marker per arm, one shade per size. PNG."""
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axes = _axes(style, height=4.2)
    sizes = sorted({point.n_per_class for point in benefit.points})
    for point in benefit.points:
        color, marker = _MARKS[point.arm]
        alpha = 1 - 0.6 * sizes.index(point.n_per_class) / len(sizes)
        if point.interval is not None:
            axes.plot(
                [point.distance] * 2,
                [100 * point.interval.low, 100 * point.interval.high],
                color=color,
                alpha=0.5 * alpha,
                linewidth=1.5,
            )
        label = f"{point.arm} − {point.baseline}, n = {point.n_per_class}"
        known = label in axes.get_legend_handles_labels()[1]
        axes.plot(
            [point.distance],
            [100 * point.difference],
            color=color,
            marker=marker,
            alpha=alpha,
            linestyle="none",
            label=None if known else label,
        )
    axes.axhline(0, color=style.ink, linewidth=1, linestyle=(0, (4, 3)))
    distances = [point.distance for point in benefit.points]
    if min(distances) > 0 and max(distances) > 10 * min(distances):
        axes.set_xscale("log")
        few = max(distances) < 100 * min(distances)  # then powers of ten alone would be too few ticks
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.15)
    axes.set_xlabel(benefit.distance_name)
    axes.set_ylabel(f"points of {measure}")
    axes.grid(color=style.faint, linewidth=0.6)
    figure.legend(
        loc="outside lower center", ncols=1 if style.width == _NARROW else 2, frameon=False, labelcolor=style.ink
    )
    highest = {point.generator: point for point in sorted(benefit.points, key=lambda point: point.difference)}
    name_points(
        axes,
        [(p.distance, 100 * p.difference) for p in benefit.points],
        style,
        {name: (point.distance, 100 * point.difference) for name, point in highest.items()},
    )
    return _png(figure, style)


def name_points(
    axes: Any, points: Sequence[tuple[float, float]], style: Style, names: Mapping[str, tuple[float, float]]
) -> None:
    """Write a name beside each point that has one, where it covers no other name, no point and not the line at zero."""
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # decides where points are
    zero = axes.transData.transform((points[0][0], 0))[1]
    taken = [Bbox.from_extents(axes.bbox.x0, zero - 1, axes.bbox.x1, zero + 1)]
    taken += [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in axes.transData.transform(points)]
    for name, point in names.items():
        label = axes.annotate(
            name, point, xytext=(0, 0), textcoords="offset points", fontsize=7, color=style.ink, in_layout=False
        )
        for far, (right, up) in itertools.product((5, 13, 21, 29), ((1, 1), (1, -1), (-1, 1), (-1, -1))):
            label.set(ha="left" if right > 0 else "right", va="bottom" if up > 0 else "top")
            label.xyann = (5 * right, far * up)
            box = label.get_window_extent()
            inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
            if inside and not box.count_overlaps(taken):
                break
        taken.append(box)


def _dots(results: Sequence[ArmResult], style: Style) -> bytes:
    figure, axes = _axes(style, height=0.9 + 0.34 * len(results))
    for y, result in enumerate(reversed(results)):
        color, marker = _MARKS[ArmName.parse(result.arm).arm]
        if result.interval is not None:
            axes.plot([100 * result.interval.low, 100 * result.interval.high], [y, y], color=color, linewidth=2)
        axes.plot([100 * result.accuracy], [y], color=color, marker=marker, markersize=7)
    # a generator's long name on a line of its own leaves a narrow plot its room
    gap = "\n(" if style.width == _NARROW else " ("
    axes.set_yticks(range(len(results)), [result.arm.replace(" (", gap) for result in reversed(results)])
    axes.set_ylim(-0.6, len(results) - 0.4)
    axes.set_xlabel("accuracy, %")
    axes.grid(axis="x", color=style.faint, linewidth=0.6)
    return _png(figure, style)


def _axes(style: Style, *, height: float) -> tuple[Any, Any]:
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


def _png(figure: Any, style: Style) -> bytes:
    from PIL import Image

    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=200, facecolor=style.paper)
    # a plot has few colors: a palette of them takes a third of the room
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
