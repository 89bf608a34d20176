"""Prints the report of ``digitforge evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from digitforge_evaluation.cli.tables import print_table

if TYPE_CHECKING:
    from digitforge_evaluation.quality.assess import ClassFigure, Measurement, Report
    from digitforge_evaluation.quality.reference import Floor

#: Width of the table, in characters, if standard output is not a terminal.
PIPED_WIDTH = 130
#: Number of classes whose label agreement is printed. A page has all.
LEAST_RECOGNIZED = 3


def _cells(found: Measurement) -> tuple[str, ...]:
    """Cells of a table row: value, interval, n, and the two floors."""
    interval = f"{found.interval[0]:.4g} … {found.interval[1]:.4g}" if found.interval else ""
    floors = (_floor(found.training_floor, found.n), _floor(found.unseen_floor, found.n))
    return f"{found.value:.4g}", interval, str(found.n), *floors


def _floor(floor: Floor | None, n: int) -> str:
    if floor is None:
        return ""
    spread = "" if floor.standard_deviation is None else f" ± {floor.standard_deviation:.2g}"
    return f"{floor.mean:.4g}{spread}" + ("" if floor.n == n else f" ({floor.n})")


def _recognized(of_class: ClassFigure) -> str:
    """The label agreement of a class, generated and real."""
    real = of_class.figure.unseen_floor
    return f"{of_class.title} {of_class.figure.value:.0%}" + (
        f" (held-out real images {real.mean:.0%})" if real else ""
    )


def _accuracy(report: Report) -> str:
    if report.features_accuracy is None:
        return ""
    return f" It recognizes {report.features_accuracy:.1%} of the {report.reference_n} held-out images."


def print_report(report: Report) -> None:
    """Print the report. A narrow terminal gets a list in place of each row."""
    from rich.console import Console

    from digitforge_evaluation.quality.registry import METRICS

    console = Console()
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    title = f"generator {report.generator_id} at {report.source}" if report.generator_id else report.source
    spread = "" if report.expansion is None else f", expansion {report.expansion:g}"
    console.print(title, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{report.n} images (seed {report.seed}{spread}) against {report.reference} (n = {report.reference_n}), "
        f"features {report.features}, k = {report.k}",
        markup=False,
        soft_wrap=True,
    )
    columns = ("metric", "value", "95 % interval", "n", "training floor", "unseen floor", "better")
    rows: list[tuple[str, ...]] = []
    for found in report.figures:
        metric = METRICS[found.key]
        rows.append((found.name if metric.named else metric.title, *_cells(found), metric.better))
    for of_class in report.classes:
        rows.append((f"  fd of class {of_class.title}", *_cells(of_class.figure), "lower"))
    print_table(console, columns, rows, ruled=True)
    console.print(
        "training floor: random subsets of the training images in place of the generated ones, mean ± standard "
        "deviation. A generator that learns its training images well reaches it.\n"
        "unseen floor: the same with held-out images, which no generator has seen. New real images score this. A "
        "number in brackets is the number of images if it is not n.",
        soft_wrap=True,
    )
    if report.agreements:
        least = sorted(report.agreements, key=lambda each: each.figure.value)[:LEAST_RECOGNIZED]
        console.print(
            f"least recognized classes: {'; '.join(map(_recognized, least))}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    about = report.about_features
    for line in (
        f"features {report.features}: {about.made}{_accuracy(report)}",
        f"they show: {about.sees}",
        f"they do not show: {about.misses}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    for why in dict.fromkeys(report.left_out.values()):
        titles = ", ".join(METRICS[key].title for key in report.left_out if report.left_out[key] == why)
        console.print(f"left out: {titles}: {why}", markup=False, highlight=False, soft_wrap=True)
