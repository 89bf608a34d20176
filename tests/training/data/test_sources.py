"""Data sets from folders of pictures, from archives and from scikit-learn, and the checks of every data set."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from digitforge_client.contract import image_hashes
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data import Dataset, load
from digitforge_training.data.raw import split_indices

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (30, 16, 16), dtype=np.uint8)
Y = np.arange(30) % 3


def hashes(dataset: Dataset) -> set[int]:
    return set(image_hashes(dataset.images).tolist())


def write_pictures(folder: Path, counts: dict[str, int], *, shape: tuple[int, ...] = (16, 16), seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03}.png")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_of_our_own_is_stated_and_a_given_one_is_not(tmp_path: Path, split: Literal["train", "test"]) -> None:
    np.savez(tmp_path / "one.npz", x=X, y=Y)
    np.savez(tmp_path / "two.npz", x=X, y=Y, x_test=X, y_test=Y)
    write_pictures(tmp_path / "one", {"a": 10, "b": 20})
    write_pictures(tmp_path / "two" / "train", {"a": 10, "b": 20})
    write_pictures(tmp_path / "two" / "test", {"a": 10, "b": 20})
    stated = "one has no test images of its own: 6 of its 30 images (20%) are set aside as test images, and 24 are"
    for source in ("one.npz", "one"):
        assert load(tmp_path / source, split=split).split_note == f"{stated} training images"
    for source in ("two.npz", "two"):
        assert not load(tmp_path / source, split=split).split_note
    assert not load(tmp_path / "one.npz").subset([0, 1, 2]).split_note


# --- digits


def test_digits_are_all_there_and_look_like_mnist() -> None:
    train, test = load("digits", split="train"), load("digits", split="test")
    assert len(train) + len(test) == 1797
    assert train.images.shape[1:] == (28, 28, 1)
    assert train.images.max() == 255
    assert not train.images[:, :4].any()  # MNIST's margin
    assert not train.images[:, -4:].any()
    assert train.images[:, 4:24].any(axis=(0, 2, 3)).all()
    shares = np.bincount(test.labels) / (np.bincount(test.labels) + np.bincount(train.labels))
    np.testing.assert_allclose(shares, 0.2, atol=0.01)


def test_digits_are_divided_in_the_same_way_everywhere() -> None:
    # Published results name this hash, so it may change only with a new version of the package.
    assert load("digits", split="test").sha256.startswith("64c287086b46")
    assert not hashes(load("digits", split="train")) & hashes(load("digits", split="test"))


# --- archives


def test_an_archive_of_x_and_y_is_divided(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=X, y=Y + 7)
    train, test = (load(str(tmp_path / "mine.npz"), split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (24, 6)
    assert train.class_names == test.class_names == ("7", "8", "9")
    assert train.name == "mine"
    assert hashes(train) | hashes(test) == set(image_hashes(X[..., None]).tolist())
    for dataset in (train, test):
        for image, label in zip(dataset.images, dataset.labels, strict=True):
            (row,) = np.flatnonzero((image[..., 0] == X).all(axis=(1, 2)))
            assert Y[row] == label


@pytest.mark.parametrize("names", [("x", "y"), ("x_train", "y_train")])
def test_test_images_of_an_archive_are_used(tmp_path: Path, names: tuple[str, str]) -> None:
    training = {names[0]: X[:20], names[1]: Y[:20]}
    np.savez_compressed(tmp_path / "a.npz", x_test=X[20:], y_test=Y[20:], **training)  # type: ignore[arg-type]
    np.testing.assert_array_equal(load(str(tmp_path / "a.npz")).images[..., 0], X[:20])
    np.testing.assert_array_equal(load(str(tmp_path / "a.npz"), split="test").images[..., 0], X[20:])


def test_color_is_kept(tmp_path: Path) -> None:
    color = RNG.integers(0, 256, (30, 20, 20, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=color, y=Y)
    assert load(str(tmp_path / "a.npz")).images.shape == (24, 20, 20, 3)


BROKEN: dict[str, tuple[dict[str, npt.ArrayLike], str]] = {
    "floats": ({"x": X / 255, "y": Y}, r"float64 from 0 to 1; expected uint8.*\(x \* 255\)\.round\(\)"),
    "floats from -1 to 1": ({"x": X / 127.5 - 1, "y": Y}, r"from -1 to 1; expected uint8.*\(\(x \+ 1\) \* 127\.5\)"),
    "floats out of range": ({"x": X * 3.0, "y": Y}, "from 0 to 765; expected uint8.*scale them"),
    "int64": ({"x": X.astype(np.int64), "y": Y}, r"int64 from 0 to 255; expected uint8.* with x\.round\(\)"),
    "nan images": ({"x": np.full((30, 16, 16), np.nan), "y": Y}, "some pixels are NaN.*expected uint8.*drop"),
    "float labels": ({"x": X, "y": Y / 2}, "one integer or one name per image"),
    "nan labels": ({"x": X, "y": np.where(Y == 0, np.nan, Y)}, "some are NaN"),
    "one-hot labels": ({"x": X, "y": np.eye(3)[Y]}, r"shape \(30, 3\); expected \(n,\).*argmax"),
    "an empty name": ({"x": X, "y": np.array(["a", "b", ""])[Y]}, "some labels are empty"),
    "too few class names": ({"x": X, "y": Y, "class_names": ["a", "b"]}, "range from 0 to 2, but there are 2 class na"),
    "a class name twice": ({"x": X, "y": Y, "class_names": ["a", "b", "a"]}, "two classes are called 'a'"),
    "lengths": ({"x": X, "y": Y[:-1]}, "30 images but 29 labels"),
    "flat oblongs": ({"x": X[:, :, :12].reshape(30, -1), "y": Y}, r"shape \(30, 192\); rows of 192 .*reshape"),
    "two channels": ({"x": np.stack([X, X], axis=-1), "y": Y}, "1 or 3 channels"),
    "transparent": ({"x": np.stack([X] * 4, axis=-1), "y": Y}, r"leave out transparency with x\[\.\.\., :3\]"),
    "oblong": ({"x": X[:, :, :12], "y": Y}, "16×12 pixels.*--size 16, .*--fit says how"),
    "large": ({"x": np.zeros((4, 65, 65), np.uint8), "y": Y[:4]}, "squares of 16 to 64 pixels; .*--size 32"),
    "small": ({"x": X[:, :8, :8], "y": Y}, "8×8 pixels; .*--size 16"),
    "16 bits": ({"x": X.astype(np.uint16) * 257, "y": Y}, r"uint16 from 0 to 65535; .*\(x / 257\)\.round"),
    "one image": ({"x": X[:1], "y": Y[:1]}, "at least two"),
    "no image": ({"x": X[:0], "y": Y[:0]}, "training labels are empty"),
    "a class of one": ({"x": X[:4], "y": Y[:4]}, "has 1 different image"),
    "copies only": ({"x": np.repeat(X[:3], 10, axis=0), "y": np.repeat(Y[:3], 10)}, "has 1 different image"),
    "no x": ({"pixels": X, "y": Y}, "holds the arrays pixels, y; expected x and y"),
    "no y": ({"images": X, "y": Y}, "the images have no labels"),
    "objects": ({"x": np.array([X, None], dtype=object), "y": Y[:2]}, "plain arrays"),
    "test label": ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1}, "label 3 occurs in the test split"),
}


@pytest.mark.parametrize(("arrays", "said"), BROKEN.values(), ids=BROKEN)
def test_a_wrong_archive_is_refused_with_its_name(tmp_path: Path, arrays: dict[str, npt.ArrayLike], said: str) -> None:
    np.savez(tmp_path / "wrong.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=said) as caught:
        load(str(tmp_path / "wrong.npz"), split="test" if "x_test" in arrays else "train")
    assert "wrong.npz" in str(caught.value)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    whole = (tmp_path / "a.npz").read_bytes()
    np.save(tmp_path / "array.npy", X)
    contents = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"x,y\n1,2\n",
        "array": (tmp_path / "array.npy").read_bytes(),
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}\.npz: "):
            load(str(tmp_path / f"{name}.npz"))
    with pytest.raises(DataError) as caught:
        load(str(tmp_path / "text.npz"))
    assert "pickle" not in str(caught.value)  # NumPy's message advises to allow pickles
    damaged = bytearray(whole)
    damaged[500] ^= 255
    (tmp_path / "damaged.npz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"damaged\.npz: "):
        load(str(tmp_path / "damaged.npz"))


# --- pictures


def test_a_folder_of_pictures_is_divided_by_class(tmp_path: Path) -> None:
    write_pictures(tmp_path / "signs", {"10": 10, "9": 5, "2": 5})
    (tmp_path / "signs" / "9" / "notes.txt").write_text("not a picture")
    (tmp_path / "signs" / ".hidden").mkdir()
    train, test = (load(str(tmp_path / "signs"), split=split) for split in ("train", "test"))
    assert train.class_names == ("2", "9", "10")  # in numerical order
    assert np.bincount(train.labels).tolist() == [4, 4, 8]
    assert np.bincount(test.labels).tolist() == [1, 1, 2]
    assert train.name == "signs"


def test_train_and_test_folders_are_used(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", {"cat": 3, "dog": 2}, shape=(32, 32, 3))
    write_pictures(tmp_path / "test", {"dog": 2}, shape=(32, 32, 3), seed=1)
    train, test = (load(str(tmp_path), split=split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert test.labels.tolist() == [1, 1]
    np.testing.assert_array_equal(train.images[4], np.asarray(Image.open(tmp_path / "train" / "dog" / "001.png")))


def test_a_class_only_in_the_test_folder_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", {"a": 2})
    write_pictures(tmp_path / "test", {"a": 2, "b": 2})
    with pytest.raises(DataError, match=r"test/b: .*train has no folder of this class"):
        load(str(tmp_path))


def test_a_class_without_pictures_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a": 3, "b": 0})
    with pytest.raises(DataError, match=r"/b: no pictures found"):
        load(str(tmp_path))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{tmp_path}: no images found; expected"):
        load(str(tmp_path))


def test_mixed_sizes_and_modes_are_refused_with_the_file(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a": 3, "b": 3})
    odd = tmp_path / "b" / "001.png"
    for picture, said in (
        (Image.new("L", (20, 20)), "20×20 gray, but .*000.png is 16×16 gray"),
        (Image.new("L", (20, 20)), "make all pictures the same with --size"),
        (Image.new("RGB", (16, 16)), "16×16 color, but .* with --channels gray or --channels rgb"),
        (Image.new("L", (200, 200)), "200×200 pixels; .*--size 32"),
        (Image.new("I;16", (16, 16)), r"mode is I;16; expected L .*/ 257.*convert\('L'\) would turn every value above"),
        (Image.new("RGBA", (16, 16)), "mode is RGBA; expected L .*transparent; put it on a background"),
        (Image.new("LA", (16, 16)), "mode is LA; expected L .*transparent; put it on a background"),
    ):
        picture.save(odd)
        with pytest.raises(DataError, match=said) as caught:
            load(str(tmp_path))
        assert str(caught.value).startswith(str(odd))


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "header"])
def test_a_damaged_picture_is_named(tmp_path: Path, damage: str) -> None:
    write_pictures(tmp_path, {"a": 3})
    path = tmp_path / "a" / "001.png"
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[:100], "text": b"hello", "empty": b"", "header": whole[:20]}[damage])
    with pytest.raises(DataError, match=r"001\.png: not a readable PNG, JPEG or WebP file"):
        load(str(tmp_path))


def test_renamed_pictures_are_divided_in_the_same_way(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a": 10})
    before = hashes(load(str(tmp_path), split="test"))
    for i, path in enumerate(sorted((tmp_path / "a").iterdir())):
        path.rename(path.with_name(f"{(i * 7) % 10}.png"))
    assert hashes(load(str(tmp_path), split="test")) == before


# --- the rules


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=1, max_size=60), st.randoms())
def test_the_division_is_whole_disjoint_and_independent_of_the_order(
    rows: list[tuple[int, int]], random: st.DataObject
) -> None:
    labels = np.array([label for label, _ in rows])
    images = np.array([np.full((16, 16, 1), 20 * label + kind, np.uint8) for label, kind in rows])
    enough = all(len({kind for each, kind in rows if each == label}) >= 2 for label, _ in rows)
    if not enough:
        with pytest.raises(DataError, match="different image"):
            split_indices(images, labels, where="here")
        return
    chosen = split_indices(images, labels, where="here")
    assert sorted([*chosen["train"], *chosen["test"]]) == list(range(len(rows)))
    sides = {split: {images[i, 0, 0, 0] for i in indices} for split, indices in chosen.items()}
    assert not sides["train"] & sides["test"]  # copies stay together
    for split in ("train", "test"):
        assert set(labels[chosen[split]]) == set(labels)
    order = np.arange(len(rows))[::-1]
    again = split_indices(images[order], labels[order], where="here")
    assert sides["test"] == {images[order][i, 0, 0, 0] for i in again["test"]}


def dataset(**changes: object) -> Dataset:
    fields = {"images": X[..., None], "labels": Y, "class_names": ("a", "b", "c"), "name": "n", "split": "train"}
    return Dataset(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_sum_covers_images_and_then_labels() -> None:
    expected = hashlib.sha256(X.tobytes() + Y.astype("<i8").tobytes()).hexdigest()
    assert dataset().sha256 == expected
    assert dataset(images=np.asfortranarray(X[..., None])).sha256 == expected
    assert dataset(labels=Y[::-1].copy()).sha256 != expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": X}, r"shape \(30, 16, 16\)"),
        ({"images": X[..., None] / 255}, "expected uint8"),
        ({"labels": Y.astype(np.int32)}, "int32"),
        ({"labels": Y[:3]}, r"expected int64 of shape \(30,\)"),
        ({"class_names": ("a", "b")}, "labels range from 0 to 2; expected 0 to 1"),
        ({"labels": Y - 1}, "labels range from -1"),
        ({"split": "validation"}, "expected train or test"),
    ],
)
def test_a_wrong_data_set_cannot_be_made(changes: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        dataset(**changes)


def test_a_subset_has_the_chosen_rows_in_the_chosen_order() -> None:
    subset = dataset().subset([5, 0, 5])
    np.testing.assert_array_equal(subset.images[..., 0], X[[5, 0, 5]])
    assert subset.labels.tolist() == [2, 0, 2]
    assert len(dataset().subset(Y == 1)) == 10
    assert len(dataset().subset([])) == 0


@pytest.mark.parametrize("indices", [[30], [-1], [0.5], [[0]], [True, False]])
def test_wrong_indices_are_refused(indices: list[object]) -> None:
    with pytest.raises(InvalidInputError):
        dataset().subset(indices)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"source": "fashion"}, DataError),
        ({"source": ""}, DataError),
        ({"source": "\0"}, DataError),
        ({"source": "mnist", "split": "validation"}, InvalidInputError),
    ],
)
def test_an_unknown_source_or_split_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object], error: type[Exception]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match="expected"):
        load(**arguments)  # type: ignore[arg-type]


def test_mnists_folder_does_not_disturb_other_sources() -> None:
    assert load("digits", split="test", data_dir=Path("nowhere")).name == "digits"


def test_data_come_without_tensorflow() -> None:
    script = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from digitforge_training.data import load; print(len(load('digits', split='test')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "359"
