"""The published verdicts are those of the committed results, corrected together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from digitforge_evaluation import experiment_folder
from digitforge_evaluation.experiment.sentences import points

ROOT = Path(__file__).parents[3]
RESULTS = sorted(path.parent for path in (ROOT / "evaluation" / "results").glob("*/results.jsonl"))


def test_documents_and_reports_have_the_verdicts_of_the_committed_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment_folder, "write_report", lambda folder, *_: (folder / "report.html", None))
    rows = []
    for folder, (state, _) in zip(RESULTS, experiment_folder.report_together(RESULTS, tmp_path), strict=True):
        committed = [c for c in json.loads((folder / "report.json").read_text())["comparisons"] if c["primary"]]
        assert [(c["verdict"], c["family"]) for c in committed] == [
            (c.verdict, c.family) for c in state.analysis.primary
        ]
        for c, old in zip(state.analysis.primary, committed, strict=True):
            assert old["adjusted_p"] == pytest.approx(c.adjusted_p)
            if c.verdict == "descriptive":
                continue
            assert c.simultaneous is not None
            ends = f"[{points(c.simultaneous.low)}, {points(c.simultaneous.high)}]"
            held_out = f"{c.held_out:,}".replace(",", " ")
            rows.append(
                f"| `{folder.name}` | {c.arm.source} | {c.n_per_class} | {held_out} | {points(c.difference)} {ends} | "
                f"{c.adjusted_p:.2g} | {c.verdict} |"
            )
    document = (ROOT / "docs" / "results" / "index.md").read_text("utf-8")
    published = [
        line for line in document.splitlines() if line.endswith(("| helps |", "| hurts |", "| inconclusive |"))
    ]
    assert published == rows
