"""The IDX parser, and the folders that hold IDX files."""

from __future__ import annotations

import contextlib
import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from digitforge_client.common import archives
from digitforge_client.errors import DataError
from digitforge_training.data import idx, load, load_images

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 28, 28), dtype=np.uint8)
LABELS = np.arange(40, dtype=np.uint8) % 4


def packed(array: npt.NDArray[np.uint8]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@contextlib.contextmanager
def refusal_names(name: str) -> Iterator[None]:
    """Accept success, or a DataError that names the file."""
    try:
        yield
    except DataError as error:
        if not str(error).startswith(f"{name}: "):
            raise AssertionError(f"the error does not name {name}") from error


def write_set(folder: Path, prefix: str = "", *, labels: npt.NDArray[np.uint8] = LABELS, zipped: bool = False) -> None:
    """Write four IDX files. The test images are the training images upside down."""
    folder.mkdir(exist_ok=True)
    for split, images in (("train", IMAGES), ("t10k", IMAGES[:, ::-1])):
        for name, array in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", labels)):
            if zipped:
                (folder / f"{prefix}{name}.gz").write_bytes(gzip.compress(packed(array)))
            else:
                (folder / f"{prefix}{name}").write_bytes(packed(array))


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6)), st.booleans())
def test_what_was_packed_is_read_back(array: npt.NDArray[np.uint8], zipped: bool) -> None:
    content = gzip.compress(packed(array)) if zipped else packed(array)
    np.testing.assert_array_equal(idx.parse(idx.unpack(content, "f"), "f"), array)


@given(st.binary(max_size=200))
def test_any_bytes_give_an_array_or_a_data_error_that_names_the_file(content: bytes) -> None:
    with refusal_names("the-file"):
        idx.parse(idx.unpack(content, "the-file"), "the-file")


@given(st.binary(max_size=100), st.integers(0, 4))
def test_any_bytes_behind_a_good_start_are_no_worse(rest: bytes, dimensions: int) -> None:
    with refusal_names("the-file"):
        idx.parse(bytes([0, 0, 8, dimensions]) + rest, "the-file")


@given(st.data())
def test_every_truncation_is_noticed(data: st.DataObject) -> None:
    content = packed(IMAGES[:2, :3, :3])
    zipped = gzip.compress(content)
    for whole in (content, zipped):
        length = data.draw(st.integers(0, len(whole) - 1))
        with pytest.raises(DataError):
            idx.parse(idx.unpack(whole[:length], "f"), "f")


@given(st.integers(0, 200), st.integers(1, 255))
def test_no_damaged_byte_of_a_gzip_body_changes_the_content_unnoticed(position: int, change: int) -> None:
    content = packed(IMAGES[:2])
    zipped = bytearray(gzip.compress(content, mtime=0))
    zipped[10 + position] ^= change  # skip the header, 10 bytes whose fields may have any value
    with refusal_names("f"):
        assert idx.unpack(bytes(zipped), "f") == content  # some bits are padding and change nothing


def test_several_gzip_members_make_one_file() -> None:
    content = packed(IMAGES)
    assert idx.unpack(gzip.compress(content[:100]) + gzip.compress(content[100:]), "f") == content


def test_a_gzip_bomb_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST", 10_000)
    assert len(idx.unpack(gzip.compress(bytes(10_000)), "f")) == 10_000
    with pytest.raises(DataError, match="more than 10000 bytes after decompression"):
        idx.unpack(gzip.compress(bytes(20_000)), "f")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an IDX file"),
        (b"\x89PNG\r\n", "not an IDX file"),
        (bytes([0, 0, 13, 1]) + bytes(8), "float32"),
        (bytes([0, 0, 7, 1]) + bytes(8), "unknown type 0x07"),
        (bytes([0, 0, 8, 3, 0, 0]), "truncated in the header"),
        (packed(LABELS)[:-1], r"truncated: the header announces 40 values \(40\), but 39 follow"),
        (packed(LABELS) + b"x", "too long"),
        (packed(np.zeros((1, 1, 1, 1, 1), np.uint8)), "5 dimensions"),
    ],
)
def test_the_error_says_what_is_wrong(content: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        idx.parse(content, "f")


@pytest.mark.parametrize("prefix", ["", "emnist-letters-", "k_"])
@pytest.mark.parametrize("zipped", [False, True])
def test_four_files_under_any_prefix_are_a_data_set(tmp_path: Path, prefix: str, zipped: bool) -> None:
    write_set(tmp_path / "sets", prefix, zipped=zipped)
    train, test = (load(str(tmp_path / "sets"), split=split) for split in ("train", "test"))
    np.testing.assert_array_equal(train.images[..., 0], IMAGES)
    np.testing.assert_array_equal(test.images[..., 0], IMAGES[:, ::-1])
    np.testing.assert_array_equal(train.labels, LABELS)
    assert train.name == (prefix[:-1] or "sets")
    assert (train.split, test.split) == ("train", "test")


def test_names_with_a_dot_are_understood(tmp_path: Path) -> None:
    write_set(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(load(str(tmp_path))) == 40


def test_one_of_several_sets_in_a_folder_is_chosen_by_its_prefix(tmp_path: Path) -> None:
    write_set(tmp_path, "emnist-digits-")
    write_set(tmp_path, "emnist-letters-", labels=LABELS + 1)
    assert load(str(tmp_path / "emnist-letters")).class_names == ("1", "2", "3", "4")
    with pytest.raises(DataError, match=r"2 data set.*emnist-digits, .*emnist-letters"):
        load(str(tmp_path))


def test_emnists_mapping_names_the_classes(tmp_path: Path) -> None:
    write_set(tmp_path, "emnist-letters-", labels=LABELS + 1, zipped=True)
    write_set(tmp_path, "emnist-balanced-", labels=LABELS + 8)
    mapping = tmp_path / "emnist-letters-mapping.txt"
    mapping.write_bytes(b"1 65 97\r\n2 66 98\r\n3 67 99\r\n4 68 100\r\n5 69 101\r\n")  # no class 0
    (tmp_path / "emnist-balanced-mapping.txt").write_text("8 56\n9 57 \n\n10 65\n11 1078")  # no newline at the end
    for split in ("train", "test"):
        letters = load(tmp_path / "emnist-letters", split=split)
        assert letters.class_names == ("Aa", "Bb", "Cc", "Dd")
        np.testing.assert_array_equal(letters.labels, LABELS)
        assert load(tmp_path / "emnist-balanced", split=split).class_names == ("8", "9", "A", "ж")
    assert load_images(tmp_path / "emnist-letters").class_names == ("Aa", "Bb", "Cc", "Dd")
    (tmp_path / "emnist-letters-class-names.json").write_text('["-", "a", "b", "c", "d"]')
    assert load(tmp_path / "emnist-letters").class_names == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    "content",
    ["", "1", "a 65", "1 65\n1 66", "-1 65", "256 65", "1 -5", "1 1114112", "1 99999999999999999999", "\xff\xfe1"],
)
def test_a_damaged_mapping_is_an_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    write_set(tmp_path, "k-")
    (tmp_path / "k-mapping.txt").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"k-mapping\.txt: no class names .*expected lines with a class number"):
        load(tmp_path)


def test_labels_are_renumbered_and_keep_their_names(tmp_path: Path) -> None:
    write_set(tmp_path, labels=LABELS * 10 + 5)
    dataset = load(str(tmp_path), split="test")
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert dataset.class_names == ("5", "15", "25", "35")


def test_transpose_exchanges_rows_and_columns(tmp_path: Path) -> None:
    write_set(tmp_path)
    images = load(str(tmp_path), transpose=True).images
    np.testing.assert_array_equal(images[..., 0], IMAGES.transpose(0, 2, 1))
    assert images.flags.c_contiguous


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="no IDX file with the test labels"):
        load(str(tmp_path))


def test_exchanged_files_are_noticed(tmp_path: Path) -> None:
    write_set(tmp_path)
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    images.rename(tmp_path / "x")
    labels.rename(images)
    (tmp_path / "x").rename(labels)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: the file name says labels, but the array has 3 dim"):
        load(str(tmp_path))
    labels.write_bytes(packed(LABELS))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: the file name says images, but the array has 1 dim"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train-labels-idx1-ubyte", packed(LABELS[:-1]), "40 images but 39 labels"),
        ("t10k-labels-idx1-ubyte", packed(LABELS + 1), "label 4 occurs in the test split but not among"),
        ("train-images-idx3-ubyte", packed(IMAGES[:, :20]), "20×28 pixels"),
        ("train-images-idx3-ubyte", packed(IMAGES[:, :8, :8]), "8×8 pixels"),
        ("train-images-idx3-ubyte", gzip.compress(packed(IMAGES))[:-9], "truncated"),
        ("train-labels-idx1-ubyte", packed(LABELS[:0]), "training labels are empty"),
    ],
)
def test_a_damaged_set_is_refused_with_the_name_of_the_file(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    write_set(tmp_path)
    (tmp_path / name).write_bytes(content)
    split = "test" if name.startswith("t10k") else "train"
    with pytest.raises(DataError, match=said) as caught:
        load(str(tmp_path), split=split)  # type: ignore[arg-type]
    assert name.split("-", maxsplit=1)[0] in str(caught.value)


def test_one_image_is_too_few(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(packed(IMAGES[:1]))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(packed(LABELS[:1]))
    with pytest.raises(DataError, match="1 images; expected at least two"):
        load(str(tmp_path))


def test_other_files_in_mnists_place_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path)
    with pytest.raises(DataError, match=r"not a file of MNIST's train split.*--data FOLDER"):
        load("mnist", data_dir=tmp_path)
    monkeypatch.setenv("DIGITFORGE_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load("mnist")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no IDX files found"):
        load("mnist", data_dir=tmp_path / "empty")
