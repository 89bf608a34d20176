"""Puts the report together and writes it: ``report.html`` and ``report.json``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.common.files import replacing
from digitforge_client.errors import DataError
from digitforge_evaluation.experiment.analysis import Analysis, points, sentence, worth_sentence
from digitforge_evaluation.experiment.arms import ARMS, ArmName
from digitforge_evaluation.experiment.benefit import Benefit
from digitforge_evaluation.report import plots
from digitforge_evaluation.report.templates import data_uri, template

MATRICES: Final = 2  # sizes whose confusion matrices are shown, the smallest ones
HTML: Final = "report.html"
JSON: Final = "report.json"
SHEET_ROWS: Final = 8  # images of each class on a sheet of samples


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleSheet:
    """Images to show, one column per class."""

    title: str
    images: npt.NDArray[np.uint8]  # (n, H, W, C)
    labels: npt.NDArray[np.int64]  # (n,)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a report says besides the analysis; JSON values throughout."""

    identity: Mapping[str, Any]  # of the store: settings, data hashes, generators
    about: Mapping[str, Any]  # versions, command, machine, date
    class_names: tuple[str, ...]
    cards: Mapping[str, Mapping[str, Any]]  # of the generators, by budget
    planned_cells: int  # to say how many are missing
    benefit: Benefit | None = None  # the generators' distances beside what they did, where they were measured
    quality: tuple[Mapping[str, Any], ...] = ()  # figures of generated digits, as `quality.Figure` has them
    notes: tuple[str, ...] = ()  # what a reader must know besides


def write_report(
    folder: Path, analysis: Analysis, facts: Facts, samples: tuple[SampleSheet, ...] = ()
) -> tuple[Path, Path]:
    """Write the report into *folder*, and its plots as PNG files; each file appears whole or not at all.

    Args:
        folder: made if need be.
        analysis: of the finished cells.
        facts: everything else in words and numbers.
        samples: images to show, real ones first.

    Returns:
        The HTML and the JSON file.

    Raises:
        DataError: the folder cannot be made.
        InvalidInputError: it cannot be written to.
    """
    verdicts = [
        sentence(comparison, classes=len(facts.class_names), measure=analysis.measure)
        for comparison in analysis.primary
    ]
    content = {"verdicts": verdicts, **asdict(analysis), **asdict(facts)}
    drawn = _plots(analysis, facts)
    page = _render(analysis, facts, samples, verdicts, drawn)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); choose another folder with --out") from error
    with replacing(folder / JSON) as file:
        file.write(json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")
    for name, kinds in drawn.items():
        with replacing(folder / f"{name}.png") as file:
            file.write(kinds["wide_light"])
    with replacing(folder / HTML) as file:
        file.write(page.encode())
    return folder / HTML, folder / JSON


def _plots(analysis: Analysis, facts: Facts) -> dict[str, dict[str, bytes]]:
    """The report's plots as PNG, by name and then by style."""
    draw: dict[str, Callable[[plots.Style], bytes]] = {}
    if analysis.arms:
        draw["accuracy"] = partial(plots.accuracies, analysis)
    if any(comparison.interval for comparison in analysis.comparisons):
        draw["differences"] = partial(plots.forest, analysis)
    if facts.benefit and facts.benefit.points:
        draw["distance"] = partial(plots.distance_against_benefit, facts.benefit, analysis.measure)
    compared = ((n, plots.compared(analysis, n)) for n in sorted({result.n_per_class for result in analysis.arms}))
    pairs = [(n, pair) for n, pair in compared if len(pair) == 2]  # sizes of the learning curve alone have none
    for n, pair in pairs[:MATRICES]:
        draw[f"confusion-{n}"] = partial(plots.confusions, pair, facts.class_names)
    return {
        name: {kind.replace(" ", "_"): plot(style) for kind, style in plots.STYLES.items()}
        for name, plot in draw.items()
    }


def _render(
    analysis: Analysis,
    facts: Facts,
    samples: tuple[SampleSheet, ...],
    verdicts: list[str],
    drawn: Mapping[str, Mapping[str, bytes]],
) -> str:
    return template(
        "report.html.j2",
        points=points,
        percent=lambda share: f"{100 * share:.2f}",
        number=lambda value: f"{value:.4g}".replace("-", "−"),
        worth=worth_sentence,
        unbroken=lambda text: text.replace(" %", "\u00a0%").replace(" = ", "\u00a0=\u00a0"),
        grouped=lambda count: f"{count:,}".replace(",", "\u202f"),  # narrow no-break space
    ).render(
        analysis=analysis,
        facts=facts,
        verdicts=verdicts,
        pictures={name: {kind: data_uri(png) for kind, png in kinds.items()} for name, kinds in drawn.items()},
        sheets=[
            (sample.title, data_uri(_sheet(sample, len(facts.class_names))), len(sample.images)) for sample in samples
        ],
        sizes=sorted({result.n_per_class for result in analysis.arms}),
        results={(result.arm, result.n_per_class): result for result in analysis.arms},
        descriptions={result.arm: ARMS[ArmName.parse(result.arm).arm].description for result in analysis.arms},
        budgets=sorted({ArmName.parse(result.arm).budget for result in analysis.arms} - {""}),
        variants=" ".join(sorted({ArmName.parse(result.arm).variant for result in analysis.arms})).strip(),
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
