"""Tests of the analysis of cells, and of the sentences that report it."""

from __future__ import annotations

import numpy as np
import pytest

from digitforge_evaluation.experiment.analysis import analyze
from digitforge_evaluation.experiment.arms import Arm
from digitforge_evaluation.experiment.sentences import sentence
from digitforge_evaluation.experiment.store import CellKey, CellResult

HITS = ((8, 2), (1, 9))


def _cells(table: dict[tuple[str, int], list[float]]) -> dict[CellKey, CellResult]:
    """Make cells from accuracies: a list with one accuracy per subset, by arm and size."""
    cells: dict[CellKey, CellResult] = {}
    for (arm, n), accuracies in table.items():
        for subset, accuracy in enumerate(accuracies):
            key = CellKey(n_per_class=n, subset=subset, arm=Arm.parse(arm))
            cells[key] = CellResult(key=key, accuracy=accuracy, confusion=HITS, seconds=2.0)
    return cells


def _ten(mean: float, scatter: float = 0.002) -> list[float]:
    return (mean + scatter * np.linspace(-1, 1, 10)).tolist()


def test_a_clear_gain_on_ten_subsets_helps_and_a_clear_loss_hurts() -> None:
    gain = analyze(_cells({("classical", 10): _ten(0.90), ("classical+gan (strict)", 10): _ten(0.93, 0.01)})).primary[0]
    assert gain.verdict == "helps"
    assert gain.difference == pytest.approx(0.03)
    assert (
        "With 10 real images per class (20 in total), adding digits from a strict generator to classical "
        in sentence(gain, classes=2)
    )
    assert "helps: +3.00 points" in sentence(gain, classes=2)
    loss = analyze(_cells({("classical", 10): _ten(0.93), ("classical+gan (oracle)", 10): _ten(0.90)})).primary[0]
    assert loss.verdict == "hurts"
    assert "an oracle generator" in sentence(loss, classes=10)


def test_without_evidence_the_sentence_gives_the_detectable_difference() -> None:
    rng = np.random.default_rng(0)
    noisy = [0.9 + 0.01 * x for x in rng.permutation([-1, 1] * 5)]
    comparison = analyze(_cells({("classical", 10): _ten(0.9), ("classical+gan (strict)", 10): noisy})).primary[0]
    assert comparison.verdict == "no evidence"
    text = sentence(comparison, classes=10)
    assert "there is no evidence" in text
    assert "With 10 subsets, a true difference of" in text


def test_nine_subsets_are_descriptive_even_with_a_clear_gain() -> None:
    cells = _cells({("classical", 10): _ten(0.5)[:9], ("classical+gan (strict)", 10): _ten(0.9)[:9]})
    comparison = analyze(cells).primary[0]
    assert comparison.verdict == "descriptive"
    assert "a verdict needs at least 10 subsets" in sentence(comparison, classes=10)


def test_one_subset_has_a_sentence_without_interval() -> None:
    cells = _cells({("classical", 1): [0.5], ("classical+gan (strict)", 1): [0.6]})
    comparison = analyze(cells).primary[0]
    assert comparison.interval is None
    assert sentence(comparison, classes=10).startswith("With 1 real image per class (10 in total)")


def test_only_subsets_that_both_arms_have_finished_are_compared() -> None:
    cells = _cells({("classical", 10): [0.5, 0.6, 0.7], ("classical+gan (strict)", 10): [0.6, 0.7]})
    comparison = analyze(cells).primary[0]
    assert comparison.subsets == 2
    assert comparison.difference == pytest.approx(0.1)


def test_p_values_and_intervals_are_corrected_over_all_sizes() -> None:
    table: dict[tuple[str, int], list[float]] = {}
    for n in (1, 10, 100):
        table |= {("classical", n): _ten(0.90), ("classical+gan (strict)", n): _ten(0.92, 0.004)}
    family = analyze(_cells(table)).primary
    assert len(family) == 3
    for comparison in family:
        assert comparison.p_value == pytest.approx(2 / 2**10)
        assert comparison.adjusted_p == pytest.approx(3 * 2 / 2**10)
        assert comparison.simultaneous is not None
        assert comparison.interval is not None
        assert comparison.simultaneous.confidence == pytest.approx(1 - 0.05 / 3)
        assert comparison.simultaneous.low < comparison.interval.low


def test_only_the_primary_family_gets_verdicts() -> None:
    analysis = analyze(_cells({("real", 10): _ten(0.5), ("classical", 10): _ten(0.9), ("gan (oracle)", 10): _ten(0.9)}))
    assert not analysis.primary
    assert {c.verdict for c in analysis.comparisons} == {"descriptive"}
    assert {(str(c.arm), str(c.baseline)) for c in analysis.comparisons} == {
        ("classical", "real"),
        ("gan (oracle)", "real"),
        ("gan (oracle)", "classical"),
    }


def test_recall_is_of_the_true_class() -> None:
    analysis = analyze(_cells({("real", 10): [0.85, 0.85]}))
    assert analysis.arms[0].recalls == pytest.approx((0.8, 0.9))
    assert analysis.seconds == pytest.approx(4.0)


def test_without_cells_the_analysis_is_empty() -> None:
    analysis = analyze({})
    assert (analysis.arms, analysis.comparisons) == ((), ())
