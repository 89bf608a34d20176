"""Batches: selecting, printing, tables and files."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from digitforge_client import Batch, DigitClient, InvalidInputError
from digitforge_client.datasets.readers import read
from digitforge_client.testing import FakeTransport


@pytest.fixture
def client() -> DigitClient:
    return DigitClient(transports=[FakeTransport()])


@pytest.mark.parametrize(
    "which",
    [
        slice(10),
        slice(None, None, -2),
        np.arange(50) % 10 == 3,
        [4, 4, -1],
        np.array([7], np.uint8),
        3,
        np.int64(-1),
        [],
        [False] * 50,
    ],
    ids=str,
)
def test_a_part_of_a_batch_keeps_its_addresses(client: DigitClient, which: Any) -> None:
    for options in ({}, {"expansion": 1.2}, {"class_weights": [0.1] * 10}):
        batch = client.sample(50, seed=7, **options)
        part = batch[which]
        rows = np.atleast_1d(np.arange(50)[np.zeros(0, int) if isinstance(which, list) and not which else which])
        assert part.seeds.tolist() == batch.seeds[rows].tolist()
        assert part.addresses.seeds.tolist() == batch.addresses[which].seeds.tolist()
        np.testing.assert_array_equal(part.images, batch.images[rows])
        np.testing.assert_array_equal(part.labels, batch.labels[rows])
        np.testing.assert_array_equal(client.fetch(part).images, part.images)
        assert (part.generator_id, part.seed, part.scaling) == (batch.generator_id, 7, batch.scaling)


def test_a_batch_can_be_read_digit_by_digit(client: DigitClient) -> None:
    batch = client.sample(3, seed=0)
    assert [one.labels.tolist() for one in batch] == [[0], [1], [2]]  # type: ignore[attr-defined]
    with pytest.raises(IndexError):
        batch[3]


@pytest.mark.parametrize("which", ["label", 1.5, [0.5], True, None, [[1]], (1, 2, 3.0)], ids=str)
def test_an_invalid_index_is_rejected(client: DigitClient, which: Any) -> None:
    for digits in (client.sample(5), client.sample(5).addresses):
        with pytest.raises(InvalidInputError, match="expected a position, a slice"):
            digits[which]


def test_a_batch_describes_itself_in_a_line(client: DigitClient) -> None:
    batch = client.sample(1000, seed=7)
    assert repr(batch) == "Batch(1000 images of 28 × 28, generator fa4efa4efa4efa4e, seed 7)"
    assert repr(batch.addresses) == "Addresses(1000 images, generator fa4efa4efa4efa4e)"
    blend = client.sample(1, class_weights=[0.1] * 10, seed=0, expansion=1.5)
    assert "1 image of 28 × 28, generator fa4efa4efa4efa4e, expansion 1.5, blends of classes" in repr(blend)
    assert repr(client.sample(0, seed=3)).startswith("Batch(0 images of 28 × 28, generator")


def test_a_notebook_shows_the_first_digits_and_their_labels() -> None:
    for shape in ((28, 28, 1), (6, 5, 3)):
        batch = DigitClient(transports=[FakeTransport(image_shape=shape)]).sample(64, seed=7)
        page = batch._repr_html_()
        encoded = re.search(r'src="data:image/png;base64,([^"]+)"', page)
        assert encoded is not None
        sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded[1]))))
        height, width = shape[:2]
        assert sheet.shape[:2] == (5 * (height + 1) - 1, 10 * (width + 1) - 1)
        np.testing.assert_array_equal(sheet[height + 1 : 2 * height + 1, :width], batch.images[10])
        assert page.count("0 1 2 3 4 5 6 7 8 9") == 5
        assert "the first 50" in page
    assert "img" not in batch[:0]._repr_html_()
    hostile = Batch(images=batch.images, labels=batch.labels, seeds=batch.seeds, generator_id="<script>", seed=0)
    assert "<script>" not in hostile._repr_html_()


def test_a_table_has_a_row_for_each_digit_and_can_be_augmented(client: DigitClient) -> None:
    pandas = pytest.importorskip("pandas")
    batch = client.sample(30, seed=7)
    table = batch.to_pandas()
    assert table.columns.tolist() == ["label", "seed", *(f"pixel{number}" for number in range(784))]
    np.testing.assert_array_equal(table.iloc[:, 2:].to_numpy().reshape(30, 28, 28), batch.images)
    assert set(table.dtypes.iloc[2:]) == {np.dtype(np.uint8)}
    assert (table["label"].tolist(), table["seed"].tolist()) == (batch.labels.tolist(), batch.seeds.tolist())
    assert table.attrs == {"generator_id": batch.generator_id}
    more, labels = client.augment(table.filter(like="pixel"), table["label"], strategy={7: 5})
    assert (len(more), labels.iloc[-2:].tolist()) == (32, [7, 7])
    assert isinstance(client.sample(0).to_pandas(), pandas.DataFrame)


@pytest.mark.parametrize("form", ["npz", "tfrecord", "parquet"])
def test_a_saved_batch_can_be_read_and_fetched_again(client: DigitClient, tmp_path: Path, form: str) -> None:
    pytest.importorskip({"npz": "numpy", "tfrecord": "google_crc32c", "parquet": "pyarrow"}[form])
    batch = client.sample(30, seed=7, expansion=1.5)[5:]
    path = tmp_path / f"digits.{form}"
    for _ in range(2):  # an existing file is replaced
        batch.save(str(path))
    again = read(path, form)
    np.testing.assert_array_equal(again.images, batch.images)
    np.testing.assert_array_equal(client.fetch(again).images, batch.images)
    blends = client.sample(3, class_weights=[0.1] * 10, seed=0)
    if form == "npz":
        blends.save(path)
        np.testing.assert_array_equal(client.fetch(read(path, form)).images, blends.images)
    else:
        with pytest.raises(InvalidInputError, match="cannot hold class weights"):
            blends.save(path)


def test_a_batch_can_be_saved_as_a_picture_and_an_empty_one_cannot(client: DigitClient, tmp_path: Path) -> None:
    client.sample(20, seed=0).save(tmp_path / "digits.png")
    assert Image.open(tmp_path / "digits.png").size == (10 * 29 - 1, 2 * 29 - 1)
    with pytest.raises(InvalidInputError, match="empty"):
        client.sample(0).save(tmp_path / "none.npz")
    with pytest.raises(InvalidInputError, match="format"):
        client.sample(1).save(tmp_path / "digits")
    assert [path.name for path in tmp_path.iterdir()] == ["digits.png"]
