"""Tests of the analysis of cells, and of the sentences that report it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from digitforge_evaluation.experiment.analysis import analyze
from digitforge_evaluation.experiment.arms import Arm
from digitforge_evaluation.experiment.sentences import points, sentence
from digitforge_evaluation.experiment.store import CellKey, CellResult

HITS = ((8, 2), (1, 9))


def _cells(table: dict[tuple[str, int], list[float]], *, hits: int = 8) -> dict[CellKey, CellResult]:
    """Make cells from accuracies: a list with one accuracy per subset, by arm and size."""
    cells: dict[CellKey, CellResult] = {}
    confusion = tuple(tuple(count * hits // 8 for count in row) for row in HITS)
    for (arm, n), accuracies in table.items():
        for subset, accuracy in enumerate(accuracies):
            key = CellKey(n_per_class=n, subset=subset, arm=Arm.parse(arm))
            cells[key] = CellResult(key=key, accuracy=accuracy, confusion=confusion, seconds=2.0)
    return cells


def _ten(mean: float, scatter: float = 0.002) -> list[float]:
    return (mean + scatter * np.linspace(-1, 1, 10)).tolist()


def test_a_clear_gain_on_ten_subsets_helps_and_a_clear_loss_hurts() -> None:
    gain = analyze(_cells({("classical", 10): _ten(0.90), ("classical+gan (strict)", 10): _ten(0.93, 0.01)})).primary[0]
    assert gain.verdict == "helps"
    assert gain.difference == pytest.approx(0.03)
    assert (
        "With 10 real images per class (20 in total), adding images from a strict generator to classical "
        in sentence(gain, classes=2)
    )
    assert "helps: +3.00 points" in sentence(gain, classes=2)
    loss = analyze(_cells({("classical", 10): _ten(0.93), ("classical+gan (oracle)", 10): _ten(0.90)})).primary[0]
    assert loss.verdict == "hurts"
    assert "an oracle generator" in sentence(loss, classes=10)


def test_an_inconclusive_sentence_gives_the_detectable_difference() -> None:
    rng = np.random.default_rng(0)
    noisy = [0.9 + 0.01 * x for x in rng.permutation([-1, 1] * 5)]
    comparison = analyze(_cells({("classical", 10): _ten(0.9), ("classical+gan (strict)", 10): noisy})).primary[0]
    assert comparison.verdict == "inconclusive"
    text = sentence(comparison, classes=10)
    assert "the effect of adding images from a strict generator to classical augmentation is inconclusive: " in text
    assert comparison.detectable is not None
    spread = np.subtract(noisy, _ten(0.9)).std(ddof=1)
    assert comparison.detectable / spread == pytest.approx(1.01, abs=0.01)
    assert f"With 10 subsets, a true difference of {100 * comparison.detectable:.2f} points would be found" in text


@pytest.mark.parametrize(
    ("difference", "written"), [(0.01254, "+1.25"), (-0.0003, "−0.03"), (-0.00001, "+0.00"), (0.0, "+0.00")]
)
def test_points_have_a_sign_but_zero_is_never_negative(difference: float, written: str) -> None:
    assert points(difference) == written


def test_a_family_that_is_too_large_is_inconclusive_and_claims_no_power() -> None:
    table: dict[tuple[str, int], list[float]] = {}
    for n in range(1, 27):
        table |= {("classical", n): _ten(0.90), ("classical+gan (strict)", n): _ten(0.93)}
    family = analyze(_cells(table)).primary
    assert {(c.verdict, c.detectable, c.family) for c in family} == {("inconclusive", None, 26)}
    text = sentence(family[0], classes=10)
    assert "10 subsets cannot give a verdict on 26 comparisons. Plan at least 11 subsets." in text
    assert "80 %" not in text


def test_comparisons_of_other_experiments_count_for_the_correction() -> None:
    cells = _cells({("classical", 10): _ten(0.90), ("classical+gan (strict)", 10): _ten(0.93, 0.01)})
    (comparison,) = analyze(cells, others=[0.5, 0.001]).primary
    assert comparison.family == 3
    assert comparison.adjusted_p == pytest.approx(0.002 * 2, rel=0.03)  # the smaller one goes first
    assert comparison.verdict == "helps"
    (comparison,) = analyze(cells, others=[0.5] * 25).primary
    assert comparison.verdict == "inconclusive"


def test_a_comparison_gets_its_verdict_when_all_planned_subsets_are_finished() -> None:
    cells = _cells({("classical", 10): _ten(0.90), ("classical+gan (strict)", 10): _ten(0.93, 0.01)})
    planned = [replace(key, subset=subset) for key in cells for subset in range(20)]
    (comparison,) = analyze(cells, planned=planned).primary
    assert (comparison.subsets, comparison.planned, comparison.verdict) == (10, 20, "descriptive")
    text = sentence(comparison, classes=10)
    assert "This is descriptive: only 10 of 20 subsets are finished" in text
    assert "p =" not in text


def test_planned_sizes_that_have_not_started_count_for_the_correction() -> None:
    cells = _cells({("classical", 10): _ten(0.90), ("classical+gan (strict)", 10): _ten(0.93, 0.01)})
    planned = [replace(key, n_per_class=n) for key in cells for n in (10, 100, 1000)]
    (comparison,) = analyze(cells, planned=planned).primary
    assert comparison.family == 3
    assert comparison.adjusted_p == pytest.approx(3 * 2 / 2**10)


def test_strongly_skewed_differences_are_named_beside_the_verdict() -> None:
    table = {("classical", 10): [0.5] * 10, ("classical+gan (strict)", 10): [0.51] * 9 + [0.6]}
    (comparison,) = analyze(_cells(table)).primary
    assert comparison.skewness == pytest.approx(8 / 3)
    assert "the differences are strongly skewed (skewness +2.7)" in sentence(comparison, classes=10)


def test_the_sentence_names_the_held_out_images_and_what_one_is_worth_if_they_are_few() -> None:
    cells = _cells({("classical", 1): [0.5], ("classical+gan (strict)", 1): [0.6]})
    (comparison,) = analyze(cells).primary
    assert (comparison.held_out, comparison.one_image) == (20, 1 / 20)
    text = sentence(comparison, classes=10)
    assert "+10.00 points of accuracy on 20 held-out images" in text
    assert "One held-out image is worth 5.00 points." in text
    (comparison,) = analyze(cells, replicates=2).primary
    assert comparison.held_out == 10
    (large,) = analyze(_cells({("classical", 1): [0.5], ("classical+gan (strict)", 1): [0.6]}, hits=400)).primary
    assert large.held_out == 1000
    assert "One held-out image" not in sentence(large, classes=10)


def test_in_balanced_accuracy_an_image_of_the_rarest_class_is_worth_most() -> None:
    cells = _cells({("classical+oversampled", 1): [0.5], ("classical+gan (strict)", 1): [0.6]})
    cells = {key: replace(cell, confusion=((90, 10), (1, 3))) for key, cell in cells.items()}
    (comparison,) = analyze(cells, minority=[1]).primary
    assert comparison.one_image == pytest.approx(1 / (2 * 4))


def test_nine_subsets_are_descriptive_even_with_a_clear_gain() -> None:
    cells = _cells({("classical", 10): _ten(0.5)[:9], ("classical+gan (strict)", 10): _ten(0.9)[:9]})
    comparison = analyze(cells).primary[0]
    assert comparison.verdict == "descriptive"
    assert "a verdict needs at least 10 subsets" in sentence(comparison, classes=10)


@pytest.mark.parametrize("subsets", [1, 2])
def test_below_three_subsets_there_is_neither_interval_nor_p_value(subsets: int) -> None:
    cells = _cells({("classical", 1): _ten(0.5)[:subsets], ("classical+gan (strict)", 1): _ten(0.6)[:subsets]})
    analysis = analyze(cells)
    (comparison,) = analysis.primary
    assert (comparison.interval, comparison.simultaneous) == (None, None)
    assert (comparison.p_value, comparison.adjusted_p) == (None, None)
    assert {arm.interval for arm in analysis.arms} == {arm.balanced.interval for arm in analysis.arms} == {None}
    text = sentence(comparison, classes=10)
    assert text.startswith("With 1 real image per class (10 in total)")
    assert f"held-out images ({subsets} subset" in text
    assert "interval" not in text


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
