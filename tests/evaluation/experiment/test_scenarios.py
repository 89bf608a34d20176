"""Unbalanced classes, wrong labels, and the ways in which generated digits are used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from digitforge_client.contract import image_hashes
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation import experiment_folder
from digitforge_evaluation.experiment import plan as experiment
from digitforge_evaluation.experiment.analysis import analyze, sentence
from digitforge_evaluation.experiment.arms import ArmName
from digitforge_evaluation.experiment.generators import Budget, Exported, budget_of
from digitforge_evaluation.experiment.plan import Plan, arm_names, check_sizes, identity, plan_cells, run
from digitforge_evaluation.experiment.store import CellKey, CellResult, open_store, read_store
from digitforge_evaluation.experiment.subsets import RealImages, hold_out, subset_of
from digitforge_evaluation.images.sources import SavedGenerator
from digitforge_training.data import load
from digitforge_training.export.card import make_card
from digitforge_training.export.saved_model import ServedGenerator, publish
from digitforge_training.recipes import resolve
from digitforge_training.runs.folder import describe

SMALL: dict[str, Any] = {"n_per_class": (4,), "subsets": 2, "classifier": "svm", "steps": 4}


@pytest.fixture(scope="module")
def real() -> RealImages:
    return hold_out(load("digits"), load("digits", split="test"), which="test")


@pytest.fixture(scope="module")
def exported(exported_model: Path) -> Exported:
    return Exported(exported_model)


def _run(folder: Path, plan: Plan, real: RealImages, sources: Any = None) -> dict[CellKey, CellResult]:
    sources = sources or {}
    with open_store(folder / "r.jsonl", identity=identity(plan, real, sources), about={}) as store:
        run(plan, real, sources, store)
    return read_store(folder / "r.jsonl").cells


# --- unbalanced classes


def test_a_cut_class_keeps_its_share_and_at_least_one_image_and_the_others_are_the_same(real: RealImages) -> None:
    whole = subset_of(real.pool, n_per_class=20, subset=3, seed=0)
    cut = subset_of(real.pool, n_per_class=20, subset=3, seed=0, cut={"8": 0.25, "1": 0.001})
    assert np.bincount(cut.labels).tolist() == [20, 1, 20, 20, 20, 20, 20, 20, 5, 20]
    assert {image.tobytes() for image in cut.images} < {image.tobytes() for image in whole.images}


def test_a_class_to_be_cut_must_exist(real: RealImages) -> None:
    with pytest.raises(InvalidInputError, match=r"no class 'eight'.*expected some of 0, 1"):
        check_sizes(Plan(cut={"eight": 0.1}), real)


def test_cut_classes_are_measured_by_balanced_accuracy_and_their_own_recall(
    real: RealImages, exported: Exported, tmp_path: Path
) -> None:
    arms = ("real", "classical", "classical+oversampled", "classical+gan")
    plan = Plan(arms=arms, **{**SMALL, "n_per_class": (20,)}, cut={"8": 0.05})
    folder, sources = tmp_path / "e", {"oracle": exported}
    experiment_folder.run(folder, plan, real, sources, cards={}, command="")
    state = experiment_folder.read(folder)
    (primary,) = state.analysis.primary
    assert (primary.arm, primary.baseline) == ("classical+gan (oracle)", "classical+oversampled")
    assert state.analysis.measure == "balanced accuracy"
    results = {result.arm: result for result in state.analysis.arms}
    plain = results["real"]
    assert plain.minority is not None
    assert plain.minority.mean == pytest.approx(plain.recalls[8])
    assert plain.minority.mean < 0.5 < np.mean(plain.recalls[:8])
    assert plain.balanced.mean == pytest.approx(np.mean(plain.recalls))
    assert primary.difference == pytest.approx(
        results["classical+gan (oracle)"].balanced.mean - results["classical+oversampled"].balanced.mean
    )
    assert "points of balanced accuracy" in sentence(primary, classes=10, measure=state.analysis.measure)


def test_generated_digits_fill_up_the_class_that_is_cut(
    real: RealImages, exported: Exported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = []

    class Recorder:
        def fit(self, draw: Any, *, seed: int) -> None:
            given.append(np.bincount(draw(1000, np.random.default_rng(0))[1], minlength=10))

        def predict(self, images: Any) -> Any:
            return np.zeros(len(images), np.int64)

    monkeypatch.setattr(experiment, "classifier", lambda *_, **__: Recorder())
    _run(tmp_path, Plan(arms=("gan",), cut={"8": 0.01}, **{**SMALL, "subsets": 1}), real, {"oracle": exported})
    assert given[0] == pytest.approx(np.full(10, 100), abs=15)


# --- wrong labels


def test_so_many_labels_are_wrong_and_the_images_are_the_same(real: RealImages) -> None:
    clean = subset_of(real.pool, n_per_class=20, subset=1, seed=0)
    noisy = subset_of(real.pool, n_per_class=20, subset=1, seed=0, noisy_labels=0.3)
    again = subset_of(real.pool, n_per_class=20, subset=1, seed=0, noisy_labels=0.3)
    assert (clean.images == noisy.images).all()
    assert np.count_nonzero(clean.labels != noisy.labels) == 60
    assert (noisy.labels == again.labels).all()
    assert noisy.sha256 != clean.sha256  # so that strict generators are trained anew


def test_wrong_labels_cost_accuracy(real: RealImages, tmp_path: Path) -> None:
    settings = {**SMALL, "n_per_class": (20,), "arms": ("real",)}
    clean = analyze(_run(tmp_path / "a", Plan(**settings), real)).arms[0].accuracy
    noisy = analyze(_run(tmp_path / "b", Plan(noisy_labels=0.5, **settings), real)).arms[0].accuracy
    assert noisy < clean - 0.05


# --- how generated digits are used


def test_variants_are_arms_of_their_own_and_take_the_digits_that_they_name(
    real: RealImages, exported: Exported, tmp_path: Path
) -> None:
    plan = Plan(
        arms=("gan",), ratio=2.0, sweep=(0.5, 2.0, 5.0), expansions=(1.5,), fresh=True, **{**SMALL, "subsets": 1}
    )
    cells = _run(tmp_path, plan, real, {"oracle": exported})
    counts = {key.arm: cell.generated[0]["n"] for key, cell in cells.items()}
    # Fresh: half of 4 steps of 64 rows.
    assert counts == {
        "gan (oracle)": 80,
        "gan (oracle, 0.5×)": 20,
        "gan (oracle, 5×)": 200,
        "gan (oracle, expansion 1.5)": 80,
        "gan (oracle, fresh)": 128,
    }
    expansions = {key.arm: cell.generated[0].get("expansion") for key, cell in cells.items()}
    assert expansions.pop("gan (oracle, expansion 1.5)") == 1.5
    assert set(expansions.values()) == {None}


def test_only_the_variant_without_a_name_gets_a_verdict(real: RealImages, exported: Exported, tmp_path: Path) -> None:
    plan = Plan(arms=("classical", "classical+gan"), sweep=(1.0,), **SMALL)
    analysis = analyze(_run(tmp_path, plan, real, {"oracle": exported}))
    assert [comparison.arm for comparison in analysis.primary] == ["classical+gan (oracle)"]
    compared = {(c.arm, c.baseline): c for c in analysis.comparisons}
    assert ("classical+gan (oracle, 1×)", "classical") in compared
    assert compared["classical+gan (oracle, 1×)", "classical+gan (oracle)"].verdict == "descriptive"
    assert ("classical+gan (oracle)", "classical+gan (oracle)") not in compared


def test_the_filter_keeps_digits_that_the_subsets_own_classifier_agrees_with(
    real: RealImages, exported: Exported, tmp_path: Path
) -> None:
    plan = Plan(arms=("gan",), filtered=True, **SMALL)
    cells = _run(tmp_path, plan, real, {"oracle": exported})
    for key, cell in cells.items():
        (note,) = cell.generated
        if ArmName.parse(key.arm).variant:
            assert 0 < note["kept"] < note["n"] == 400  # the generator is nearly untrained: few digits agree
        else:
            assert "kept" not in note


def test_digits_of_one_class_alone_teach_nothing_and_that_is_said(
    real: RealImages, exported: Exported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Stubborn:
        def fit(self, draw: Any, *, seed: int) -> None: ...

        def predict(self, images: Any) -> Any:
            return np.full(len(images), 3, np.int64)

    monkeypatch.setattr(experiment, "classifier", lambda *_, **__: Stubborn())
    plan = Plan(arms=("synthetic",), filtered=True, **SMALL)
    with pytest.raises(InvalidInputError, match=r"400 generated digits leave 40 of 1 classes.*larger sizes"):
        _run(tmp_path, plan, real, {"oracle": exported})


def test_the_baseline_alone_is_run_at_further_sizes_and_gives_the_worth(
    real: RealImages, exported: Exported, tmp_path: Path
) -> None:
    plan = Plan(arms=("real", "classical", "classical+gan"), curve=(2, 4, 8), **SMALL)
    assert plan.curve == (2, 8)
    cells = _run(tmp_path, plan, real, {"oracle": exported})
    assert {key.arm for key in cells if key.n_per_class != 4} == {"classical"}
    (primary,) = analyze(cells).primary
    assert primary.worth is not None
    assert primary.worth.sizes == (2, 4, 8)
    assert "real images per class" in sentence(primary, classes=10)


def test_several_generators_are_named_by_recipe_and_id(
    real: RealImages, exported: Exported, exported_model: Path
) -> None:
    alone, _ = experiment_folder.by_name([exported], real)
    assert list(alone) == ["oracle"]
    with pytest.raises(InvalidInputError, match="named twice"):
        experiment_folder.by_name([exported, Exported(exported_model)], real)
    names = arm_names(Plan(arms=("gan",)), {f"oracle forge-{exported.identity[:6]}": exported, "strict": exported})
    assert names == (f"gan (oracle forge-{exported.identity[:6]})", "gan (strict)")


# --- a generator without classes


@pytest.fixture(scope="module")
def without_classes(real: RealImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained generator without classes that says it has seen the real images."""
    latents = keras.Input((5,))
    images = keras.layers.Reshape((28, 28, 1))(keras.layers.Dense(784)(latents))
    generator = keras.Model(latents, images)
    described = describe(resolve("forge", {"latent_size": 5}), load("digits"), seed=0)
    card = {**make_card(described, weights=generator.get_weights(), images_seen=0, metrics={}), "class_names": []}
    folder = tmp_path_factory.mktemp("unconditional") / "digits"
    publish(ServedGenerator(generator, card, np.sort(image_hashes(real.pool.images))), to=folder, card=card)
    return folder


def test_a_generator_without_classes_that_saw_the_images_is_semi(without_classes: Path, real: RealImages) -> None:
    assert budget_of(SavedGenerator(without_classes), real) is Budget.SEMI


def test_its_digits_are_labeled_by_what_the_subset_teaches(
    without_classes: Path, real: RealImages, tmp_path: Path
) -> None:
    plan = Plan(arms=("real", "gan"), **{**SMALL, "subsets": 1})
    sources, cards = experiment_folder.by_name([Exported(without_classes)], real)
    experiment_folder.run(tmp_path, plan, real, sources, cards=cards, command="")
    state = experiment_folder.read(tmp_path)
    assert {key.arm for key in state.finished} == {"real", "gan (semi)"}
    assert [sheet.title for sheet in state.samples] == ["Real", "Generated (semi)"]


def test_of_its_digits_those_are_used_that_the_classifier_is_sure_of(
    without_classes: Path, real: RealImages, tmp_path: Path
) -> None:
    def kept(confidence: float) -> int:
        plan = Plan(arms=("gan",), confidence=confidence, **{**SMALL, "subsets": 1, "classifier": "logistic"})
        cells = _run(tmp_path / str(confidence), plan, real, {"semi": Exported(without_classes)})
        ((note,),) = (cell.generated for cell in cells.values())
        return int(note["kept"])

    assert kept(0.0) == 400
    with pytest.raises(InvalidInputError, match=r"400 generated digits leave 0 .*a lower --confidence"):
        kept(0.999)  # after four images of each class it is never so sure


# --- a classifier of one's own


def test_a_classifier_by_import_path_is_trained(real: RealImages, tmp_path: Path) -> None:
    plan = Plan(arms=("real",), **{**SMALL, "classifier": "sklearn.neighbors:KNeighborsClassifier"})
    assert all(cell.accuracy > 0.6 for cell in _run(tmp_path, plan, real).values())
    seeded = Plan(arms=("real",), **{**SMALL, "classifier": "sklearn.tree:DecisionTreeClassifier"})
    first, again = (_run(tmp_path / name, seeded, real) for name in "ab")
    assert [cell.confusion for cell in first.values()] == [cell.confusion for cell in again.values()]


def test_a_classifier_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_my_own.py").write_text(
        "class Silly:\n    def fit(self, X, y): return self\n    def predict(self, X): return X[:, 0]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert Plan(classifier="of_my_own:Silly").classifier == "of_my_own:Silly"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere:Thing", "cannot be imported"),
        ("sklearn.svm:Nothing", "cannot be imported"),
        ("sklearn.svm:", "expected MODULE:NAME"),
        ("sklearn.preprocessing:StandardScaler", "has no predict"),
        ("sklearn.ensemble:VotingClassifier", "without arguments"),
        ("math:pi", "expected a class or a function"),
        ("svn", "MODULE:NAME of your own"),
    ],
)
def test_what_is_no_classifier_is_refused_with_the_reason(path: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Plan(classifier=path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cut": {"8": 1.5}}, "class 8 is cut to 1.5"),
        ({"noisy_labels": 1.0}, "noisy labels is 1.0"),
        ({"elastic": -1.0}, "elastic is -1"),
        ({"elastic": float("inf")}, "elastic is inf"),
        ({"sweep": (1.0, 0.0)}, "ratio is 0"),
        ({"curve": (0,)}, "n per class"),
    ],
)
def test_impossible_scenarios_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Plan(**settings)


def test_every_size_and_arm_is_planned_once() -> None:
    cells = plan_cells(Plan(arms=("real", "classical"), n_per_class=(10,), curve=(5, 20), subsets=2), {})
    assert len(cells) == len(set(cells)) == 2 * (2 + 1 + 1)
