"""Sources of images to measure: generators in a folder, and images in files."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from digitforge_client.common.versions import newest_version
from digitforge_client.contract import image_hashes, row_seeds
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.images.proportions import class_counts
from digitforge_evaluation.images.sources import (
    Drawn,
    ImageSet,
    SavedGenerator,
    Source,
    largest_n,
    wanted_labels,
)
from digitforge_training.data import load

PROPORTIONS = (3, 2, 1, 1, 1, 1, 1, 1, 1, 1)


def labels_of(drawn: Drawn) -> npt.NDArray[np.int64]:
    assert drawn.labels is not None
    return drawn.labels


def seen_by(source: Source, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    seen = source.seen(hashes)
    assert seen is not None
    return seen


def some_images(n: int = 60, seed: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), np.arange(n, dtype=np.int64) % 10


def write_idx(path: Path, array: npt.NDArray[Any]) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def write_pictures(
    folder: Path, images: Iterable[npt.NDArray[np.uint8]], labels: Sequence[object] | npt.NDArray[Any] | None = None
) -> None:
    for number, image in enumerate(images):
        parent = folder if labels is None else folder / str(labels[number])
        parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(parent / f"{number:03d}.png")


def test_a_saved_generator_draws_the_digits_of_its_addresses_in_the_given_proportions(exported_model: Path) -> None:
    source = SavedGenerator(exported_model)

    drawn = source.draw(1200, proportions=PROPORTIONS, seed=3)  # more rows than one call takes

    assert drawn.images.shape == (1200, 28, 28, 1)
    assert drawn.images.dtype == np.uint8
    assert np.bincount(labels_of(drawn)).tolist() == class_counts(PROPORTIONS, 1200).tolist()
    again = SavedGenerator(exported_model / "1")._sample  # the folder of the version works too
    import tensorflow as tf

    alone = again(labels=tf.constant(labels_of(drawn)[-1:]), seeds=tf.constant(row_seeds(3, 1200)[-1:]))[
        "images"
    ].numpy()
    assert np.abs(alone[0].astype(int) - drawn.images[-1]).max() <= 1


def test_an_expansion_keeps_the_addresses_and_increases_the_variety(exported_model: Path) -> None:
    source = SavedGenerator(exported_model)

    plain, same, wide = (
        source.draw(1200, proportions=PROPORTIONS, seed=3, expansion=expansion) for expansion in (None, 1.0, 2.0)
    )

    assert np.abs(plain.images.astype(int) - same.images).max() <= 1
    assert labels_of(plain).tolist() == labels_of(wide).tolist()
    spreads = [drawn.images[drawn.labels == 1].std(axis=0).mean() for drawn in (plain, wide)]
    assert spreads[0] < spreads[1]


def test_an_expansion_of_existing_images_or_by_zero_is_refused(exported_model: Path) -> None:
    with pytest.raises(InvalidInputError, match="an expansion needs a generator"):
        ImageSet(np.zeros((5, 28, 28, 1), np.uint8), None, "mine").draw(5, proportions=(1,), seed=0, expansion=1.2)
    with pytest.raises(InvalidInputError, match="expansion is 0"):
        SavedGenerator(exported_model).draw(5, proportions=PROPORTIONS, seed=0, expansion=0)


def test_a_saved_generator_knows_what_it_has_seen(exported_model: Path) -> None:
    source = SavedGenerator(exported_model)
    train, test = load("digits"), load("digits", split="test")

    assert seen_by(source, image_hashes(train.images)).all()
    assert not seen_by(source, image_hashes(test.images)).any()
    assert seen_by(source, np.empty(0, np.int64)).shape == (0,)


def test_the_newest_version_is_the_highest_number(tmp_path: Path) -> None:
    for name in ("2", "10", "9", "latest"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()

    assert newest_version(tmp_path).name == "10"
    assert newest_version(tmp_path / "2").name == "2"


def test_the_error_about_a_folder_without_a_generator_says_what_it_should_contain(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no SavedModel found; expected"):
        SavedGenerator(tmp_path)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(DataError, match="digitforge export"):
        SavedGenerator(tmp_path)


def test_no_labels_are_requested_from_an_unconditional_generator() -> None:
    assert wanted_labels({"class_names": []}, 100, PROPORTIONS) is None


def test_a_generator_of_other_classes_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="has 2 classes, but the real images have 10"):
        wanted_labels({"class_names": ["a", "b"], "generator_id": "x"}, 100, PROPORTIONS)


def test_archives_with_either_pair_of_names_are_read(tmp_path: Path) -> None:
    images, labels = some_images()
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    np.savez(tmp_path / "b.npz", x=images[..., None], y=labels.astype(np.uint8))

    for name in ("a.npz", "b.npz"):
        drawn = ImageSet.read(tmp_path / name).draw(60, proportions=(1,) * 10, seed=0)
        assert sorted(image_hashes(drawn.images)) == sorted(image_hashes(images[..., None]))
        assert len(labels_of(drawn)) == 60


def test_labels_stay_with_their_images(tmp_path: Path) -> None:
    images, labels = some_images()
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    label_of = dict(zip(image_hashes(images[..., None]).tolist(), labels.tolist(), strict=True))

    drawn = ImageSet.read(tmp_path / "a.npz").draw(30, proportions=PROPORTIONS, seed=0)

    assert [label_of[key] for key in image_hashes(drawn.images).tolist()] == labels_of(drawn).tolist()


def test_idx_files_and_png_files_give_the_same_images_as_the_archive(tmp_path: Path) -> None:
    images, labels = some_images()
    (tmp_path / "idx").mkdir()
    write_idx(tmp_path / "idx" / "mine-train-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "idx" / "mine-train-labels-idx1-ubyte.gz", labels)
    write_pictures(tmp_path / "classes", images, labels)
    write_pictures(tmp_path / "plain", images)
    expected = sorted(image_hashes(images[..., None]))

    for name, labeled in (("idx", True), ("classes", True), ("plain", False)):
        drawn = ImageSet.read(tmp_path / name).draw(60, proportions=(1,) * 10, seed=0)
        assert sorted(image_hashes(drawn.images)) == expected
        assert (drawn.labels is not None) == labeled


def test_missing_labels_and_labels_of_minus_one_give_no_labels(tmp_path: Path) -> None:
    images, _ = some_images()
    np.savez(tmp_path / "none.npz", x=images)
    np.savez(tmp_path / "minus.npz", x=images, y=np.full(60, -1))  # the labels of an unconditional generator

    for name in ("none.npz", "minus.npz"):
        assert ImageSet.read(tmp_path / name).draw(10, proportions=PROPORTIONS, seed=0).labels is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(3)}, "the file holds the arrays a; expected x and y"),
        ({"x": np.zeros((5, 28, 28))}, "images are float64 from 0 to 0; expected uint8"),
        ({"x": np.zeros((0, 28, 28), np.uint8)}, "images have dtype uint8 and shape .0, 28, 28, 1."),
        ({"x": np.zeros((5, 28, 28), np.uint8), "y": np.zeros(4, np.int64)}, "5 images but 4 labels"),
        ({"x": np.zeros((5, 28, 28), np.uint8), "y": np.zeros(5)}, "labels are float64"),
    ],
)
def test_the_error_about_a_wrong_archive_names_it(
    tmp_path: Path, arrays: dict[str, npt.NDArray[Any]], message: str
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises((DataError, InvalidInputError), match=f"bad.npz: .*{message}"):
        ImageSet.read(tmp_path / "bad.npz")


def test_the_error_about_files_without_images_names_them(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty").mkdir()
    write_pictures(tmp_path / "large", [np.zeros((112, 112), np.uint8)])
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name, message in (
        ("text.npz", "not an .npz archive"),
        ("missing", "no such file or folder"),
        ("empty", "no images found"),
        ("large", "112×112 pixels; .*--size 32"),
        ("torn", "a.png: not a readable PNG, JPEG or WebP file"),
    ):
        with pytest.raises(DataError, match=message):
            ImageSet.read(tmp_path / name)


def test_classes_are_matched_by_name_or_by_number(tmp_path: Path) -> None:
    images, labels = some_images(30)
    letters = [str(number) for number in range(1, 11)]
    write_pictures(tmp_path / "named", images, [f"class {letter}" for letter in labels])
    np.savez(tmp_path / "emnist.npz", x=images, y=labels + 1)  # the real labels, 1 to 10
    np.savez(tmp_path / "numbers.npz", x=images, y=labels)  # numbers of classes
    np.savez(tmp_path / "names.npz", x=images, y=labels, class_names=letters)
    for name in ("emnist", "numbers", "names"):
        matched = ImageSet.read(tmp_path / f"{name}.npz").in_classes(letters)
        drawn = matched.draw(30, proportions=(1,) * 10, seed=0)
        assert [labels[np.flatnonzero((images == image[..., 0]).all(axis=(1, 2)))[0]] for image in drawn.images] == (
            labels_of(drawn).tolist()
        )
    names = [f"class {number}" for number in range(9, -1, -1)]
    drawn = ImageSet.read(tmp_path / "named").in_classes(names).draw(30, proportions=(1,) * 10, seed=0)
    assert np.bincount(labels_of(drawn)).tolist() == [3] * 10
    (last,) = {int(labels[(images == image[..., 0]).all(axis=(1, 2))][0]) for image in drawn.images[drawn.labels == 0]}
    assert last == 9
    with pytest.raises(InvalidInputError, match="named has the class class 0; the real images have 1, 2"):
        ImageSet.read(tmp_path / "named").in_classes(letters)


def test_a_set_without_images_of_a_class_is_refused() -> None:
    images, labels = some_images()
    sevens = ImageSet(images[labels == 7][..., None], labels[labels == 7], "sevens")
    with pytest.raises(InvalidInputError, match="has no images of class 0, 1, 2, 3, 4, 5, 6, 8, 9"):
        sevens.draw(5, proportions=PROPORTIONS, seed=0)


@given(st.lists(st.integers(1, 60), min_size=10, max_size=10), st.integers(1, 700))
def test_largest_n_is_the_largest_number_that_the_proportions_allow(there: list[int], n: int) -> None:
    counts = np.array(there)

    taken = largest_n(counts, PROPORTIONS, n)

    assert taken <= n
    assert (class_counts(PROPORTIONS, taken) <= counts).all()
    assert not any((class_counts(PROPORTIONS, more) <= counts).all() for more in range(taken + 1, n + 1))
