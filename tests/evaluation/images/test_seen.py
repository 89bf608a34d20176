"""A generator recognizes its training images, however they were fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from digitforge_client.contract import image_hashes
from digitforge_evaluation.images.seen import fitted, seen_images
from digitforge_evaluation.images.sources import ImageSet
from digitforge_training.data import Dataset, load

RNG = np.random.default_rng(0)


class Generator(ImageSet):
    """A source that knows which images it has, as a generator knows its training images."""

    def __init__(self, data: Dataset) -> None:
        super().__init__(data.images, data.labels, "generator")
        self.card = {"training_data": {"fitted": data.origin.as_dict()}} if data.origin else None  # type: ignore[assignment]
        self._hashes = image_hashes(data.images)

    def seen(self, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return np.isin(hashes, self._hashes)


@pytest.mark.parametrize(
    "options",
    [
        {"size": 32},
        {"size": 16, "transpose": True},
        {"size": 16, "fit": "pad"},
        {"size": 16, "channels": "gray"},
        {"size": 24, "fit": "stretch", "channels": "gray", "transpose": True},
    ],
)
def test_images_fitted_in_another_way_are_recognized(tmp_path: Path, options: dict[str, Any]) -> None:
    np.savez(tmp_path / "mine.npz", x=RNG.integers(0, 256, (60, 40, 70, 3), dtype=np.uint8), y=np.arange(60) % 2)
    generator = Generator(load(tmp_path / "mine.npz", size=16))
    train, test = (load(tmp_path / "mine.npz", split=split, **options) for split in ("train", "test"))
    seen, unseen = seen_images(generator, train), seen_images(generator, test)
    assert seen is not None
    assert unseen is not None
    assert seen.all()
    assert not unseen.any()


@pytest.mark.parametrize(
    "card",
    [
        None,
        {},
        {"training_data": {"name": "mnist"}},
        {"training_data": {"fitted": None}},
        {"training_data": {"fitted": {"size": 28}}},
        {"training_data": {"fitted": {"size": "28", "fit": "crop", "channels": None, "transpose": False}}},
        {"training_data": {"fitted": {"size": 28, "fit": [], "channels": {}, "transpose": False}}},
    ],
)
def test_a_card_that_does_not_say_it_gives_nothing(card: dict[str, Any] | None) -> None:
    assert fitted(card) is None


def test_transposed_images_without_an_origin_are_recognized() -> None:
    digits = load("digits").subset(np.arange(100))
    turned = Dataset(**{**vars(digits), "images": np.ascontiguousarray(digits.images.swapaxes(1, 2))})
    seen = seen_images(Generator(digits), turned)
    assert seen is not None
    assert seen.all()
