"""Writes the report of an experiment: ``report.html``, ``report.json`` and the plots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.common.files import make_folder, replacing
from digitforge_client.common.numerals import grouped
from digitforge_evaluation.experiment.analysis import Analysis, ArmResult, Comparison
from digitforge_evaluation.experiment.arms import PLAIN
from digitforge_evaluation.experiment.benefit import Benefit
from digitforge_evaluation.experiment.sentences import fair_sentence, points, sentence, summary, worth_sentence
from digitforge_evaluation.experiment.store import as_json
from digitforge_evaluation.report import confusion, plots, scatter
from digitforge_evaluation.report.svg import svg_file
from digitforge_evaluation.report.templates import data_uri, template

MATRICES: Final = 2  # confusion matrices are shown at the smallest sizes, this many
HTML: Final = "report.html"
JSON: Final = "report.json"
SHEET_ROWS: Final = 8  # images of each class on a sheet of samples


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleSheet:
    """Images to show, one column for each class."""

    title: str
    images: npt.NDArray[np.uint8]  #: (n, H, W, C)
    labels: npt.NDArray[np.int64]  #: (n,)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The contents of a report besides the analysis. All values fit into JSON."""

    identity: Mapping[str, Any]  #: identity of the store: settings, data hashes, generators
    about: Mapping[str, Any]  #: versions, command, machine, date
    class_names: tuple[str, ...]
    cards: Mapping[str, Mapping[str, Any]]  #: cards of the generators, by budget
    planned_cells: int  #: number of cells that the whole experiment has
    benefit: Benefit | None = None  #: the generators' distances beside their effects, if distances were measured
    quality: tuple[Mapping[str, Any], ...] = ()  #: metrics of the generated images: fields of `assess.Measurement`
    notes: tuple[str, ...] = ()  #: further notes for the reader


def write_report(
    folder: Path, analysis: Analysis, facts: Facts, samples: tuple[SampleSheet, ...] = ()
) -> tuple[Path, Path]:
    """Write the report and its plots into *folder*. Each file is replaced atomically.

    Args:
        folder: created if it does not exist.
        analysis: of the finished cells.
        facts: the other contents.
        samples: images to show, real ones first.

    Returns:
        Paths of the HTML file and of the JSON file.

    Raises:
        DataError: the folder cannot be created.
        InvalidInputError: a file cannot be written there.
    """
    make_folder(folder)
    verdicts = [
        sentence(comparison, classes=len(facts.class_names), measure=analysis.measure)
        for comparison in analysis.primary
    ]
    content = {"summary": _summary(analysis, facts), "verdicts": verdicts, **vars(analysis), **vars(facts)}
    drawn = _plots(analysis, facts)
    page = _render(analysis, facts, samples, verdicts, drawn)
    with replacing(folder / JSON) as file:
        file.write(json.dumps(content, default=as_json, indent=2, allow_nan=False).encode() + b"\n")
    for name, plot in drawn.items():
        with replacing(folder / f"{name}.svg") as file:
            file.write(svg_file(plot))
    with replacing(folder / HTML) as file:
        file.write(page.encode())
    return folder / HTML, folder / JSON


def _summary(analysis: Analysis, facts: Facts) -> str:
    return summary(analysis, data=facts.identity["data"]["name"], classifier=facts.identity["classifier"])


def _plots(analysis: Analysis, facts: Facts) -> dict[str, str]:
    """The report's plots as SVG elements, by name."""
    drawn: dict[str, str] = {}
    if analysis.arms:
        drawn["accuracy"] = plots.accuracies(analysis)
    for name, comparisons in (("differences", analysis.primary), ("other-differences", _others(analysis))):
        if any(comparison.interval for comparison in comparisons):
            drawn[name] = plots.forest(comparisons, analysis.measure, within=analysis.primary)
    if facts.benefit and facts.benefit.points:
        drawn["distance"] = scatter.distance_against_benefit(facts.benefit, analysis.measure)
    for n, pair in _compared(analysis).items():
        title = f"confusion of classes at {n} real images per class"
        drawn[f"confusion-{n}"] = confusion.confusions(pair, facts.class_names, title=title)
    return drawn


def _others(analysis: Analysis) -> tuple[Comparison, ...]:
    return tuple(comparison for comparison in analysis.comparisons if not comparison.primary)


def _compared(analysis: Analysis) -> dict[int, tuple[ArmResult, ArmResult]]:
    """The baseline and the arm whose confusion is shown, for each of the smallest sizes with a comparison."""
    results = {(result.arm, result.n_per_class): result for result in analysis.arms}
    pairs: dict[int, tuple[ArmResult, ArmResult]] = {}
    for c in analysis.comparisons:  # the primary ones come first
        pairs.setdefault(c.n_per_class, (results[c.baseline, c.n_per_class], results[c.arm, c.n_per_class]))
    return {n: pairs[n] for n in sorted(pairs)[:MATRICES]}


def _render(
    analysis: Analysis,
    facts: Facts,
    samples: tuple[SampleSheet, ...],
    verdicts: list[str],
    drawn: Mapping[str, str],
) -> str:
    return template(
        "report.html.j2",
        points=points,
        percent=lambda share: f"{100 * share:.2f}",
        number=lambda value: f"{value:.4g}".replace("-", "−"),
        worth=worth_sentence,
        fair=fair_sentence,
        unbroken=lambda text: text.replace(" %", "\u00a0%").replace(" = ", "\u00a0=\u00a0"),
        grouped=grouped,
    ).render(
        analysis=analysis,
        facts=facts,
        summary=_summary(analysis, facts),
        verdicts=verdicts,
        others=_others(analysis),
        key=confusion.key(facts.class_names),
        drawn=drawn,
        sheets=[(sample.title, data_uri(_sheet(sample, len(facts.class_names)))) for sample in samples],
        shown_intervals=any(result.interval for result in analysis.arms),
        sizes=sorted({result.n_per_class for result in analysis.arms}),
        results={(result.arm, result.n_per_class): result for result in analysis.arms},
        descriptions={result.arm: result.arm.design.description for result in analysis.arms},
        budgets={result.arm.budget for result in analysis.arms} - {""},
        variants={result.arm.variant for result in analysis.arms} - {PLAIN},
        matrices=[name.removeprefix("confusion-") for name in drawn if name.startswith("confusion-")],
        curve=next((c.worth for c in analysis.comparisons if c.worth), None),
        settings=_flat(facts.identity),
    )


def _sheet(sample: SampleSheet, classes: int) -> bytes:
    return plots.sheet(sample.images, sample.labels, classes=classes, rows=SHEET_ROWS)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as ``data.name: mnist``."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = str(value)
    return flat
