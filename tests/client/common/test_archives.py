"""Damaged archives give the written arrays or a single error."""

from __future__ import annotations

import gzip
import io
import random
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from digitforge_client import DataError
from digitforge_client.common import archives
from digitforge_client.common.archives import gunzip, open_archive

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


# --- small files with a large content


def test_an_archive_that_inflates_too_much_is_rejected_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "LARGEST", 2**20)
    np.savez_compressed(tmp_path / "one.npz", x=np.zeros(2**20 + 1, np.uint8))
    np.savez_compressed(tmp_path / "many.npz", *[np.zeros(2**17, np.uint8) for _ in range(9)])
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_, **__: pytest.fail("read the content"))
    for name in ("one.npz", "many.npz"):
        with pytest.raises(DataError, match=r"arrays have 1 MiB, \d+ times the size of the file; at most 1 MiB"):
            open_archive(tmp_path / name).__enter__()


def test_large_arrays_that_compress_like_images_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST", 2**10)
    pixels = np.random.default_rng(0).integers(0, 256, 2**16).astype(np.uint8)
    pixels[2**13 :] = 0  # compresses eight times
    np.savez_compressed(tmp_path / "a.npz", x=pixels)
    assert (tmp_path / "a.npz").stat().st_size < 2**14
    with open_archive(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["x"], pixels)


def test_a_size_that_is_too_small_in_the_list_of_members_is_rejected(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, x=np.zeros(2**20, np.uint8))
    content = bytearray(file.getvalue())
    at = content.index(b"PK\x01\x02") + 24  # the uncompressed size
    content[at : at + 4] = (2**10).to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError), open_archive(tmp_path / "a.npz") as arrays:
        arrays["x"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_numpy_does_not_use_are_rejected(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        file = io.BytesIO()
        np.save(file, np.zeros(1000, np.uint8))
        archive.writestr("x.npy", file.getvalue())
    with pytest.raises(DataError, match=rf"x\.npy has the unknown compression method {method}"):
        open_archive(tmp_path / "a.npz").__enter__()


def test_a_single_array_is_rejected_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})
    with pytest.raises(DataError, match="single array"):
        open_archive(tmp_path / "a.npz").__enter__()


@given(st.integers())
def test_gunzip_agrees_with_the_standard_library(seed: int) -> None:
    chance = random.Random(seed)
    sizes = [chance.randrange(40_000) for _ in range(chance.randrange(1, 5))]
    parts = [chance.choice([chance.randbytes(size), bytes(size)]) for size in sizes]
    content = b"".join(gzip.compress(part) + bytes(chance.choice([0, 0, 20_000])) for part in parts)
    whole = gzip.decompress(content)
    assert gunzip(content, 2**30) == whole
    most = chance.randrange(len(whole) + 2)
    assert gunzip(bytearray(content), most) == whole[: most + 1]
    cut = content.rstrip(b"\0")[: -chance.randrange(1, 8)]
    with pytest.raises(DataError, match=r"truncated|damaged"):
        gunzip(cut, 2**30)


def test_any_number_of_empty_gzip_members_takes_bounded_time() -> None:
    member = gzip.compress(b"")
    assert gunzip(member * 1000 + gzip.compress(b"content"), 100) == b"content"
    began = time.process_time()
    with pytest.raises(DataError, match="more than 100000 members"):
        gunzip(member * 350_000, 2**30)  # 7 MiB
    assert time.process_time() - began < 20  # it takes 2 s; once 120 s
