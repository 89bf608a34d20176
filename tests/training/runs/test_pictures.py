"""Sheets with the names of classes, and animations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from digitforge_training.runs import pictures

NAMES = ("cat", "dog", "a much longer name")


@pytest.fixture
def _no_other_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_FONTS", (None,))
    pictures._font.cache_clear()


@pytest.mark.parametrize("channels", [1, 3])
def test_names_stand_above_their_columns(channels: int) -> None:
    images = np.full((6, 20, 20, channels), 200, np.uint8)
    plain = np.asarray(pictures.sheet(images, 3))
    for names in (NAMES[:2] + ("pig",), NAMES):
        named = np.asarray(pictures.sheet(images, 3, column_names=names))
        heading, below = named[: -len(plain)], named[-len(plain) :]
        np.testing.assert_array_equal(below, plain)
        for column in range(3):
            assert heading[:, 2 + 22 * column : 22 + 22 * column].max() > 150  # every column has its name
        assert (len(heading) > 60) == (names == NAMES)  # a long name stands upright


def test_names_stand_on_the_left_of_their_rows() -> None:
    images = np.full((4, 20, 20, 1), 200, np.uint8)
    plain = np.asarray(pictures.sheet(images, 2))
    named = np.asarray(pictures.sheet(images, 2, row_names=("cat to dog", "dog to cat")))
    beside, rest = named[:, : -plain.shape[1]], named[:, -plain.shape[1] :]
    np.testing.assert_array_equal(rest, plain)
    assert beside[2:22].max() > 150
    assert beside[24:44].max() > 150
    assert not np.array_equal(beside[2:22], beside[24:44])


@pytest.mark.usefixtures("_no_other_fonts")
def test_a_name_that_no_font_can_write_is_a_number() -> None:
    assert pictures.writable(["cat", "犬", "고양이", "été", ""]) == ["cat", "1", "2", "3", ""]
    pictures.sheet(np.zeros((2, 20, 20, 1), np.uint8), 2, column_names=pictures.writable(["犬", ""]))


def test_an_animation_leaves_out_frames_of_another_size(tmp_path: Path) -> None:
    frames = [tmp_path / f"{number}.png" for number in range(3)]
    for number, frame in enumerate(frames):
        Image.new("L", (20, 20 if number else 10), 50 * number).save(frame)
    pictures.save_gif(frames, tmp_path / "training.gif")
    with Image.open(tmp_path / "training.gif") as gif:
        assert (gif.size, getattr(gif, "n_frames", 1)) == ((20, 20), 2)
