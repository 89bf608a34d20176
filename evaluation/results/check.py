"""Compares the tables in the documents with the committed results: `make results`.

A line ``<!-- results: FOLDER, FOLDER -->`` above a table names the folders in ``evaluation/results`` that its numbers
come from. The check looks at each cell whose row or column names an arm or a difference of arms in code font:

* ``95.29 ± 0.25`` must be the accuracy of this arm, or what the column names: balanced accuracy, recall of a cut class
* ``+2.06 [1.46, 2.66]`` must be the difference of these arms, with its own or its simultaneous interval
* ``p = 0.029`` must be the p of such a difference
* a number in a column ``fd[…]`` must be a distance in ``distances.json``
* with ``expansion.json`` in place of a folder, each cell must be a number of its trials
* with a report of ``digitforge evaluate --json`` in place of a folder, ``shipped-evaluation.json``, or with the floors
  ``mnist-test.json``: each number in a row or column that names a metric must be one of its numbers there, rounded

If a column names a number of images per class, the values must be of this number.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digitforge_evaluation.experiment.arms import ARMS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "evaluation" / "results"
SHIPPED = ROOT / "evaluation" / "digitforge_evaluation" / "data"
EXPANSION = "expansion.json"
EVALUATION = "evaluation.json"
FLOORS = "mnist-test.json"
#: Metrics as tables name them => their keys in reports.
METRICS = {
    "fd": "distance",
    "fd_infinity": "extrapolated",
    "kd": "kernel",
    "100x1000": "kernel_subsets",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "label agreement": "agreement",
    "missing modes": "missing",
    "classifier score": "score",
    "authenticity": "authenticity",
    "c_t": "copying",
}
SOURCE = re.compile(r"<!-- results: (.+) -->")
NUMBER = r"[+−-]?\d+(?:\.\d+)?"
MEAN = re.compile(rf"({NUMBER}) ± ({NUMBER})")
DIFFERENCE = re.compile(rf"([+−-]{NUMBER}) \[({NUMBER}), ({NUMBER})\]")
P_VALUE = re.compile(rf"p = ({NUMBER})")
SIZE = re.compile(r"(?<![\d.])(\d[\d ]*)(?= (?:per class|real images per class|real per class)|$)")
ROW_SIZE = re.compile(r"(\d+) per class")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table, with what its row and its column say."""

    place: str  # file and line
    text: str
    header: str
    row: str  # the first cell of the row
    arms: tuple[str, ...]  # from the row; from the header of the column if the row names none
    size: int | None  # real images per class; None if the column does not say


def cells(document: Path) -> Iterator[tuple[list[str], Cell]]:
    """The cells of all tables with a source, each with the names of its folders."""
    folders: list[str] = []
    header: list[str] | None = None
    for number, line in enumerate(document.read_text("utf-8").splitlines(), start=1):
        if found := SOURCE.fullmatch(line):
            folders, header = [each.strip() for each in found[1].split(",")], None
        elif line.startswith("|") and folders:
            row = [text.strip() for text in line.strip("|").split("|")]
            if header is None:
                header = row
            elif not set(line) <= set("|- :"):
                label = " ".join(text for text in row if not MEAN.search(text) and not DIFFERENCE.search(text))
                for title, text in zip(header, row, strict=True):
                    size = SIZE.search(title) or ROW_SIZE.search(row[0])
                    yield (
                        folders,
                        Cell(
                            place=f"{document.relative_to(ROOT)}:{number}",
                            text=text,
                            header=title,
                            row=row[0],
                            arms=_arms(label) or _arms(title),
                            size=int(size[1].replace(" ", "")) if size else None,
                        ),
                    )
        elif header is not None:
            folders, header = [], None


def _arms(text: str) -> tuple[str, ...]:
    names = "|".join(map(re.escape, ARMS))
    return tuple(re.findall(rf"`((?:{names})(?: \([^`]*\))?)`", text))


def problems(document: Path) -> Iterator[str]:
    """What a document says that its results do not."""
    for folders, cell in cells(document):
        if folders == [EXPANSION]:
            if cell.text not in _expansion():
                yield f"{cell.place}: {cell.text} ({cell.header}) is not in {EXPANSION}"
            continue
        measured = [source for source in folders if source.endswith((EVALUATION, FLOORS))]
        if measured and (keys := _keys(cell.row) or _keys(cell.header)):
            yield from _wrong_figures(cell, keys, measured)
            continue
        reports = [_read(f"{folder}/report.json") for folder in folders if folder not in measured]
        for written, known in _claims(cell, reports, folders):
            if written not in known:
                yield f"{cell.place}: {written} ({cell.header}) is not in {', '.join(folders)}"


@functools.cache  # many cells have the same source
def _read(file: str, folder: Path = RESULTS) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / file).read_text("utf-8"))
    return report


def _keys(text: str) -> set[str]:
    """Keys of the metrics that a text names."""
    words = re.findall("|".join(rf"\b{name}\b" for name in sorted(METRICS, key=len, reverse=True)), text)
    return {METRICS[word] for word in words}


def _wrong_figures(cell: Cell, keys: set[str], sources: list[str]) -> Iterator[str]:
    """The numbers of a cell that are not among the sources' numbers of these metrics."""
    numbers = [number for source in sources for number in _figures(source, keys)]
    if "1 − " in cell.row:
        numbers = [1 - number for number in numbers]
    scale = 100 if "%" in cell.text else 1
    # "at 5 000" and "on five partitions" say how many images and partitions.
    text = "" if cell.text == cell.row else re.sub(r" (?:at|on) .*", "", cell.text)
    for written in re.findall(NUMBER, text):
        decimals = len(written.partition(".")[2])
        if float(_plain(written)) not in {round(scale * number, decimals) for number in numbers}:
            yield f"{cell.place}: {written} ({cell.row}) is not in {', '.join(sources)}"


def _figures(source: str, keys: set[str]) -> Iterator[float]:
    """The numbers of these metrics in a report of `digitforge evaluate`, or in the floors of MNIST's test images."""
    floors: list[dict[str, Any] | None] = []
    if source == FLOORS:
        for either in _read(source, SHIPPED)["floors"].values():
            floors += [floor for side in either.values() for key, floor in side.items() if key in keys]
    else:
        for figure in _read(source)["figures"]:
            if figure["key"] in keys:
                yield from (figure["value"], *(figure["interval"] or ()))
                floors += [figure["training_floor"], figure["unseen_floor"]]
    for floor in filter(None, floors):
        yield from (floor[key] for key in ("mean", "standard_deviation") if floor[key] is not None)


def _expansion() -> set[str]:
    """The numbers in the table of tried expansions: factor, error, and difference from the lowest error."""
    tried = _read(EXPANSION)["choice"]["tried"]
    return {
        text
        for one in tried
        for text in (
            f"{one['factor']:g}",
            f"{100 * one['error']:.2f} %",
            f"{100 * one['excess']:.2f} ± {100 * one['standard_error']:.2f}" if one["excess"] else "0",
        )
    }


def _claims(cell: Cell, reports: list[dict[str, Any]], folders: list[str]) -> Iterator[tuple[str, set[str]]]:
    """Each number in a cell, with the numbers that it may be."""
    if cell.header.startswith("`fd["):
        known = [_read(f"{folder}/distances.json")["values"] for folder in folders]
        yield cell.text, {f"{value:#.3g}".rstrip(".") for values in known for value in values.values()}
        return
    comparisons = [each for report in reports for each in report["comparisons"] if _fits(each, cell)]
    if found := MEAN.search(cell.text):
        arms = [each for report in reports for each in report["arms"] if _fits(each, cell)]
        if cell.arms:
            yield found[0], {_mean(arm, cell.header) for arm in arms}
    elif (found := DIFFERENCE.search(cell.text)) and (cell.arms or re.match(r"\W*(verdict|gain)", cell.row)):
        yield (
            f"{float(_plain(found[1])):+.2f} [{_plain(found[2])}, {_plain(found[3])}]",
            {text for each in comparisons for text in _differences(each)},
        )
    if found := P_VALUE.search(cell.text):
        p_values = [each[key] for each in comparisons for key in ("p_value", "adjusted_p") if each[key] is not None]
        yield found[1], {f"{value:.2g}" for value in p_values}


def _plain(number: str) -> str:
    return number.replace("−", "-").lstrip("+")


def _fits(result: dict[str, Any], cell: Cell) -> bool:
    """Whether an arm or a comparison is the one that a cell is about."""
    if cell.size not in (None, result["n_per_class"]):
        return False
    if "baseline" not in result:
        return any(_is(arm, result["arm"]) for arm in cell.arms)
    pair = (result["arm"], result["baseline"])
    return len(cell.arms) < 2 or all(_is(written, arm) for written, arm in zip(cell.arms[-2:], pair, strict=True))


def _is(written: str, arm: str) -> bool:
    """Whether a document means this arm. It may leave out what is in parentheses: generator and variant."""
    return written in (arm, re.sub(r" \(.*", "", arm))


def _mean(arm: dict[str, Any], header: str) -> str:
    """The mean that a column shows, with half of its interval."""
    measure = "minority" if "recall" in header else "balanced" if "balanced" in header else None
    value = arm[measure] if measure else {"mean": arm["accuracy"], "interval": arm["interval"]}
    half = 50 * (value["interval"]["high"] - value["interval"]["low"])
    return f"{100 * value['mean']:.2f} ± {half:.2f}"


def _differences(comparison: dict[str, Any]) -> Iterator[str]:
    for interval in filter(None, (comparison["interval"], comparison["simultaneous"])):
        ends = f"[{100 * interval['low']:.2f}, {100 * interval['high']:.2f}]"
        yield f"{100 * comparison['difference']:+.2f} {ends}"


def documents() -> list[Path]:
    """The documents with tables of results."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


if __name__ == "__main__":
    found = [problem for document in documents() for problem in problems(document)]
    tables = sum(len(SOURCE.findall(document.read_text("utf-8"))) for document in documents())
    print("\n".join(found) or f"{tables} tables equal their results files")
    sys.exit(bool(found))
