"""The experiment: subsets, pairing, resuming, and what may not be mixed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.experiment import plan as experiment
from digitforge_evaluation.experiment.generators import Budget, Exported, TrainedInside
from digitforge_evaluation.experiment.plan import Plan, identity, plan_cells, run, spread
from digitforge_evaluation.experiment.store import CellKey, CellResult, Store, open_store, read_store
from digitforge_evaluation.experiment.subsets import RealImages, hold_out, subset_indices
from digitforge_evaluation.images.sources import Drawn, SavedGenerator
from digitforge_training.data import Dataset, load

SMALL: dict[str, Any] = {"n_per_class": (2,), "subsets": 2, "classifier": "svm", "steps": 4}


@pytest.fixture(scope="module")
def real() -> RealImages:
    return hold_out(load("digits"), load("digits", split="test"), which="test")


def _run(folder: Path, plan: Plan, real: RealImages, sources: Any = None, **options: Any) -> dict[CellKey, CellResult]:
    sources = sources or {}
    with open_store(folder / "r.jsonl", identity=identity(plan, real, sources), about={}) as store:
        run(plan, real, sources, store, **options)
    return read_store(folder / "r.jsonl").cells


def test_a_subset_has_so_many_different_images_of_each_class(real: RealImages) -> None:
    indices = subset_indices(real.pool.labels, n_per_class=7, subset=0, seed=0)
    assert len(set(indices.tolist())) == 70
    assert set(np.bincount(real.pool.labels[indices])) == {7}


def test_subsets_differ_and_are_the_same_again(real: RealImages) -> None:
    def chosen(**key: int) -> list[int]:
        return subset_indices(real.pool.labels, **{"n_per_class": 5, "subset": 0, "seed": 0, **key}).tolist()

    assert chosen() == chosen()
    assert chosen() != chosen(subset=1)
    assert chosen() != chosen(seed=1)


def test_too_few_images_of_a_class_are_noticed_before_the_first_cell(real: RealImages) -> None:
    with pytest.raises(InvalidInputError, match=r"500 images per class.*class 0 has only 1"):
        experiment.check_sizes(Plan(arms=("real",), n_per_class=(1, 500)), real)


def test_validation_holds_out_training_images_and_leaves_the_test_set_alone() -> None:
    training, test = load("digits"), load("digits", split="test")
    split = hold_out(training, test, which="validation")
    assert len(split.held_out) == round(len(training) / 12)
    assert len(split.pool) + len(split.held_out) == len(training)
    kept = {image.tobytes() for image in split.held_out.images}
    assert not kept & {image.tobytes() for image in test.images}


def test_every_cell_is_run_once_and_a_resumed_run_does_only_what_is_missing(real: RealImages, tmp_path: Path) -> None:
    plan = Plan(arms=("real", "smote"), **SMALL)
    seen: list[CellKey] = []

    def stop_after_one(result: CellResult) -> None:
        seen.append(result.key)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, plan, real, on_cell=stop_after_one)
    first = read_store(tmp_path / "r.jsonl").cells
    assert list(first) == seen
    cells = _run(tmp_path, plan, real, on_cell=lambda result: seen.append(result.key))
    assert sorted(seen) == sorted(plan_cells(plan, {})) == sorted(cells)
    assert all(cells[key] == result for key, result in first.items())


def test_a_plan_may_grow_and_keeps_its_cells(real: RealImages, tmp_path: Path) -> None:
    before = _run(tmp_path, Plan(arms=("real",), **SMALL), real)
    grown = Plan(arms=("real", "noise"), **{**SMALL, "n_per_class": (2, 3), "subsets": 3})
    after = _run(tmp_path, grown, real)
    assert len(after) == 12
    assert all(after[key] == result for key, result in before.items())


def test_the_same_seed_gives_the_same_accuracies_in_any_order_and_number_of_processes(
    real: RealImages, tmp_path: Path
) -> None:
    plan = Plan(arms=("real", "classical"), **SMALL)
    alone = _run(tmp_path / "a", plan, real)
    beside = _run(tmp_path / "b", plan, real, jobs=2)
    assert {key: cell.confusion for key, cell in alone.items()} == {key: cell.confusion for key, cell in beside.items()}
    other = _run(tmp_path / "c", Plan(arms=("real", "classical"), seed=1, **SMALL), real)
    assert {key: cell.confusion for key, cell in alone.items()} != {key: cell.confusion for key, cell in other.items()}


class _Recorder:
    """A classifier that notes what it is given and predicts class 0."""

    def __init__(self) -> None:
        self.fits: list[tuple[int, int]] = []

    def fit(self, draw: Any, *, seed: int) -> None:
        images, _ = draw(50, np.random.default_rng(0))
        self.fits.append((seed, hash(images.tobytes())))

    def predict(self, images: Any) -> Any:
        return np.zeros(len(images), np.int64)


def test_arms_differ_in_their_training_images_only(
    real: RealImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, made = _Recorder(), []

    def make(name: str, **settings: Any) -> _Recorder:
        made.append((name, *sorted(settings.items())))
        return recorder

    monkeypatch.setattr(experiment, "classifier", make)
    arms = ("real", "noise", "smote", "classical")
    plan = Plan(arms=arms, **{**SMALL, "subsets": 1, "replicates": 2})
    cells = _run(tmp_path, plan, real)
    assert len(set(made)) == 1
    assert len(made) == len(arms)
    seeds = [seed for seed, _ in recorder.fits]
    assert seeds == seeds[:2] * len(arms)
    assert seeds[0] != seeds[1]
    assert len({images for _, images in recorder.fits[::2]}) == len(arms)
    assert {sum(map(sum, cell.confusion)) for cell in cells.values()} == {2 * len(real.held_out)}


def test_a_confusion_matrix_counts_true_classes_in_rows(
    real: RealImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "classifier", lambda *_, **__: _Recorder())
    (cell,) = _run(tmp_path, Plan(arms=("real",), **{**SMALL, "subsets": 1}), real).values()
    assert [row[0] for row in cell.confusion] == np.bincount(real.held_out.labels).tolist()
    assert cell.accuracy == pytest.approx(np.mean(real.held_out.labels == 0))


@pytest.fixture(scope="module")
def exported(exported_model: Path) -> Exported:
    return Exported(exported_model)


def test_generated_digits_reach_the_classifier_and_are_cited(
    real: RealImages, exported: Exported, tmp_path: Path
) -> None:
    plan = Plan(arms=("real", "gan", "synthetic"), ratio=3.0, **SMALL)
    cells = _run(tmp_path, plan, real, {Budget.ORACLE: exported})
    assert {key.arm for key in cells} == {"real", "gan (oracle)", "synthetic (oracle)"}
    notes = {key: cell.generated for key, cell in cells.items() if key.arm != "real"}
    assert all(note["n"] == 60 and note["generator_id"] == exported.identity for (note,) in notes.values())
    of_first = {cells[key].generated[0]["seed"] for key in notes if key.subset == 0}
    assert len(of_first) == 1  # all arms of a subset get the same digits
    assert {cells[key].generated[0]["seed"] for key in notes if key.subset == 1} != of_first


def test_digits_are_drawn_once_for_all_arms_that_use_them(
    real: RealImages, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[int, float | None]] = []
    draw = SavedGenerator.draw

    def counted(self: SavedGenerator, n: int, *, seed: int, expansion: float | None = None, **options: Any) -> Drawn:
        drawn.append((seed, expansion))
        return draw(self, n, seed=seed, expansion=expansion, **options)

    monkeypatch.setattr(SavedGenerator, "draw", counted)
    plan = Plan(arms=("gan", "classical+gan", "synthetic"), ratio=1.0, expansions=(1.1, 1.2, 1.3), **SMALL)
    assert len(_run(tmp_path, plan, real, {Budget.ORACLE: exported})) == 2 * 3 * 4
    assert len(drawn) == len(set(drawn)) == 2 * 4


def test_strict_generators_are_trained_on_the_subset_alone_and_only_once(real: RealImages, tmp_path: Path) -> None:
    tiny = {"steps": 2, "width": 8, "generator_blocks": 1, "discriminator_blocks": 1, "batch_size": 8}
    source = TrainedInside(recipe="forge-small", overrides=tiny, cache=tmp_path / "generators")
    plan = Plan(arms=("gan", "synthetic"), **{**SMALL, "subsets": 1})
    cells = _run(tmp_path, plan, real, {Budget.STRICT: source})
    (folder,) = (tmp_path / "generators").iterdir()
    made = (folder / "models" / "1" / "saved_model.pb").stat().st_mtime_ns
    ids = {cell.generated[0]["generator_id"] for cell in cells.values()}
    assert len(ids) == 1
    indices = subset_indices(real.pool.labels, n_per_class=2, subset=0, seed=0)
    subset = real.pool.subset(indices)
    generator = source.generator_for(subset, seed=cells[next(iter(cells))].generated[0]["seed"])
    assert generator.card is not None
    assert generator.card["training_data"]["images"] == len(subset) == 20
    assert generator.card["training_data"]["sha256"] == subset.sha256
    assert (folder / "models" / "1" / "saved_model.pb").stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": ("flipped",)}, "flipped"),
        ({"n_per_class": (0,)}, "n per class"),
        ({"n_per_class": ()}, "n per class"),
        ({"subsets": 0}, "subsets is 0"),
        ({"steps": -1}, "steps is -1"),
        ({"classifier": "oracle"}, "no classifier 'oracle'"),
        ({"ratio": 0.0}, "ratio is 0"),
        ({"ratio": float("nan")}, "ratio is nan"),
        ({"expansions": (1.2, 0.0)}, "expansion is 0"),
        ({"generated_share": 1.0}, "share"),
        ({"held_out": "train"}, "held out is 'train'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_plans_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Plan(**settings)


def test_an_arm_with_a_generator_needs_one() -> None:
    with pytest.raises(InvalidInputError, match="'gan' needs generated digits"):
        plan_cells(Plan(arms=("real", "gan")), {})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "r.jsonl", identity={}, about={}) as opened:
        yield opened


def test_color_images_of_other_classes_can_be_experimented_with(store: Store) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60, dtype=np.int64) % 3
    images = (rng.integers(0, 100, (60, 20, 20, 3)) + 50 * labels[:, None, None, None]).astype(np.uint8)
    data = Dataset(images=images, labels=labels, class_names=("a", "b", "c"), name="colors", split="train")
    plan = Plan(arms=("real", "smote", "classical"), **{**SMALL, "subsets": 1})
    run(plan, RealImages(pool=data, held_out=data), {}, store)
    assert all(cell.accuracy > 0.9 for cell in store.cells.values())


def test_work_side_by_side_is_on_different_subsets() -> None:
    cells = plan_cells(Plan(arms=("real", "classical"), n_per_class=(2, 5), subsets=4), {})
    order = spread(cells, subsets=2)
    assert sorted(order) == sorted(cells)
    assert [(cell.n_per_class, cell.arm, cell.subset) for cell in order[:6]] == [
        (2, "real", 0),
        (2, "real", 1),
        (2, "classical", 0),
        (2, "classical", 1),
        (2, "real", 2),
        (2, "real", 3),
    ]


def test_no_subset_with_a_generator_is_left_alone_where_another_size_has_one_too() -> None:
    plan = Plan(arms=("real", "classical", "synthetic"), n_per_class=(2, 5), curve=(3,), subsets=3)
    order = spread(plan_cells(plan, {Budget.STRICT: TrainedInside(cache=Path("unused"))}), subsets=2)
    with_generator = [(cell.n_per_class, cell.subset) for cell in order if cell.arm.startswith("synthetic")]
    assert with_generator == [(2, 0), (2, 1), (2, 2), (5, 0), (5, 1), (5, 2)]
    assert [cell.n_per_class for cell in order[6:12]] == [2, 5, 2, 5, 2, 5]
    assert [cell.n_per_class for cell in order[-3:]] == [3, 3, 3]
