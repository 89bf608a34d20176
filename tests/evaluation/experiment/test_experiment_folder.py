"""Tests of an experiment in a folder: the names of its generators, and the state read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation import experiment_folder
from digitforge_evaluation.experiment.arms import Arm
from digitforge_evaluation.experiment.generators import Exported
from digitforge_evaluation.experiment.plan import Plan
from digitforge_evaluation.experiment.sentences import sentence
from digitforge_evaluation.experiment.store import CellKey, CellResult, as_json, open_store
from digitforge_evaluation.experiment.subsets import RealImages
from digitforge_evaluation.run_experiment import run_experiment


def test_a_single_generator_is_named_by_its_budget_and_duplicates_are_refused(
    real: RealImages, exported: Exported, exported_model: Path
) -> None:
    alone, _ = experiment_folder.name_generators([exported], real)
    assert list(alone) == ["oracle"]
    with pytest.raises(InvalidInputError, match="given twice"):
        experiment_folder.name_generators([exported, Exported(exported_model)], real)


def test_a_generator_without_classes_that_saw_the_images_is_semi(
    without_classes: Path, real: RealImages, tmp_path: Path
) -> None:
    plan = Plan(arms=("real", "gan"), n_per_class=(4,), subsets=1, classifier="svm", steps=4)
    sources, cards = experiment_folder.name_generators([Exported(without_classes)], real)
    experiment_folder.run(tmp_path, plan, real, sources, cards=cards, command="")
    state = experiment_folder.read(tmp_path)
    assert {str(key.arm) for key in state.finished} == {"real", "gan (semi)"}
    assert [sheet.title for sheet in state.samples] == ["Real", "Generated (semi)"]


def test_a_report_without_samples_leaves_out_their_sheets(real: RealImages, tmp_path: Path) -> None:
    plan = Plan(arms=("real",), n_per_class=(2,), subsets=1, classifier="svm", steps=4)
    experiment_folder.run(tmp_path, plan, real, {}, cards={}, command="")
    _, html = experiment_folder.report(tmp_path)
    assert 'class="sheets"' in html.read_text("utf-8")
    (tmp_path / "samples.npz").write_bytes(b"PK damaged")
    with pytest.raises(DataError, match=r"samples\.npz.*run the same"):
        experiment_folder.report(tmp_path)
    (tmp_path / "samples.npz").unlink()
    state, html = experiment_folder.report(tmp_path)
    assert (len(state.finished), state.samples) == (1, ())
    assert 'class="sheets"' not in html.read_text("utf-8")


def test_a_semi_generator_meets_pseudo_labeled_images_unless_arms_are_named(
    without_classes: Path, exported_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PlannedError(Exception):
        """Ends an experiment before its first cell."""

    def stop(_folder: Path, plan: Plan, *_: object, **__: object) -> None:
        raise PlannedError(*plan.arms)

    monkeypatch.setattr(experiment_folder, "run", stop)

    def arms(model: Path, **chosen: Any) -> tuple[str, ...]:
        with pytest.raises(PlannedError) as planned:
            run_experiment(tmp_path, data="digits", model=model, **chosen)
        return planned.value.args

    assert "pseudo-labeled" in arms(without_classes)
    assert "pseudo-labeled" not in arms(exported_model)
    assert arms(without_classes, arms=("real", "gan")) == ("real", "gan")


def test_cut_classes_are_measured_by_balanced_accuracy_and_their_own_recall(
    real: RealImages, exported: Exported, tmp_path: Path
) -> None:
    arms = ("real", "classical", "classical+oversampled", "classical+gan")
    plan = Plan(arms=arms, n_per_class=(20,), subsets=2, classifier="svm", steps=4, cut={"8": 0.05})
    experiment_folder.run(tmp_path, plan, real, {"oracle": exported}, cards={}, command="")
    state = experiment_folder.read(tmp_path)
    (primary,) = state.analysis.primary
    assert (str(primary.arm), str(primary.baseline)) == ("classical+gan (oracle)", "classical+oversampled")
    assert state.analysis.measure == "balanced accuracy"
    results = {result.arm: result for result in state.analysis.arms}
    (plain,) = (result for arm, result in results.items() if arm.name == "real")
    assert plain.minority is not None
    assert plain.minority.mean == pytest.approx(plain.recalls[8])
    assert plain.minority.mean < 0.5 < np.mean(plain.recalls[:8])
    assert plain.balanced.mean == pytest.approx(np.mean(plain.recalls))
    assert primary.difference == pytest.approx(
        results[primary.arm].balanced.mean - results[primary.baseline].balanced.mean
    )
    assert "points of balanced accuracy" in sentence(primary, classes=10, measure=state.analysis.measure)


def test_subsets_that_are_added_to_results_are_noted(real: RealImages, tmp_path: Path) -> None:
    def notes(subsets: int) -> tuple[str, ...]:
        plan = Plan(arms=("real",), n_per_class=(2,), subsets=subsets, classifier="svm", steps=4)
        experiment_folder.run(tmp_path, plan, real, {}, cards={}, command="")
        return experiment_folder.read(tmp_path).facts.notes

    assert notes(1) == notes(1) == ()
    (note,) = notes(2)
    assert "The number of subsets was changed from 1 to 2 when there were results already" in note
    assert notes(2) == (note,)  # continuing the run does not hide it


def _write(folder: Path, *, n: int, gain: float, subsets: int = 10) -> None:
    """Write an experiment of two arms, whose differences are *gain* ± 0.001."""
    arms = {"classical": 0.5, "classical+gan (strict)": 0.5 + gain}
    keys = [CellKey(n_per_class=n, subset=i, arm=Arm.parse(arm)) for i in range(subsets) for arm in arms]
    with open_store(folder / "results.jsonl", identity={"replicates": 1}, about={}) as store:
        for key in keys:
            accuracy = arms[str(key.arm)] + 0.001 * (key.subset % 2) * bool(key.arm.source)
            store.append(CellResult(key=key, accuracy=accuracy, confusion=((9, 1), (1, 9)), seconds=1.0))
    outline = experiment_folder.Outline(cells=tuple(keys), class_names=("a", "b"), cards={})
    (folder / "experiment.json").write_text(json.dumps(outline, default=as_json))
    np.savez(folder / "samples.npz", real_images=np.zeros((1, 28, 28, 1), np.uint8), real_labels=np.zeros(1, np.int64))


def test_the_verdicts_of_several_experiments_are_one_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment_folder, "write_report", lambda folder, *_: (folder / "report.html", None))
    for name, settings in {"a": {"gain": 0.1}, "b": {"gain": -0.1}, "few": {"gain": 0.1, "subsets": 5}}.items():
        _write(tmp_path / name, n=10, **settings)  # type: ignore[arg-type]
    folders = [tmp_path / name for name in ("a", "b", "few")]
    found = experiment_folder.report_together(folders, tmp_path / "out")
    assert [html for _, html in found] == [tmp_path / "out" / name / "report.html" for name in ("a", "b", "few")]
    family = [comparison for state, _ in found for comparison in state.analysis.primary]
    assert [c.verdict for c in family] == ["helps", "hurts", "descriptive"]
    assert [c.family for c in family] == [2, 2, 1]  # five subsets have no verdict to correct
    assert family[0].adjusted_p == pytest.approx(2 * 2 / 2**10)
    with pytest.raises(InvalidInputError, match="not different"):
        experiment_folder.report_together([folders[0], folders[0]])
