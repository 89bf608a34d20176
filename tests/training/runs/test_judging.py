"""Judges: found by name, they see only held-out images, and the best checkpoint is exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from digitforge_client.contract import Field, Signature, image_hashes
from digitforge_client.errors import InvalidInputError
from digitforge_training.data import Dataset
from digitforge_training.export.saved_model import export, read_card
from digitforge_training.recipes import resolve
from digitforge_training.runs import checkpoints, judging, loop

RECIPE = resolve(
    "forge",
    {
        "clusters": 1,
        "width": 8,
        "generator_blocks": 1,
        "discriminator_blocks": 1,
        "batch_size": 32,
        "steps": 6,
        "images_per_checkpoint": 64,
    },
)


def test_what_is_held_out_is_not_trained_on(digits: Dataset) -> None:
    training, held = judging.hold_out(digits, 200, seed=3)
    assert (len(training), len(held)) == (len(digits) - 200, 200)
    together = np.concatenate([image_hashes(part.images) for part in (training, held)])
    np.testing.assert_array_equal(np.sort(together), np.sort(image_hashes(digits.images)))
    again, _ = judging.hold_out(digits, 200, seed=3)
    other, _ = judging.hold_out(digits, 200, seed=4)
    assert again.sha256 == training.sha256 != other.sha256


def test_holding_out_nothing_leaves_the_data_set_as_it_was(digits: Dataset) -> None:
    assert judging.hold_out(digits, 0, seed=3)[0].sha256 == digits.sha256


def test_too_many_held_out_images_are_refused(digits: Dataset) -> None:
    with pytest.raises(InvalidInputError, match="expected 0 to"):
        judging.hold_out(digits, len(digits) - 1, seed=0)


def test_an_unknown_judge_is_answered_with_the_installed_ones(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"installed judges: .*digitnet-64"):
        loop.train(RECIPE, digits, run_dir=tmp_path, judge="digitnet", held_out=100)
    assert not list(tmp_path.iterdir())


def test_a_judge_without_held_out_images_is_refused(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="held_out is 0"):
        loop.train(RECIPE, digits, run_dir=tmp_path, judge="digitnet-64")


@pytest.mark.usefixtures("eagerly")
def test_the_best_checkpoint_is_exported_with_its_figure(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, ...]] = []
    verdicts = iter([3.0, 1.0, 2.0])  # after 64, 128 and 192 images

    def factory(images: np.ndarray, labels: np.ndarray) -> judging.Judge:
        assert len(images) == len(labels) == 100
        return lambda generated, _: shown.append(generated.shape) or next(verdicts)  # type: ignore[func-returns-value]

    monkeypatch.setattr(loop, "find_judge", lambda name: factory)
    run = loop.train(RECIPE, digits, run_dir=tmp_path / "run", judge="ours", held_out=100)
    assert shown == [(1_000, 28, 28, 1)] * 3
    best = checkpoints.best(tmp_path / "run")
    assert best is not None
    assert (best.images_seen, best.value, best.n) == (128, 1.0, 1_000)
    version = export(tmp_path / "run", digits, to=tmp_path / "digits")
    card = read_card(version)
    assert card["images_seen"] == 128
    assert card["metrics"] == {"judge ours": {"value": 1.0, "n": 1_000}}
    assert card["training_data"]["images"] == len(digits) - 100 == run.training_data["images"]
    seen = tf.saved_model.load(str(version)).signatures[Signature.SEEN]
    training, held = judging.hold_out(digits, 100, seed=0)
    for part, expected in ((training, True), (held, False)):
        hashes = tf.constant(image_hashes(part.images[:1000]))
        assert (seen(hashes=hashes)[Field.SEEN].numpy() == expected).mean() > 0.98  # a few digits occur twice
