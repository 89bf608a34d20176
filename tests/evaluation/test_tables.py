"""The tables in the documents equal the committed results, and a changed number is found."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def check() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "evaluation" / "results" / "check.py"))


def test_all_tables_equal_their_results(check: dict[str, Any]) -> None:
    assert [problem for document in check["documents"]() for problem in check["problems"](document)] == []


def test_every_committed_experiment_has_a_table(check: dict[str, Any]) -> None:
    results = ROOT / "evaluation" / "results"
    committed = {str(path.parent.relative_to(results)) for path in results.rglob("results.jsonl")}
    committed |= {str(path.relative_to(results)) for path in results.glob("*-evaluation.json")}
    committed |= {"expansion.json", "mnist-test.json"}
    sources = {folder for path in check["documents"]() for folders, _ in check["cells"](path) for folder in folders}
    assert sources == committed


@pytest.mark.parametrize(
    ("page", "right", "wrong"),
    [
        ("help.md", "94.31 ± 0.41", "94.32 ± 0.41"),  # a mean
        ("help.md", "96.74 ± 0.19", "96.74 ± 0.20"),  # an interval
        ("help.md", "95.29 ± 0.25", "96.37 ± 0.23"),  # of another arm
        ("help.md", "96.93 ± 0.12", "96.37 ± 0.23"),  # of another size
        ("help.md", "−1.17 [−2.92, 0.58]", "+1.17 [−2.92, 0.58]"),
        ("help.md", "p = 0.094", "p = 0.039"),
        ("help.md", "93.86 ± 0.61", "93.68 ± 0.61"),  # recall of the cut class
        ("few-images.md", "−0.51 [−0.88, −0.14]", "−0.51 [−0.88, −0.13]"),
        ("few-labels.md", "95.35 ± 0.33", "95.59 ± 0.31"),  # of another arm, with its generator
        ("distance.md", "+4.61 [3.58, 5.63]", "+4.61 [3.58, 5.64]"),
        ("distance.md", "| 6.20 |", "| 6.30 |"),
        ("expansion.md", "| 3.48 % |", "| 3.49 % |"),
        ("real-digits.md", "0.9309 ± 0.0094", "0.9308 ± 0.0094"),
    ],
)
def test_a_changed_number_is_found(  # noqa: PLR0917
    check: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, right: str, wrong: str
) -> None:
    text = (ROOT / "docs" / "results" / page).read_text("utf-8")
    first_table = text.index("<!-- results: ")
    assert right in text[first_table:]
    changed = text[:first_table] + text[first_table:].replace(right, wrong, 1)
    (tmp_path / page).write_text(changed, "utf-8")
    monkeypatch.setitem(check["cells"].__globals__, "ROOT", tmp_path)
    (problem,) = check["problems"](tmp_path / page)
    assert problem.startswith(f"{page}:")
