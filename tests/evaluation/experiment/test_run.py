"""Tests of running a plan: pairing, resuming, the classifier's input, and the order of parallel work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.classifiers import Draw, Images, Labels
from digitforge_evaluation.experiment import draws, run
from digitforge_evaluation.experiment.analysis import analyze
from digitforge_evaluation.experiment.arms import PLAIN
from digitforge_evaluation.experiment.generators import AdaptedInside, Budget, Exported, TrainedInside
from digitforge_evaluation.experiment.plan import Plan, identity, plan_cells
from digitforge_evaluation.experiment.run import interleave, run_cells
from digitforge_evaluation.experiment.sentences import fair_sentence, sentence
from digitforge_evaluation.experiment.store import CellKey, CellResult, open_store, read_store
from digitforge_evaluation.experiment.subsets import RealImages, subset_indices
from digitforge_evaluation.images.seen import seen_images
from digitforge_evaluation.images.sources import Drawn, SavedGenerator
from digitforge_training.data import Dataset
from digitforge_training.export.saved_model import read_card

RunPlan = Callable[..., dict[CellKey, CellResult]]


def _confusions(cells: dict[CellKey, CellResult]) -> dict[CellKey, object]:
    return {key: cell.confusion for key, cell in cells.items()}


# --- which cells are run


def test_every_cell_is_run_once_and_a_resumed_run_adds_only_missing_cells(run_plan: RunPlan, tmp_path: Path) -> None:
    seen: list[CellKey] = []

    def stop_after_one(result: CellResult) -> None:
        seen.append(result.key)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_plan(tmp_path, "real", "smote", options={"on_cell": stop_after_one})
    first = read_store(tmp_path / "results.jsonl").cells
    assert list(first) == seen
    cells = run_plan(tmp_path, "real", "smote", options={"on_cell": lambda result: seen.append(result.key)})
    assert len(seen) == len(set(seen)) == 4
    assert set(seen) == set(cells)
    assert all(cells[key] == result for key, result in first.items())
    grown = run_plan(tmp_path, "real", "smote", "noise", n_per_class=(2, 3), subsets=3)
    assert len(grown) == 18
    assert all(grown[key] == result for key, result in cells.items())


def test_the_same_seed_gives_the_same_accuracies_in_any_order_and_number_of_processes(
    run_plan: RunPlan, tmp_path: Path
) -> None:
    alone = run_plan(tmp_path / "a", "real", "classical")
    beside = run_plan(tmp_path / "b", "real", "classical", options={"jobs": 2})
    assert _confusions(alone) == _confusions(beside)
    assert _confusions(alone) != _confusions(run_plan(tmp_path / "c", "real", "classical", seed=1))


def test_a_cluster_gives_the_same_accuracies_and_its_results_can_be_continued_locally(
    scheduler: str, run_plan: RunPlan, tmp_path: Path
) -> None:
    on_cluster = run_plan(tmp_path / "a", "real", "classical", options={"scheduler": scheduler})
    stored = (tmp_path / "a" / "results.jsonl").read_text()
    assert _confusions(on_cluster) == _confusions(run_plan(tmp_path / "b", "real", "classical"))
    assert run_plan(tmp_path / "a", "real", "classical") == on_cluster
    assert (tmp_path / "a" / "results.jsonl").read_text() == stored


def test_an_experiment_accepts_color_images_and_other_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60, dtype=np.int64) % 3
    images = (rng.integers(0, 100, (60, 20, 20, 3)) + 50 * labels[:, None, None, None]).astype(np.uint8)
    data = Dataset(images=images, labels=labels, class_names=("a", "b", "c"), name="colors", split="train")
    plan = Plan(arms=("real", "smote", "classical"), n_per_class=(2,), subsets=1, classifier="svm", steps=4)
    with open_store(tmp_path / "r.jsonl", identity={}, about={}) as store:
        run_cells(plan, RealImages(pool=data, held_out=data), {}, store)
        assert all(cell.accuracy > 0.9 for cell in store.cells.values())


def test_parallel_work_is_on_different_subsets() -> None:
    cells = plan_cells(Plan(arms=("real", "classical"), n_per_class=(2, 5), subsets=4), {})
    order = interleave(cells, subsets=2)
    assert len(order) == len(cells)
    assert set(order) == set(cells)
    assert [(cell.n_per_class, str(cell.arm), cell.subset) for cell in order[:6]] == [
        (2, "real", 0),
        (2, "real", 1),
        (2, "classical", 0),
        (2, "classical", 1),
        (2, "real", 2),
        (2, "real", 3),
    ]


def test_strict_generators_of_different_sizes_are_trained_in_parallel() -> None:
    plan = Plan(arms=("real", "classical", "synthetic"), n_per_class=(2, 5), curve=(3,), subsets=3)
    order = interleave(plan_cells(plan, {Budget.STRICT: TrainedInside(cache=Path("unused"))}), subsets=2)
    with_generator = [(cell.n_per_class, cell.subset) for cell in order if cell.arm.design.generator]
    assert with_generator == [(2, 0), (2, 1), (2, 2), (5, 0), (5, 1), (5, 2)]
    assert [cell.n_per_class for cell in order[6:12]] == [2, 5, 2, 5, 2, 5]
    assert [cell.n_per_class for cell in order[-3:]] == [3, 3, 3]


# --- the input of a classifier


class Recorder:
    """A classifier that records its input and always predicts one class."""

    def __init__(self, predicted: int = 0) -> None:
        self._predicted = predicted
        self.seeds: list[int] = []
        self.drawn: list[tuple[Images, Labels]] = []

    def fit(self, draw: Draw, *, seed: int) -> None:
        self.seeds.append(seed)
        self.drawn.append(draw(1000, np.random.default_rng(0)))

    def predict(self, images: Images) -> Labels:
        return np.full(len(images), self._predicted, np.int64)


def test_arms_differ_only_in_their_training_images(
    real: RealImages, run_plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, made = Recorder(), []

    def make(name: str, **settings: Any) -> Recorder:
        made.append((name, *sorted(settings.items())))
        return recorder

    monkeypatch.setattr(run, "classifier", make)
    arms = ("real", "noise", "smote", "classical")
    cells = run_plan(tmp_path, *arms, subsets=1, replicates=2)
    assert len(set(made)) == 1
    assert len(made) == len(arms)
    assert recorder.seeds == recorder.seeds[:2] * len(arms)
    assert recorder.seeds[0] != recorder.seeds[1]
    assert len({images.tobytes() for images, _ in recorder.drawn[::2]}) == len(arms)
    for cell in cells.values():  # true classes in rows
        assert [row[0] for row in cell.confusion] == (2 * np.bincount(real.held_out.labels)).tolist()
        assert cell.accuracy == pytest.approx(np.mean(real.held_out.labels == 0))


def test_generated_digits_balance_the_cut_class(
    exported: Exported, run_plan: RunPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(run, "classifier", lambda *_, **__: recorder)
    run_plan(tmp_path, "gan", sources={"oracle": exported}, cut={"8": 0.01}, subsets=1, n_per_class=(4,))
    assert np.bincount(recorder.drawn[0][1], minlength=10) == pytest.approx(np.full(10, 100), abs=15)


def test_generated_digits_reach_the_classifier_and_the_notes_cite_them(
    exported: Exported, run_plan: RunPlan, tmp_path: Path
) -> None:
    cells = run_plan(tmp_path, "real", "gan", "synthetic", sources={Budget.ORACLE: exported}, ratio=3.0)
    assert {str(key.arm) for key in cells} == {"real", "gan (oracle)", "synthetic (oracle)"}
    notes = {key: cell.generated for key, cell in cells.items() if key.arm.source}
    assert all(note["n"] == 60 and note["generator_id"] == exported.identity for (note,) in notes.values())
    of_first = {cells[key].generated[0]["seed"] for key in notes if key.subset == 0}
    assert len(of_first) == 1  # all arms of a subset get the same digits
    assert {cells[key].generated[0]["seed"] for key in notes if key.subset == 1} != of_first


def test_digits_are_drawn_once_for_all_arms_that_use_them(
    exported: Exported, run_plan: RunPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, float | None]] = []
    draw = SavedGenerator.draw

    def counted(self: SavedGenerator, n: int, *, seed: int, expansion: float | None = None, **options: Any) -> Drawn:
        drawn.append((seed, expansion))
        return draw(self, n, seed=seed, expansion=expansion, **options)

    monkeypatch.setattr(SavedGenerator, "draw", counted)
    sources, settings = {Budget.ORACLE: exported}, {"ratio": 1.0, "expansions": (1.1, 1.2, 1.3)}
    assert len(run_plan(tmp_path, "gan", "classical+gan", "synthetic", sources=sources, **settings)) == 2 * 3 * 4
    assert len(drawn) == len(set(drawn)) == 2 * 4


@pytest.mark.usefixtures("eagerly")
def test_strict_generators_are_trained_on_the_subset_alone_and_only_once(
    real: RealImages, run_plan: RunPlan, tmp_path: Path
) -> None:
    small = {"network": "dense", "generator_widths": "8", "discriminator_widths": "8", "clusters": 1}
    overrides = small | {"steps": 2, "batch_size": 8}
    source = TrainedInside(recipe="forge-small", overrides=overrides, cache=tmp_path / "generators")
    cells = run_plan(tmp_path, "gan", "synthetic", sources={Budget.STRICT: source}, subsets=1)
    (folder,) = (path for path in (tmp_path / "generators").iterdir() if path.is_dir())
    made = (folder / "models" / "1" / "saved_model.pb").stat().st_mtime_ns
    ((generator_id, seed),) = {
        (cell.generated[0]["generator_id"], cell.generated[0]["seed"]) for cell in cells.values()
    }
    subset = real.pool.subset(subset_indices(real.pool.labels, n_per_class=2, subset=0, seed=0))
    generator = source.generator_for(subset, seed=seed)
    assert generator.card is not None
    assert generator.card["generator_id"] == generator_id
    assert generator.card["training_data"]["images"] == len(subset) == 20
    assert generator.card["training_data"]["sha256"] == subset.sha256
    assert (folder / "models" / "1" / "saved_model.pb").stat().st_mtime_ns == made


@pytest.mark.usefixtures("eagerly")
def test_strict_generators_can_be_trained_on_changed_copies_too(real: RealImages, tmp_path: Path) -> None:
    small = {"network": "dense", "generator_widths": "8", "discriminator_widths": "8", "clusters": 1, "steps": 2}
    source = TrainedInside(recipe="forge-small", overrides=small, copies=3, cache=tmp_path)
    subset = real.pool.subset(subset_indices(real.pool.labels, n_per_class=2, subset=0, seed=0))
    generator = source.generator_for(subset, seed=0)
    assert generator.card is not None
    assert generator.card["training_data"]["images"] == 4 * len(subset)
    assert source.generator_for(subset, seed=0).card == generator.card  # from the cache
    seen = seen_images(generator, subset)
    assert seen is not None
    assert seen.all()
    assert source.identity != TrainedInside(recipe="forge-small", overrides=small, cache=tmp_path).identity


@pytest.mark.usefixtures("eagerly")
def test_adapted_generators_start_from_a_generator_and_see_the_subset_alone(
    exported_model: Path, real: RealImages, run_plan: RunPlan, tmp_path: Path
) -> None:
    fields = {"steps": 1, "batch_size": 8}
    source = AdaptedInside(exported_model, overrides=fields, cache=tmp_path / "generators")
    cells = run_plan(tmp_path, "gan", "synthetic", sources={Budget.ADAPTED: source}, subsets=1)
    ((generator_id, seed),) = {
        (cell.generated[0]["generator_id"], cell.generated[0]["seed"]) for cell in cells.values()
    }
    subset = real.pool.subset(subset_indices(real.pool.labels, n_per_class=2, subset=0, seed=0))
    generator = source.generator_for(subset, seed=seed)
    assert generator.card is not None
    assert generator.card["generator_id"] == generator_id
    assert generator.card["parent"]["generator_id"] == read_card(exported_model / "1")["generator_id"]
    assert generator.card["training_data"]["sha256"] == subset.sha256
    assert source.identity != AdaptedInside(exported_model, cache=tmp_path / "generators").identity


# --- how generated images are used


def test_the_rest_of_the_training_images_tests_each_subset(real: RealImages, tmp_path: Path) -> None:
    real = RealImages(pool=real.pool, held_out=real.pool, rest=True)
    plan = Plan(arms=("real",), n_per_class=(2, 4), subsets=2, classifier="svm", steps=4, held_out="rest")
    with open_store(tmp_path / "results.jsonl", identity=identity(plan, real, {}), about={}) as store:
        run_cells(plan, real, {}, store)
        assert {(key.n_per_class, int(np.sum(cell.confusion))) for key, cell in store.cells.items()} == {
            (2, len(real.pool) - 20),
            (4, len(real.pool) - 40),
        }
        assert [result.held_out for result in analyze(store.cells).arms] == [len(real.pool) - 20, len(real.pool) - 40]


def test_variants_are_separate_arms_and_use_the_digits_that_they_name(
    exported: Exported, run_plan: RunPlan, tmp_path: Path
) -> None:
    cells = run_plan(
        tmp_path,
        *("classical", "classical+gan"),
        sources={"oracle": exported},
        n_per_class=(4,),
        ratio=2.0,
        sweep=(0.5, 2.0, 5.0),
        shares=(0.25,),
        expansions=(1.5,),
        fresh=True,
        filtered=True,
        gafi=1.5,
    )
    notes = {str(key.arm): cell.generated[0] for key, cell in cells.items() if key.arm.source}
    assert {arm.removeprefix("classical+gan (oracle"): note["n"] for arm, note in notes.items()} == {
        ")": 80,
        ", 0.5×)": 20,
        ", 5×)": 200,
        ", share 0.25)": 80,
        ", expansion 1.5)": 80,
        ", fresh)": 128,  # half of 4 steps of 64 rows
        ", filtered)": 80,
        ", expansion 1.5, fresh, filtered)": 128,
    }
    assert [note["expansion"] for note in notes.values() if "expansion" in note] == [1.5, 1.5]
    # With little training, the classifier agrees with the labels of few digits.
    kept, kept_of_gafi = (note["kept"] for note in notes.values() if "kept" in note)
    assert 0 < kept < 80
    assert 0 < kept_of_gafi < 128
    assert set(cells) == set(read_store(tmp_path / "results.jsonl").cells)

    analysis = analyze(cells)
    assert [str(comparison.arm) for comparison in analysis.primary] == ["classical+gan (oracle)"]
    compared = {(str(c.arm), str(c.baseline)): c.verdict for c in analysis.comparisons if c.arm.variant != PLAIN}
    assert len(compared) == 7 * 2  # with the baseline, and with the same arm without its variant
    assert set(compared.values()) == {"descriptive"}
    assert ("classical+gan (oracle, 5×)", "classical+gan (oracle)") in compared


def test_filtered_digits_of_a_single_class_are_refused(
    exported: Exported, run_plan: RunPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "classifier", lambda *_, **__: Recorder(predicted=3))
    with pytest.raises(InvalidInputError, match=r"kept 40 of 400 generated images, in 1 of 10 classes.*larger size"):
        run_plan(tmp_path, "synthetic", sources={"oracle": exported}, filtered=True, n_per_class=(4,))


def test_digits_without_classes_are_used_if_the_confidence_suffices(
    without_classes: Path, run_plan: RunPlan, tmp_path: Path
) -> None:
    def kept(confidence: float) -> int:
        settings = {"confidence": confidence, "subsets": 1, "classifier": "logistic", "n_per_class": (4,)}
        sources = {"semi": Exported(without_classes)}
        (cell,) = run_plan(tmp_path / str(confidence), "gan", sources=sources, **settings).values()
        return int(cell.generated[0]["kept"])

    assert kept(0.0) == 400
    with pytest.raises(InvalidInputError, match=r"kept 0 of 400 generated images.*a lower --confidence"):
        kept(0.999)  # with four images per class, the confidence never gets this high


class Sure(Recorder):
    """Labels every image by its brightest row, and is sure of images with a bright center."""

    def predict_surely(self, images: Images) -> tuple[Labels, np.ndarray]:
        return images.sum(axis=(2, 3), dtype=np.int64).argmax(axis=1) % 10, images[:, 14, 14, 0] / 255.0


def test_pseudo_labeled_images_are_other_images_of_the_pool_with_the_labels_of_the_classifier(
    real: RealImages, run_plan: RunPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorder = Sure()
    monkeypatch.setattr(run, "classifier", lambda *_, **__: recorder)
    monkeypatch.setattr(draws, "shift_rotate_scale", lambda images, rng, elastic: images)
    settings = {"n_per_class": (4,), "subsets": 1, "replicates": 2, "ratio": 5.0, "confidence": 0.5}
    (cell,) = run_plan(tmp_path, "pseudo-labeled", **settings).values()
    own = {
        image.tobytes()
        for image in real.pool.subset(subset_indices(real.pool.labels, n_per_class=4, subset=0, seed=0)).images
    }
    pool = {image.tobytes() for image in real.pool.images}
    found = []
    for labeling, training in (recorder.drawn[:2], recorder.drawn[2:]):  # one pair of fits per replicate
        assert {image.tobytes() for image in labeling[0]} == own
        images, labels = training
        added = np.array([image.tobytes() not in own for image in images])
        assert np.mean(added) == 0.5
        assert {image.tobytes() for image in images[added]} <= pool
        expected, confidence = recorder.predict_surely(images[added])
        np.testing.assert_array_equal(labels[added], expected)
        assert confidence.min() >= 0.5
        found.append({image.tobytes() for image in images[added]})
    assert found[0] != found[1]
    assert [note["n"] for note in cell.generated] == [200, 200]
    assert [note["kept"] for note in cell.generated] == [len(images) for images in found]


def test_semi_arms_are_compared_with_pseudo_labeled_images(
    without_classes: Path, run_plan: RunPlan, tmp_path: Path
) -> None:
    sources, settings = {"semi": Exported(without_classes)}, {"n_per_class": (4,), "confidence": 0.0}
    arms = ("classical", "pseudo-labeled", "gan", "classical+gan")
    analysis = analyze(run_plan(tmp_path, *arms, sources=sources, subsets=3, **settings))
    compared = {(str(c.arm), str(c.baseline)): c for c in analysis.comparisons}
    for arm in ("classical+gan (semi)", "gan (semi)"):
        assert compared[arm, "pseudo-labeled"].verdict == "descriptive"
        assert not compared[arm, "pseudo-labeled"].primary
    assert ("pseudo-labeled", "classical") in compared
    assert compared["classical+gan (semi)", "classical"].primary
    (fair,) = analysis.fair
    assert fair == compared["classical+gan (semi)", "pseudo-labeled"]
    side = "above" if fair.difference >= 0 else "below"
    said = f"classical+gan (semi) is {100 * abs(fair.difference):.2f} points {side} pseudo-labeled"
    assert said in fair_sentence(fair)


def test_a_higher_confidence_keeps_fewer_pseudo_labels(run_plan: RunPlan, tmp_path: Path) -> None:
    settings = {"n_per_class": (4,), "subsets": 1, "classifier": "logistic", "ratio": 4.0}
    cells = run_plan(tmp_path, "pseudo-labeled", confidence=0.0, confidences=(0.0, 0.2, 0.3), **settings)
    kept = {str(key.arm): cell.generated[0]["kept"] for key, cell in cells.items()}
    assert list(kept) == ["pseudo-labeled", "pseudo-labeled (confidence 0.2)", "pseudo-labeled (confidence 0.3)"]
    assert list(kept.values()) == sorted(kept.values(), reverse=True)
    assert kept["pseudo-labeled"] == 160 > kept["pseudo-labeled (confidence 0.3)"]


def test_variants_of_semi_generators_meet_the_same_variants_of_pseudo_labels(
    without_classes: Path, run_plan: RunPlan, tmp_path: Path
) -> None:
    settings = {"n_per_class": (4,), "subsets": 1, "confidence": 0.0, "ratio": 4.0}
    variants = {"confidences": (0.05,), "sweep": (2.0,), "expansions": (1.5,)}
    sources = {"semi": Exported(without_classes)}
    cells = run_plan(tmp_path, "pseudo-labeled", "gan", sources=sources, **settings, **variants)
    drawn = {str(key.arm): cell.generated[0]["n"] for key, cell in cells.items()}
    assert drawn == {
        "pseudo-labeled": 160,
        "pseudo-labeled (2×)": 80,
        "pseudo-labeled (confidence 0.05)": 160,
        "gan (semi)": 160,
        "gan (semi, 2×)": 80,
        "gan (semi, expansion 1.5)": 160,
        "gan (semi, confidence 0.05)": 160,
    }
    compared = {(str(c.arm), str(c.baseline)) for c in analyze(cells).comparisons}
    assert ("gan (semi, confidence 0.05)", "pseudo-labeled (confidence 0.05)") in compared
    assert ("gan (semi, expansion 1.5)", "pseudo-labeled") in compared
    assert ("pseudo-labeled (2×)", "pseudo-labeled") in compared
    assert set(cells) == set(read_store(tmp_path / "results.jsonl").cells)


def test_a_subset_of_the_whole_pool_leaves_no_unlabeled_image(real: RealImages, tmp_path: Path) -> None:
    few = np.concatenate([np.flatnonzero(real.pool.labels == label)[:2] for label in range(10)])
    plan = Plan(arms=("pseudo-labeled",), n_per_class=(2,), subsets=1, classifier="svm", steps=4)
    with (
        open_store(tmp_path / "results.jsonl", identity={}, about={}) as store,
        pytest.raises(InvalidInputError, match="leaves no image of digits unlabeled"),
    ):
        run_cells(plan, RealImages(pool=real.pool.subset(few), held_out=real.held_out), {}, store)


def test_only_the_baseline_is_run_at_the_extra_sizes_and_gives_the_worth(
    exported: Exported, run_plan: RunPlan, tmp_path: Path
) -> None:
    sources, sizes = {"oracle": exported}, {"n_per_class": (4,), "curve": (2, 4, 8)}
    cells = run_plan(tmp_path, "real", "classical", "classical+gan", sources=sources, **sizes)
    assert {(key.n_per_class, str(key.arm)) for key in cells if key.n_per_class != 4} == {
        (2, "classical"),
        (8, "classical"),
    }
    (primary,) = analyze(cells).primary
    assert primary.worth is not None
    assert primary.worth.sizes == (2, 4, 8)
    assert "real images per class" in sentence(primary, classes=10)


def test_more_passes_train_on_more_rows(run_plan: RunPlan, tmp_path: Path) -> None:
    """With one step, the classifier sees 64 of the 200 images. With 13 passes, it sees 41 × 64 rows."""
    few, many = (
        run_plan(tmp_path / str(passes), "real", steps=1, passes=passes, n_per_class=(20,)) for passes in (0.0, 13.0)
    )
    assert analyze(many).arms[0].accuracy > analyze(few).arms[0].accuracy


# --- classifiers and labels


def test_wrong_labels_lower_the_accuracy(run_plan: RunPlan, tmp_path: Path) -> None:
    def accuracy(share: float) -> float:
        return analyze(run_plan(tmp_path / str(share), "real", n_per_class=(20,), noisy_labels=share)).arms[0].accuracy

    assert accuracy(0.5) < accuracy(0.0) - 0.05


@pytest.mark.parametrize("path", ["sklearn.neighbors:KNeighborsClassifier", "sklearn.tree:DecisionTreeClassifier"])
def test_a_classifier_by_import_path_gives_repeatable_results(path: str, run_plan: RunPlan, tmp_path: Path) -> None:
    first, again = (run_plan(tmp_path / name, "real", classifier=path, n_per_class=(4,)) for name in "ab")
    assert _confusions(first) == _confusions(again)
    assert all(cell.accuracy > 0.3 for cell in first.values())
