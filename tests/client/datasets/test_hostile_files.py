"""Damaged and hostile files of a data set cause a `DataError`, or are read, and nothing else."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from digitforge_client import Batch, DataError
from digitforge_client.datasets.manifest import NAME, Manifest, Plan
from digitforge_client.datasets.readers import read
from digitforge_client.testing import FakeTransport

ODD = st.sampled_from([-1, 0, 1.5, 2**63, 10**400, float("inf"), float("nan"), True, "28", "\ud800", "", None])
JSON = st.recursive(ODD, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))
MANIFEST = Manifest.new(Plan(n=25, seed=3, rows_per_shard=10), FakeTransport().card)


def manifest_text(changes: dict[str, Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        MANIFEST.save(Path(folder))
        return json.dumps(json.loads((Path(folder) / NAME).read_bytes()) | changes).encode()


FIELDS = sorted(json.loads(manifest_text({})))


def check_manifest(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NAME).write_bytes(text)
        with suppress(DataError):
            manifest = Manifest.load(Path(folder))
            manifest.save(Path(folder))
            assert Manifest.load(Path(folder)).shards == manifest.shards


@example(changes={"shards": 5})
@example(changes={"shards": ["file"]})
@example(changes={"shards": [None]})
@example(changes={"card": [1]})
@example(changes={"card": FakeTransport().card | {"image_shape": [-1, 28, 1]}})
@example(changes={"card": FakeTransport().card | {"name": "\ud800"}})
@example(changes={"n": 10**400})
@given(changes=st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1, max_size=2))
def test_any_manifest_is_read_or_rejected(changes: dict[str, Any]) -> None:
    check_manifest(manifest_text(changes))


@example(text=b'{"card":' + b"[" * 10_000 + b"]" * 10_000 + b"}")
@example(text=manifest_text({}).replace(b'"fake"', b"[" * 500 + b"]" * 500))
@example(text=b"[]")
@example(text=b"\xef\xbb\xbf{}")
@given(text=st.binary(max_size=50))
def test_any_bytes_are_rejected_as_a_manifest(text: bytes) -> None:
    check_manifest(text)


ARRAYS = st.sampled_from(
    [
        np.zeros(0),
        np.zeros((), np.int64),
        np.zeros((3, 28, 28)),
        np.zeros((3, 28, 28), np.uint8),
        np.zeros((4, 28, 28, 1, 1), np.uint8),
        np.full(3, -5),
        np.full(3, np.nan),
        np.array(["a", "b", "c"]),
        np.array("id"),
        np.zeros(3, np.int64),
        np.array([2**62, 1, 2]),
        np.array(-1.0),
        np.array(float("inf")),
    ]
)


@given(
    changes=st.dictionaries(
        st.sampled_from(["x", "y", "seeds", "generator_id", "expansion", "truncation", "class_weights"]), ARRAYS
    ),
    left_out=st.sampled_from(["x", "y", "seeds", "generator_id", ""]),
)
def test_any_archive_is_read_or_rejected(changes: dict[str, Any], left_out: str) -> None:
    arrays: dict[str, Any] = {"x": np.zeros((3, 28, 28), np.uint8), "y": np.zeros(3, int), "seeds": np.arange(3)}
    arrays |= {"generator_id": np.array("0" * 16)} | changes
    arrays.pop(left_out, None)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "digits.npz", **arrays)
        with suppress(DataError):
            check_batch(read(Path(folder) / "digits.npz", "npz"))


@pytest.mark.parametrize("form", ["npz", "tfrecord", "parquet"])
@given(data=st.binary(max_size=80))
def test_any_bytes_are_rejected_as_digits(form: str, data: bytes) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"digits.{form}"
        path.write_bytes(data)
        with pytest.raises(DataError):
            read(path, form)


@pytest.mark.parametrize(
    "about",
    [b"{}", b"[]", b"[" * 10_000 + b"]" * 10_000, b'{"image_shape": [-1, 0], "generator_id": 5}', b"\xff"],
    ids=["no fields", "a list", "too deep", "wrong fields", "not JSON"],
)
def test_any_note_in_a_parquet_file_is_read_or_rejected(tmp_path: Path, about: bytes) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"image": [b"abcd"], "label": [1], "seed": [2]})
    parquet.write_table(table.replace_schema_metadata({"digitforge": about}), tmp_path / "digits.parquet")
    with pytest.raises(DataError):
        read(tmp_path / "digits.parquet", "parquet")


def check_batch(batch: Batch) -> None:
    assert len(batch.images) == len(batch.labels) == len(batch.seeds)
    assert batch.images.dtype == np.uint8
    assert len(batch.addresses) == len(batch)
