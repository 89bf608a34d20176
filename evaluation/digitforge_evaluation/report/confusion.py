"""The confusion matrices of a report: what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_evaluation.experiment.analysis import ArmResult
from digitforge_evaluation.report.plots import NARROW, Style, png_of

_WRITTEN_CLASSES: Final = 12  # up to so many, numbers and names fit into a matrix


def confusions(results: Sequence[ArmResult], class_names: Sequence[str], style: Style) -> bytes:
    """One matrix for each arm: what share of each class's images is taken for each other class. PNG.

    The diagonal, which would outshine everything, holds the recall as a number only.

    Args:
        results: the arms.
        class_names: of the matrices' rows and columns.
        style: how it looks; narrow matrices stand below each other.
    """
    from matplotlib.figure import Figure

    stacked = style.width == NARROW
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
        axes.set_title(str(result.arm), color=style.ink, fontsize=9)
        if written:
            axes.set_xticks(range(len(class_names)), class_names)
            axes.set_yticks(range(len(class_names)), class_names)
        axes.set_xlabel("taken for", color=style.ink)
        axes.set_ylabel("is a", color=style.ink)
        axes.tick_params(colors=style.ink, length=0, labelsize=8)
        for spine in axes.spines.values():
            spine.set_color(style.faint)
    return png_of(figure, style)


def _shades(shares: npt.NDArray[np.float64], style: Style) -> npt.NDArray[np.float64]:
    """From the paper's color (0) to the accent (1): (h, w) => (h, w, 3)."""
    from matplotlib.colors import to_rgb

    paper, accent = np.array(to_rgb(style.paper)), np.array(to_rgb(style.accent))
    return paper + shares[..., np.newaxis] * (accent - paper)
