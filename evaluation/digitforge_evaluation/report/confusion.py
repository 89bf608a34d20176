"""The confusion matrices of a report: which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from digitforge_evaluation.experiment.analysis import ArmResult
from digitforge_evaluation.report.svg import ACCENT, INK, LINE, PAPER, SMALL, TEXT, WIDTH, can_draw, svg_of

_WRITTEN_CLASSES: Final = 12  # numbers fit into the cells of a matrix of up to this many classes
_EVERY: Final = 5  # larger matrices have one tick for this many classes
_COLUMN_NAME: Final = 3  # characters: longer names do not fit above a column
_ROW_NAME: Final = 14  # characters: longer names leave too little room for the matrix
_LEAST: Final = 0.005  # smaller shares are neither written nor colored


def tick_texts(class_names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts for the columns and for the rows of a matrix.

    A name is replaced by the class's number if it is long, or if no installed font has its characters.
    """
    numbers = [str(number) for number in range(len(class_names))]
    if not all(map(can_draw, class_names)):
        return numbers, numbers
    longest = max(map(len, class_names), default=0)
    if longest <= _COLUMN_NAME:
        return list(class_names), list(class_names)
    if longest > _ROW_NAME:
        return numbers, numbers
    return numbers, [f"{name} {number}" for number, name in enumerate(class_names)]


def key(class_names: Sequence[str]) -> str:
    """The names of the classes whose rows show a number only: ``0 cat, 1 dog``. Empty if the rows show names."""
    rows = tick_texts(class_names)[1]
    named = len(class_names) <= _WRITTEN_CLASSES and any(not row.isdecimal() for row in rows)
    if named or list(class_names) == [str(number) for number in range(len(class_names))]:
        return ""
    return ", ".join(f"{number}\u00a0{name}" for number, name in enumerate(class_names))


def confusions(results: Sequence[ArmResult], class_names: Sequence[str], *, title: str) -> str:
    """One matrix for each arm, one below the other: the share of each class's images taken for each other class. SVG.

    The diagonal is not colored, because it would outshine the mistakes. It holds the recall as a number only.

    Args:
        results: the arms.
        class_names: names of the rows and columns.
        title: what a screen reader says.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(WIDTH, 3.6 * len(results)), layout="constrained", facecolor=PAPER)
    shares = [np.array(r.confusion) / np.maximum(np.sum(r.confusion, axis=1, keepdims=True), 1) for r in results]
    wrong = [np.where(np.eye(len(share), dtype=bool), 0.0, share) for share in shares]
    strongest = max(*(float(part.max()) for part in wrong), 0.01)
    classes = len(class_names)
    written = classes <= _WRITTEN_CLASSES
    columns, rows = tick_texts(class_names)
    for axes, result, share, errors in zip(
        np.ravel(figure.subplots(len(results), 1)), results, shares, wrong, strict=True
    ):
        axes.set_facecolor("none")
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal")
        for row, column in np.argwhere(share >= _LEAST):
            strength = errors[row, column] / strongest
            if strength:
                axes.add_patch(
                    Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=ACCENT, alpha=strength, linewidth=0)
                )
            if written:
                axes.text(
                    column,
                    row,
                    f"{100 * share[row, column]:.0f}",
                    ha="center",
                    va="center",
                    fontsize=SMALL,
                    color=PAPER if strength > 0.65 else INK,
                    fontweight="bold" if row == column else "normal",
                    in_layout=False,  # it stays inside its cell, so the layout need not measure it
                )
        axes.set_title(str(result.arm), color=INK, fontsize=TEXT)
        shown = range(0, classes, 1 if written else _EVERY)
        axes.set_xticks(shown, [columns[number] for number in shown])
        axes.set_yticks(shown, [rows[number] for number in shown])
        axes.set_xlabel("taken for", color=INK, fontsize=TEXT)
        axes.set_ylabel("is a", color=INK, fontsize=TEXT)
        axes.tick_params(colors=INK, length=0, labelsize=SMALL)
        for spine in axes.spines.values():
            spine.set_color(LINE)
    return svg_of(figure, title)
