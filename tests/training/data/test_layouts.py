"""Layouts and sizes of images that users have: every one loads, with the right pixels, labels and names."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from digitforge_client.batch import Batch
from digitforge_client.common.class_folders import class_folder, class_name_of
from digitforge_client.contract import image_hashes
from digitforge_client.datasets.writers import WRITERS
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data import DataSource, load, load_images, load_splits

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8)
Y = np.arange(30) % 3


def hashes(*arrays: npt.NDArray[np.uint8]) -> list[int]:
    return sorted(image_hashes(np.concatenate(arrays)).tolist())


def both(source: Path | str, **options: Any) -> npt.NDArray[np.uint8]:
    """The images of both splits."""
    return np.concatenate([load(source, split=split, **options).images for split in ("train", "test")])


def write_idx(path: Path, array: npt.NDArray[Any]) -> None:
    code = {"u1": 8, "i4": 0x0C}[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(array.dtype.newbyteorder(">")).tobytes())


def save(picture: Image.Image, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)


# --- archives


@pytest.mark.parametrize(
    "names",
    [
        ("x", "y"),
        ("images", "labels"),
        ("arr_0", "arr_1"),
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("arr_0", "arr_1", "arr_2", "arr_3"),
    ],
)
def test_arrays_are_found_by_their_usual_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    parts = (X[:20], Y[:20, None], X[20:], Y[20:, None]) if len(names) == 4 else (X, Y)  # (n, 1) as in MedMNIST
    np.savez(tmp_path / "a.npz", **dict(zip(names, parts, strict=True)))  # type: ignore[arg-type]
    assert hashes(both(tmp_path / "a.npz")) == hashes(X[..., None])
    if len(names) == 4:
        np.testing.assert_array_equal(load(tmp_path / "a.npz", split="test").labels, Y[20:])
    every = load_images(tmp_path / "a.npz")
    np.testing.assert_array_equal(every.images[..., 0], X)
    np.testing.assert_array_equal(every.labels, Y)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (X.reshape(30, 784), X[..., None]),
        (X[:, None], X[..., None]),
        (np.stack([X, X[::-1], X], axis=1), np.stack([X, X[::-1], X], axis=-1)),
    ],
    ids=["rows of pixels", "one channel first", "three channels first"],
)
def test_other_orders_of_pixels_give_the_same_images(
    tmp_path: Path, shape: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8]
) -> None:
    np.savez(tmp_path / "a.npz", x=shape, y=Y, x_test=shape, y_test=Y)
    np.testing.assert_array_equal(load(tmp_path / "a.npz").images, expected)


@pytest.mark.parametrize("labels", [np.array(["dog", "cat", "eel"])[Y], np.array([b"dog", b"cat", b"eel"])[Y]])
def test_labels_may_be_names(tmp_path: Path, labels: npt.NDArray[Any]) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=labels)
    data = load(tmp_path / "a.npz")
    assert data.class_names == ("cat", "dog", "eel")
    assert np.bincount(data.labels).tolist() == [8, 8, 8]


def test_numbers_as_text_are_sorted_as_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=np.array(["10", "9", "-1"])[Y])
    assert load(tmp_path / "a.npz").class_names == ("-1", "9", "10")


def test_an_array_of_class_names_names_the_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y, class_names=["zebra", "ant", "cow", "unused"])
    assert load(tmp_path / "a.npz").class_names == ("zebra", "ant", "cow")
    every = load_images(tmp_path / "a.npz")
    assert every.named
    assert every.labels is not None
    assert [every.class_names[label] for label in every.labels[:3]] == ["zebra", "ant", "cow"]


# --- sizes and channels


@pytest.mark.parametrize("shape", [(112, 112), (40, 20), (20, 40, 3), (8, 8), (64, 64, 3)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("channels", ["gray", "rgb"])
def test_any_size_and_color_becomes_what_was_asked_for(
    tmp_path: Path, shape: tuple[int, ...], fit: str, channels: str
) -> None:
    np.savez(tmp_path / "a.npz", x=RNG.integers(0, 256, (30, *shape), dtype=np.uint8), y=Y)
    options = {"size": 24, "fit": fit, "channels": channels}
    data = load(tmp_path / "a.npz", **options)  # type: ignore[arg-type]
    assert data.images.shape == (24, 24, 24, 1 if channels == "gray" else 3)
    assert data.origin is not None
    assert data.origin.as_dict() == {**options, "transpose": False}
    assert load(data.origin).sha256 == data.sha256


def test_crop_pad_and_stretch_do_what_they_say(tmp_path: Path) -> None:
    wide = np.full((30, 16, 32), 200, np.uint8)  # white paper, black in the middle, a gray square of 16 × 16
    wide[:, 2:14, 10:22] = 0
    wide += np.arange(30, dtype=np.uint8)[:, None, None] % 2
    np.savez(tmp_path / "a.npz", x=wide, y=Y, x_test=wide, y_test=Y)

    def first(fit: str) -> npt.NDArray[np.uint8]:
        return load(tmp_path / "a.npz", size=16, fit=fit).images[0, ..., 0]  # type: ignore[arg-type]

    np.testing.assert_array_equal(first("crop"), wide[0, :, 8:24])
    assert (first("pad")[:4] == 200).all()  # the color of the border, not black
    assert first("pad")[4:12].min() == 0
    assert first("stretch")[:, 7].min() == 0
    assert (first("stretch") < 100).sum() == pytest.approx(12 * 6, abs=8)


def test_gray_and_rgb_convert_as_pillow_does(tmp_path: Path) -> None:
    color = RNG.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=color, y=Y, x_test=color, y_test=Y)
    gray = load(tmp_path / "a.npz", channels="gray").images
    np.testing.assert_array_equal(gray[3, ..., 0], np.asarray(Image.fromarray(color[3]).convert("L")))
    np.savez(tmp_path / "g.npz", x=gray, y=Y, x_test=gray, y_test=Y)
    np.testing.assert_array_equal(load(tmp_path / "g.npz", channels="rgb").images, np.repeat(gray, 3, axis=3))


def test_the_split_does_not_depend_on_how_images_are_fitted(tmp_path: Path) -> None:
    large = RNG.integers(0, 256, (30, 70, 50), dtype=np.uint8)
    large[:, 0, 0] = np.arange(30)
    np.savez(tmp_path / "a.npz", x=large, y=np.arange(30) // 10)
    found = []
    for options in ({"size": 16}, {"size": 32, "fit": "pad"}, {"size": 16, "transpose": True}):
        test = load(tmp_path / "a.npz", split="test", **options)
        every = load_images(tmp_path / "a.npz", **options)
        found.append(np.flatnonzero(np.isin(image_hashes(every.images), image_hashes(test.images))).tolist())
    assert len(found[0]) == 6
    assert found[0] == found[1] == found[2]


def test_images_that_fitting_makes_equal_stay_in_one_split(tmp_path: Path) -> None:
    near = np.repeat(RNG.integers(0, 256, (15, 64, 64), dtype=np.uint8), 2, axis=0)
    near[::2, 63, 63] ^= 1
    np.savez(tmp_path / "a.npz", x=near, y=np.zeros(30, int))
    train, test = (load(tmp_path / "a.npz", split=split, size=16) for split in ("train", "test"))
    assert not set(hashes(train.images)) & set(hashes(test.images))
    assert len(train) + len(test) == 30
    np.savez(tmp_path / "b.npz", x=near[:2], y=np.zeros(2, int))
    with pytest.raises(DataError, match="has 1 different image"):
        load(tmp_path / "b.npz", size=16)


@pytest.mark.parametrize(("share", "count"), [(0.1, 3), (0.5, 15), (0.99, 27)])
def test_the_share_of_test_images_can_be_chosen(tmp_path: Path, share: float, count: int) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    data = load(tmp_path / "a.npz", split="test", test_share=share)
    assert len(data) == count
    assert f"{count} of its 30 images" in data.split_note


def test_both_splits_together_are_the_splits_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    np.savez(tmp_path / "b.npz", x=X, y=Y, x_test=X[::-1], y_test=Y[::-1])
    for path in (tmp_path / "a.npz", tmp_path / "b.npz"):
        for split, data in zip(("train", "test"), load_splits(path, size=16), strict=True):
            alone = load(path, split=split, size=16)  # type: ignore[arg-type]
            assert (data.sha256, data.origin, data.split, data.split_note) == (
                alone.sha256,
                alone.origin,
                split,
                alone.split_note,
            )


def test_a_share_is_refused_if_there_are_test_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y, x_test=X, y_test=Y)
    with pytest.raises(InvalidInputError, match=r"a\.npz has test images of its own; leave out --test-share"):
        load(tmp_path / "a.npz", test_share=0.2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 112}, r"size is 112; expected 16 to 64 pixels.*--size"),
        ({"size": 8}, "size is 8; expected 16 to 64"),
        ({"fit": "squeeze"}, "fit is 'squeeze'; expected crop, pad, stretch"),
        ({"channels": "cmyk"}, "channels is 'cmyk'; expected gray or rgb"),
        ({"test_share": 1.0}, r"test_share is 1\.0; expected a number between 0 and 1"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        load("digits", **options)


def test_named_sources_are_fitted_too() -> None:
    assert load("digits", size=16).images.shape == (1438, 16, 16, 1)
    assert load("digits", size=32, channels="rgb").images.shape == (1438, 32, 32, 3)


# --- pictures


def test_photos_of_any_format_size_and_mode_load_with_a_size(tmp_path: Path) -> None:
    photo = Image.fromarray(RNG.integers(0, 256, (60, 90, 3), dtype=np.uint8))
    for kind in ("cat", "dog"):
        save(photo.rotate(len(kind)), tmp_path / kind / "a.JPG", quality=95)
        save(photo.crop((0, 0, 50, 60)), tmp_path / kind / "b.webp", lossless=True)
        save(photo.convert("L").resize((17, 20)), tmp_path / kind / "c.png")
        save(photo.convert("P"), tmp_path / kind / "d.png")
        save(photo.convert("1"), tmp_path / kind / "e.png")
        opaque = photo.resize((33, 33)).convert("RGBA")
        save(opaque, tmp_path / kind / "f.png")
        (tmp_path / kind / "._a.jpg").write_bytes(b"a file of macOS")
    with pytest.raises(DataError, match=r"60×90 pixels.*--size 32"):
        load(tmp_path)
    with pytest.raises(DataError, match="--channels gray or --channels rgb"):
        load(tmp_path, size=32)
    every = load_images(tmp_path, size=32, channels="rgb")
    assert every.images.shape == (12, 32, 32, 3)
    assert every.class_names == ("cat", "dog")
    assert load(tmp_path, size=32, channels="gray").images.shape[1:] == (32, 32, 1)


def test_a_photo_is_turned_upright_as_its_camera_says(tmp_path: Path) -> None:
    upright = Image.fromarray(np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[:, None], 24, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90°
    save(upright, tmp_path / "up" / "a.png")
    save(upright.rotate(90), tmp_path / "up" / "b.png", exif=exif)
    first, second = load_images(tmp_path).images
    np.testing.assert_array_equal(first, second)


def test_16_bits_are_not_cut_off(tmp_path: Path) -> None:
    deep = Image.fromarray((np.arange(784, dtype=np.uint16) * 80).reshape(28, 28))
    save(deep, tmp_path / "a" / "1.png")
    with pytest.raises(DataError, match=r"1\.png: the picture's mode is I;16.*if the range is 0 to 65535"):
        load_images(tmp_path)


@pytest.mark.parametrize("above", [False, True], ids=["flat", "train and test above"])
def test_folders_that_are_no_classes_are_skipped(tmp_path: Path, above: bool) -> None:
    pictures = [Image.fromarray(image) for image in X]
    for split in ("train", "test") if above else (".",):
        for i, picture in enumerate(pictures):
            save(picture, tmp_path / split / "abc"[i % 3] / f"{i}.png")
    save(pictures[0], tmp_path / "val" / "a" / "1.png")
    save(pictures[0], tmp_path / "__MACOSX" / "1.png")
    save(pictures[0], tmp_path / ".cache" / "1.png")
    save(pictures[0], tmp_path / "overview.png")
    data = load(tmp_path)
    assert data.class_names == ("a", "b", "c")
    assert len(data) == (30 if above else 24)
    assert len(load_images(tmp_path).images) == (60 if above else 30)


def test_train_without_test_is_divided_and_val_is_not_used(tmp_path: Path) -> None:
    for i, image in enumerate(X):
        save(Image.fromarray(image), tmp_path / "train" / "ab"[i % 2] / f"{i}.png")
        save(Image.fromarray(image), tmp_path / "val" / "ab"[i % 2] / f"{i}.png")
    train, test = (load(tmp_path, split=split) for split in ("train", "test"))
    assert (len(train), len(test), train.class_names) == (24, 6, ("a", "b"))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train", "plane", "test"):
        for i in range(5):
            save(Image.fromarray(X[i] + len(name)), tmp_path / name / f"{i}.png")
    assert load(tmp_path).class_names == ("plane", "test", "train")


def test_pictures_without_classes_have_no_labels(tmp_path: Path) -> None:
    save(Image.fromarray(X[0]), tmp_path / "a.png")
    save(Image.fromarray(X[1]), tmp_path / "b.png")
    every = load_images(tmp_path)
    assert every.labels is None
    np.testing.assert_array_equal(every.images[..., 0], X[:2])
    with pytest.raises(DataError, match="the images have no labels; expected one label, or one folder for each class"):
        load(tmp_path)


NAMES = ["a", "A/a", "..", ".hidden", "val", "train", "100%", "%2F", "half 1/2?", "ends.", "日本", "a\nb"]


def test_every_class_name_has_a_folder_name_of_its_own(tmp_path: Path) -> None:
    folders = [class_folder(name) for name in NAMES]
    assert [class_name_of(folder) for folder in folders] == NAMES
    for i, folder in enumerate(folders):
        assert "/" not in folder
        save(Image.fromarray(X[i]), tmp_path / folder / "1.png")
    assert load_images(tmp_path).class_names == tuple(sorted(NAMES))


# --- IDX


def test_qmnist_and_names_beside_the_files(tmp_path: Path) -> None:
    for split, rows in (("train", slice(20)), ("test", slice(20, 30))):
        labels = np.zeros((30, 8), np.int32)
        labels[:, 0], labels[:, 1] = Y, 70_000
        write_idx(tmp_path / f"qmnist-{split}-images-idx3-ubyte", X[rows])
        write_idx(tmp_path / f"qmnist-{split}-labels-idx2-int", labels[rows])
    assert load(tmp_path).class_names == ("0", "1", "2")
    np.testing.assert_array_equal(load(tmp_path, split="test").labels, Y[20:])
    (tmp_path / "qmnist-class-names.json").write_text(json.dumps(["zero", "one", "two"]))
    assert load(tmp_path / "qmnist").class_names == ("zero", "one", "two")
    assert load_images(tmp_path).class_names == ("one", "two", "zero")
    (tmp_path / "qmnist-class-names.json").write_text("{}")
    with pytest.raises(DataError, match=r"qmnist-class-names\.json: no class names .*expected a JSON list"):
        load(tmp_path)


def test_integer_images_in_an_idx_file_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "train-images-idx3-int", X.astype(np.int32))
    write_idx(tmp_path / "train-labels-idx1-ubyte", Y.astype(np.uint8))
    with pytest.raises(DataError, match="int32 from 0 to 255; expected uint8"):
        load_images(tmp_path)


# --- tables


def write_csv(path: Path, labels: list[Any], *, header: str | None = None, images: npt.NDArray[Any] = X) -> None:
    header = header or ",".join(["label", *(f"pixel{i}" for i in range(images[0].size))])
    rows = [",".join(map(str, [label, *image.ravel()])) for label, image in zip(labels, images, strict=True)]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8-sig")


def test_the_csv_of_kaggle_loads(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", Y.tolist())
    data = load(tmp_path / "train.csv")
    assert (len(data), data.class_names, data.name) == (24, ("0", "1", "2"), "train")
    assert hashes(both(tmp_path / "train.csv")) == hashes(X[..., None])
    write_csv(tmp_path / "named.csv", [f'"{"abc"[label]}"' for label in Y])
    assert load(tmp_path / "named.csv").class_names == ("a", "b", "c")


def test_the_place_of_the_label_column_does_not_matter(tmp_path: Path) -> None:
    rows = [",".join([*map(str, image.ravel()), str(label)]) for image, label in zip(X, Y, strict=True)]
    header = ",".join([*(f"{i // 28}x{i % 28}" for i in range(784)), "Label"])
    (tmp_path / "a.csv").write_text("\n".join([header.replace("0x0,", "pixel,"), *rows]))
    np.testing.assert_array_equal(load_images(tmp_path / "a.csv").labels, Y)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,2,3\n4,5,6\n", "first line has no names of columns; expected label,pixel0"),
        ("", "first line has no names"),
        ("class,pixel0\n1,2\n", "the columns are class, pixel0 …; expected one that is called label"),
        ("label,pixel0\n1,256\n", "could not convert string '256'.*expected one label and integers from 0 to 255"),
        ("label,pixel0\n1,0.5\n", "could not convert string '0.5'"),
        ("label,pixel0,pixel1\n1,2\n", "expected one label and integers"),
        ("label,pixel0,pixel1\n1,2,3\n", "rows of 2 pixels are no gray squares"),
        ("label,pixel0\n1,2\n", "1×1 pixels; .*--size 16"),
    ],
)
def test_a_wrong_csv_is_refused_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "wrong.csv").write_text(text)
    with pytest.raises(DataError, match=rf"wrong\.csv: .*{said}|{said}") as caught:
        load_images(tmp_path / "wrong.csv")
    assert "wrong.csv" in str(caught.value)


def encoded(image: npt.NDArray[np.uint8], form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format=form)
    return file.getvalue()


def write_parquet(path: Path, images: npt.NDArray[np.uint8], labels: Any, names: list[str] | None = None) -> None:
    """As Hugging Face's `datasets` writes an image column."""
    column = [{"bytes": encoded(image), "path": f"{i}.png"} for i, image in enumerate(images)]
    label = {"_type": "ClassLabel"} | ({"names": names} if names else {})
    about = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    table = pa.table({"image": column, "label": labels}, metadata={"huggingface": json.dumps(about)})
    parquet.write_table(table, path)


@pytest.mark.parametrize("names", [None, ["zero", "one", "two"]])
def test_the_parquet_of_hugging_face_loads(tmp_path: Path, names: list[str] | None) -> None:
    write_parquet(tmp_path / "train-00000-of-00002.parquet", X[:10], Y[:10], names)
    write_parquet(tmp_path / "train-00001-of-00002.parquet", X[10:20], Y[10:20], names)
    write_parquet(tmp_path / "test-00000-of-00001.parquet", X[20:], Y[20:], names)
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", X[20:], Y[20:], names)
    train, test = (load(tmp_path, split=split) for split in ("train", "test"))
    np.testing.assert_array_equal(train.images[..., 0], X[:20])
    np.testing.assert_array_equal(test.images[..., 0], X[20:])
    assert train.class_names == tuple(names or ("0", "1", "2"))
    one = load(tmp_path / "train-00000-of-00002.parquet", size=16)
    assert (len(one), one.images.shape[1:], one.set_aside) == (7, (16, 16, 1), 3)


def test_a_parquet_file_with_names_as_labels_loads(tmp_path: Path) -> None:
    pq = pa.table({"image": [encoded(image) for image in X], "label": ["abc"[label] for label in Y]})
    parquet.write_table(pq, tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet").class_names == ("a", "b", "c")


def test_a_wrong_parquet_file_is_refused_with_its_name(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"pixels": [1], "label": [1]}), tmp_path / "columns.parquet")
    parquet.write_table(
        pa.table({"image": [{"bytes": None, "path": "1.png"}], "label": [1]}), tmp_path / "paths.parquet"
    )
    parquet.write_table(pa.table({"image": [b"x", b"y"], "label": [1, None]}), tmp_path / "gaps.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    for name, said in (
        ("columns", "the columns are pixels, label; expected image and label"),
        ("paths", "row 0 has no image; expected the bytes"),
        ("gaps", "row 1 has no label"),
        ("text", "not a readable Parquet file"),
    ):
        with pytest.raises(DataError, match=rf"{name}\.parquet: {said}"):
            load(tmp_path / f"{name}.parquet")


def test_a_source_remembers_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", x=X, y=Y)
    origin = load("a.npz", size=16, transpose=True, test_share=0.5).origin
    assert origin == DataSource(source=str(tmp_path / "a.npz"), size=16, transpose=True, test_share=0.5)
    assert origin.options == "--size 16 --fit crop --transpose"
    assert load(origin, transpose=False).origin == DataSource(source=origin.source, size=16, test_share=0.5)


@pytest.mark.parametrize("form", ["npz", "idx", "files", "parquet"])
def test_what_sample_writes_is_read_with_its_class_names(tmp_path: Path, form: str) -> None:
    names = ("zebra", "n/a", "val")
    digits = Batch(images=X, labels=Y, seeds=np.arange(30), generator_id="0" * 16, seed=0, class_names=names)
    path = tmp_path / f"d.{form}"
    with WRITERS[form](path, 30) as add:
        add(digits)
    found = load_images(path)
    assert found.named
    assert found.labels is not None
    by_image = dict(zip(image_hashes(X[..., None]).tolist(), Y.tolist(), strict=True))
    for key, label in zip(image_hashes(found.images).tolist(), found.labels.tolist(), strict=True):
        assert found.class_names[label] == names[by_image[key]]
