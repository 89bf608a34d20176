"""Tests of an experiment in a folder: the names of its generators, and the state read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation import experiment_folder
from digitforge_evaluation.experiment.generators import Exported
from digitforge_evaluation.experiment.plan import Plan
from digitforge_evaluation.experiment.sentences import sentence
from digitforge_evaluation.experiment.subsets import RealImages


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
