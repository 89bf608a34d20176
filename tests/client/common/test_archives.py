"""Damaged archives give the written arrays or a single error."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from digitforge_client import DataError
from digitforge_client.common.archives import open_archive

ARRAYS: dict[str, Any] = {"x": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "name": np.array("digits")}


def archive_of(*, compressed: bool) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **ARRAYS)
    return file.getvalue()


WHOLE = {compressed: archive_of(compressed=compressed) for compressed in (False, True)}


def assert_intact_or_rejected(path: Path) -> None:
    try:
        with open_archive(path) as arrays:
            found = {name: arrays[name] for name in ARRAYS}
    except DataError as error:
        assert str(error).startswith(f"cannot read {path}: ")  # noqa: PT017 - some damage is harmless
    else:
        assert {name: array.tolist() for name, array in found.items()} == {
            name: array.tolist() for name, array in ARRAYS.items()
        }


@given(compressed=st.booleans(), at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_changed_bit(tmp_path_factory: pytest.TempPathFactory, compressed: bool, at: float, bit: int) -> None:
    path = tmp_path_factory.mktemp("changed") / "a.npz"
    content = bytearray(WHOLE[compressed])
    content[int(at * len(content))] ^= 1 << bit
    path.write_bytes(content)
    assert_intact_or_rejected(path)


@pytest.mark.parametrize("offset", [8, 10])  # flags and compression method in the central directory
def test_flags_that_claim_encryption_or_an_unknown_compression(tmp_path: Path, offset: int) -> None:
    content = bytearray(WHOLE[False])
    content[content.index(b"PK\x01\x02") + offset] |= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"encrypted|compression"), open_archive(tmp_path / "a.npz") as arrays:
        arrays["x"]


@given(content=st.binary(max_size=200), magic=st.sampled_from([b"", b"PK", b"PK\x03\x04", b"\x93NUMPY\x01\x00"]))
@example(content=b"", magic=b"")
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes, magic: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "a.npz"
    path.write_bytes(magic + content)
    with pytest.raises(DataError, match=r"a\.npz: "), open_archive(path) as arrays:
        arrays["x"]


def test_the_message_ends_with_the_advice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*none\.npz: No such file or directory; make it first$"):
        open_archive(tmp_path / "none.npz", advice="make it first").__enter__()
    (tmp_path / "a.npz").write_bytes(WHOLE[True])
    with pytest.raises(DataError, match=r"y is not a file in the archive.*plain arrays"):  # noqa: SIM117
        with open_archive(tmp_path / "a.npz") as arrays:
            arrays["y"]
