"""Writers: files hold the delivered digits, completely or not at all."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import hypothesis.strategies
import numpy as np
import pytest
from hypothesis import given
from PIL import Image
from written import batch, write

from digitforge_client import Batch, DataError, DigitClient, DigitforgeError, InvalidInputError, MissingExtraError
from digitforge_client.common import archives
from digitforge_client.common.class_folders import class_name_of
from digitforge_client.common.extras import install_command
from digitforge_client.common.files import new_folder, replacing
from digitforge_client.datasets import tfrecord
from digitforge_client.datasets.manifest import FORMATS
from digitforge_client.datasets.readers import read
from digitforge_client.datasets.tfrecord import frames
from digitforge_client.datasets.writers import WRITERS, writer_for
from digitforge_client.pictures import grid
from digitforge_client.testing import FakeTransport


def test_an_archive_holds_images_labels_seeds_and_generator(tmp_path: Path) -> None:
    write("npz", tmp_path / "d.npz", batch(30), batch(12, 30))
    whole = batch(42)
    with np.load(tmp_path / "d.npz", allow_pickle=False) as archive:
        assert set(archive) == {"x", "y", "seeds", "generator_id"}
        np.testing.assert_array_equal(archive["x"], whole.images)
        np.testing.assert_array_equal(archive["y"], whole.labels)
        np.testing.assert_array_equal(archive["seeds"], whole.seeds)
        assert str(archive["generator_id"]) == whole.generator_id
        assert (archive["x"].dtype, archive["y"].dtype, archive["seeds"].dtype) == (np.uint8, np.int64, np.int64)


def test_a_picture_shows_every_digit_in_its_place(tmp_path: Path) -> None:
    write("png", tmp_path / "d.png", batch(60), batch(60, 60))
    picture = np.asarray(Image.open(tmp_path / "d.png"))
    assert picture.shape == (6 * 29 - 1, 20 * 29 - 1)  # 120 digits in rows of 20: each class in two columns
    np.testing.assert_array_equal(picture[29 : 29 + 28, 58 : 58 + 28], batch(120).images[22])
    assert not picture[28].any()  # the black line


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (9, 9), (10, 10), (100, 10), (101, 20), (10_000, 100)])
def test_a_row_of_a_picture_holds_ten_digits_or_a_multiple(n: int, columns: int) -> None:
    assert grid(np.zeros((n, 2, 2), np.uint8)).shape[1] == columns * 3 - 1


def test_colors_stay_colors() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 3), dtype=np.uint8)
    picture = grid(images, columns=2)
    assert picture.shape == (7, 11, 3)
    np.testing.assert_array_equal(picture[4:7, 6:11], images[3])


def test_idx_files_have_the_format_of_mnist(tmp_path: Path) -> None:
    write("idx", tmp_path / "synthetic", batch(30), batch(12, 30))
    images = (tmp_path / "synthetic" / "train-images-idx3-ubyte").read_bytes()
    labels = (tmp_path / "synthetic" / "train-labels-idx1-ubyte").read_bytes()
    assert images[:16] == bytes.fromhex("00000803 0000002a 0000001c 0000001c")
    assert labels[:8] == bytes.fromhex("00000801 0000002a")
    assert images[16:] == batch(42).images.tobytes()
    assert list(labels[8:]) == batch(42).labels.tolist()


def test_separate_files_are_named_after_class_and_row_seed(tmp_path: Path) -> None:
    write("files", tmp_path / "digits", batch(12))
    assert len(list((tmp_path / "digits").rglob("*.png"))) == 12
    one = tmp_path / "digits" / "1" / f"{2**40 + 11}.png"
    np.testing.assert_array_equal(np.asarray(Image.open(one)), batch(12).images[11])


def test_tensorflow_reads_a_tfrecord_file(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    # row seeds and labels of several lengths, so that records have several lengths
    first = replace(batch(30), seeds=np.arange(30) * 7**7, labels=np.where(np.arange(30) % 3, np.arange(30) * 9, -1))
    write("tfrecord", tmp_path / "d.tfrecord", first, batch(12, 30))
    form = {
        "image": tf.io.FixedLenFeature([], tf.string),
        "shape": tf.io.FixedLenFeature([3], tf.int64),
        "label": tf.io.FixedLenFeature([], tf.int64),
        "seed": tf.io.FixedLenFeature([], tf.int64),
        "generator_id": tf.io.FixedLenFeature([], tf.string),
    }
    records = list(
        tf.data.TFRecordDataset(str(tmp_path / "d.tfrecord"))
    )  # TensorFlow checks both checksums of each record
    assert len(records) == 42
    assert len({len(record.numpy()) for record in records}) > 3
    for number, record in enumerate(records):
        example = tf.io.parse_single_example(record, form)
        row, place = (first, number) if number < 30 else (batch(12, 30), number - 30)
        image = tf.reshape(tf.io.decode_raw(example["image"], tf.uint8), example["shape"]).numpy()
        np.testing.assert_array_equal(image[..., 0], row.images[place])
        assert (int(example["label"]), int(example["seed"])) == (row.labels[place], row.seeds[place])
        assert example["generator_id"].numpy() == b"0123456789abcdef"


@given(hypothesis.strategies.lists(hypothesis.strategies.binary(max_size=300), max_size=8))
def test_tensorflow_reads_frames_of_any_records(records: list[bytes]) -> None:
    tf = pytest.importorskip("tensorflow")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "d.tfrecord")
        path.write_bytes(frames(records))
        assert [record.numpy() for record in tf.data.TFRecordDataset(str(path))] == records


def test_a_parquet_file_is_a_table_that_names_its_generator(tmp_path: Path) -> None:
    table = pytest.importorskip("pyarrow.parquet")
    write("parquet", tmp_path / "d.parquet", batch(30), batch(12, 30))
    rows = table.read_table(tmp_path / "d.parquet")
    whole = batch(42)
    assert rows.column_names == ["image", "label", "seed"]
    pictures = [np.asarray(Image.open(io.BytesIO(each["bytes"]))) for each in rows["image"].to_pylist()]
    np.testing.assert_array_equal(np.stack(pictures), whole.images)
    np.testing.assert_array_equal(rows["label"].to_numpy(), whole.labels)
    np.testing.assert_array_equal(rows["seed"].to_numpy(), whole.seeds)
    about = json.loads(rows.schema.metadata[b"digitforge"])
    assert about == {"generator_id": whole.generator_id, "image_shape": [28, 28, 1]}


def test_a_large_parquet_file_is_written_group_by_group(tmp_path: Path) -> None:
    table = pytest.importorskip("pyarrow.parquet")
    write("parquet", tmp_path / "d.parquet", *(batch(1000, 1000 * part) for part in range(40)))
    file = table.ParquetFile(tmp_path / "d.parquet")
    assert file.metadata.num_rows == 40_000
    assert file.metadata.num_row_groups == 3
    assert file.read(["seed"])["seed"].to_numpy().tolist() == [2**40 + row for row in range(40_000)]


@pytest.mark.parametrize("scaling", [{}, {"truncation": 0.7}, {"expansion": 1.3}])
@pytest.mark.parametrize("form", FORMATS)
def test_a_file_holds_the_whole_address(tmp_path: Path, form: str, scaling: dict[str, Any]) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    client = DigitClient(transports=[FakeTransport()])
    digits = client.sample(5, seed=3, **scaling)
    write(form, tmp_path / "digits", digits)
    again = read(tmp_path / "digits", form)
    assert again.scaling == scaling
    np.testing.assert_array_equal(client.fetch(again).images, digits.images)


@pytest.mark.parametrize(("form", "library"), [("parquet", "pyarrow"), ("tfrecord", "google_crc32c")])
def test_the_error_of_a_missing_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=re.escape(install_command(form))), WRITERS[form](tmp_path / "d", 3):
        pytest.fail("began to write")
    assert list(tmp_path.iterdir()) == []


def test_arrays_can_be_read_one_after_the_other(tmp_path: Path) -> None:
    write("npy", tmp_path / "d.npy", batch(30), batch(12, 30))
    file = io.BytesIO((tmp_path / "d.npy").read_bytes())
    np.testing.assert_array_equal(np.load(file), batch(42).images)
    np.testing.assert_array_equal(np.load(file), batch(42).labels)
    assert file.read() == b""


@pytest.mark.parametrize("form", list(WRITERS))
def test_an_error_during_writing_leaves_nothing(tmp_path: Path, form: str) -> None:
    def fail() -> None:
        with WRITERS[form](tmp_path / "target", 20) as add:
            add(batch(10))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["npz", "png", "npy", "tfrecord", "parquet"])
def test_an_existing_file_is_only_replaced_by_a_complete_one(tmp_path: Path, form: str) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), WRITERS[form](target, 10):
        raise RuntimeError
    assert target.read_bytes() == b"old"
    write(form, target, batch(10))
    assert target.read_bytes() != b"old"


@pytest.mark.parametrize("form", list(WRITERS))
def test_an_unwritable_path_is_rejected_at_the_start(tmp_path: Path, form: str) -> None:
    (tmp_path / "file").write_text("no folder")
    for place in (tmp_path / "missing" / "target", tmp_path / "file" / "target"):
        with pytest.raises(DataError, match="target"), WRITERS[form](place, 10):
            pytest.fail("began to write")


@pytest.mark.parametrize("form", ["idx", "files"])
def test_an_existing_folder_is_never_changed(tmp_path: Path, form: str) -> None:
    with pytest.raises(DataError, match="exists"), WRITERS[form](tmp_path, 10):
        pytest.fail("began to write")


def test_a_folder_cannot_be_written_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it is a folder"), replacing(tmp_path):
        pytest.fail("began to write")


def test_too_many_digits_for_a_format_are_rejected_at_the_start(tmp_path: Path) -> None:
    for form, n in (("png", 10_001), ("npz", 1_000_001)):
        with pytest.raises(InvalidInputError, match="at most"), WRITERS[form](tmp_path / "target", n):
            pytest.fail("began to write")


def test_idx_rejects_unlabeled_or_colored_digits(tmp_path: Path) -> None:
    colored = Batch(
        images=np.zeros((2, 4, 4, 3), np.uint8),
        labels=np.zeros(2, np.int64),
        seeds=np.zeros(2, np.int64),
        generator_id="x",
        seed=0,
    )
    with pytest.raises(InvalidInputError, match="gray"):
        write("idx", tmp_path / "a", colored)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_during_writing_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    def fill(place: Path | BinaryIO) -> None:
        if isinstance(place, Path):
            (place / "half").touch()
        else:
            place.write(b"half")
        raise OSError(28, "No space left on device")

    for begin in (replacing, new_folder):
        with pytest.raises(DigitforgeError, match="No space left"), begin(tmp_path / "target") as place:
            fill(place)
    assert list(tmp_path.iterdir()) == []


def test_the_file_name_decides_the_format() -> None:
    assert writer_for(Path("a/b.NPZ")) is WRITERS["npz"]
    assert writer_for(Path("b.png")) is WRITERS["png"]
    assert writer_for(Path("b.tfrecord")) is WRITERS["tfrecord"]
    assert writer_for(Path("b.parquet")) is WRITERS["parquet"]
    assert writer_for(Path("-")) is WRITERS["npy"]
    assert writer_for(Path("b.png"), "files") is WRITERS["files"]
    with pytest.raises(InvalidInputError, match=r"ends in \.npz"):
        writer_for(Path("b.jpg"))


def test_a_finished_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write("npz", tmp_path / "a.npz", batch(1))
    code = f"open({str(tmp_path / 'b')!r}, 'w')"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "a.npz").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_table_that_would_fill_the_memory_is_rejected_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrow, table = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(archives, "LARGEST", 2**20)
    monkeypatch.setattr(table.ParquetFile, "read", lambda *_: pytest.fail("read the content"))
    numbers = arrow.array(np.zeros(2000, np.int64))
    files = arrow.array([bytes(1000)] * 2000)
    struct = arrow.StructArray.from_arrays([files, arrow.nulls(2000, arrow.string())], ["bytes", "path"])
    for images, shape, says in (
        (
            arrow.array([bytes(1000)] * 2000, arrow.binary(1000)),
            [10, 10, 10],
            "the table has 2 MiB; at most 1 MiB are read",
        ),
        (struct, [10, 10, 10], "the table has 2 MiB; at most 1 MiB are read"),
        (struct, [2**40, 2**40, 1], "MiB are read"),
        (files, [10, 10, 10], "the images are of type binary"),
    ):
        columns = {"image": images, "label": numbers, "seed": numbers}
        about = json.dumps({"image_shape": shape})
        table.write_table(arrow.table(columns, metadata={"digitforge": about}), tmp_path / "d.parquet")
        assert (tmp_path / "d.parquet").stat().st_size < 20_000
        with pytest.raises(DataError, match=says):
            read(tmp_path / "d.parquet", "parquet")


def test_a_picture_of_another_size_than_the_file_states_is_not_decoded(tmp_path: Path) -> None:
    table = pytest.importorskip("pyarrow.parquet")
    write("parquet", tmp_path / "d.parquet", batch(3))
    rows = table.read_table(tmp_path / "d.parquet")
    about = json.loads(rows.schema.metadata[b"digitforge"]) | {"image_shape": [4, 4, 1]}
    table.write_table(rows.replace_schema_metadata({"digitforge": json.dumps(about)}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"a picture has the shape \[28, 28, 1\], but the file states \[4, 4, 1\]"):
        read(tmp_path / "d.parquet", "parquet")


def test_a_parquet_file_of_version_0_2_with_pixels_can_be_read(tmp_path: Path) -> None:
    arrow, table = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    old = batch(4)
    pixels = arrow.array([image.tobytes() for image in old.images], arrow.binary(784))
    about = json.dumps({"generator_id": old.generator_id, "image_shape": [28, 28, 1]})
    columns = {"image": pixels, "label": old.labels, "seed": old.seeds}
    table.write_table(arrow.table(columns, metadata={"digitforge": about}), tmp_path / "d.parquet")
    np.testing.assert_array_equal(read(tmp_path / "d.parquet", "parquet").images, old.images)


NAMES = ("zebra", "n/a", "val", "ä", "5", "..", "six", "seven", "eight", "nine")


@pytest.mark.parametrize("form", ["npz", "idx", "files", "parquet", "tfrecord"])
def test_class_names_are_written_with_the_digits(tmp_path: Path, form: str) -> None:
    named = [replace(batch(20, first), class_names=NAMES) for first in (0, 20)]
    path = tmp_path / f"d.{form}"
    write(form, path, *named)
    if form == "npz":
        assert np.load(path)["class_names"].tolist() == list(NAMES)
        assert read(path, form).class_names == NAMES
    elif form == "idx":
        assert json.loads((path / "class-names.json").read_text("utf-8")) == list(NAMES)
    elif form == "files":
        folders = {class_name_of(folder.name): len(list(folder.iterdir())) for folder in path.iterdir()}
        assert folders == dict.fromkeys(NAMES, 4)
    elif form == "parquet":
        assert read(path, form).class_names == NAMES
    else:
        records = [example.features.feature for example in tfrecord.read(path)]
        found = [record["class_name"].bytes_list.value[0].decode() for record in records]
        assert found == [NAMES[label] for label in batch(40).labels]
        np.testing.assert_array_equal(read(path, form).labels, batch(40).labels)


def test_numbers_need_no_names_beside_idx_files(tmp_path: Path) -> None:
    write("idx", tmp_path / "d", replace(batch(20), class_names=tuple("0123456789")))
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
    ]


def test_idx_rejects_more_than_256_classes(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="labels from 0 to 256"):
        write("idx", tmp_path / "d", replace(batch(2), labels=np.array([0, 256])))
