"""The plot of distance against benefit."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from digitforge_evaluation.experiment.analysis import Measure
from digitforge_evaluation.experiment.benefit import Benefit
from digitforge_evaluation.report.plots import MARKS
from digitforge_evaluation.report.svg import INK, LINE, SMALL, axes_of, legend_below, svg_of


def distance_against_benefit(benefit: Benefit, measure: Measure) -> str:
    """Each generator's difference against its distance, one marker for each arm, one shade for each size. SVG."""
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axes = axes_of(height=4)
    sizes = sorted({point.n_per_class for point in benefit.points})
    for point in benefit.points:
        color, marker = MARKS[point.arm]
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
            markersize=5,
            alpha=alpha,
            linestyle="none",
            label=None if known else label,
        )
    axes.axhline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    distances = [point.distance for point in benefit.points]
    if min(distances) > 0 and max(distances) > 10 * min(distances):
        axes.set_xscale("log")
        few = max(distances) < 100 * min(distances)  # powers of ten alone would be too few ticks
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.15)
    axes.set_xlabel(benefit.distance_name)
    axes.set_ylabel(f"points of {measure}")
    axes.grid(color=LINE, linewidth=0.6)
    legend_below(figure, columns=1)
    highest = {point.generator: point for point in sorted(benefit.points, key=lambda point: point.difference)}
    name_points(
        axes,
        [(p.distance, 100 * p.difference) for p in benefit.points],
        {name: (point.distance, 100 * point.difference) for name, point in highest.items()},
    )
    return svg_of(figure, f"difference in {measure} against distance, one point for each generator")


def name_points(axes: Any, points: Sequence[tuple[float, float]], names: Mapping[str, tuple[float, float]]) -> None:
    """Write each name beside its point, where it covers no other name, no point and not the line at zero."""
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # decides where points are
    zero = axes.transData.transform((points[0][0], 0))[1]
    taken = [Bbox.from_extents(axes.bbox.x0, zero - 1, axes.bbox.x1, zero + 1)]
    taken += [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in axes.transData.transform(points)]
    for name, point in names.items():
        label = axes.annotate(
            name, point, xytext=(0, 0), textcoords="offset points", fontsize=SMALL, color=INK, in_layout=False
        )
        for far, (right, up) in itertools.product((5, 13, 21, 29), ((1, 1), (1, -1), (-1, 1), (-1, -1))):
            label.set(ha="left" if right > 0 else "right", va="bottom" if up > 0 else "top")
            label.xyann = (5 * right, far * up)
            box = label.get_window_extent()
            inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
            if inside and not box.count_overlaps(taken):
                break
        taken.append(box)
