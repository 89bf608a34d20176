"""Verification of data sets: damaged files are found, and regenerated digits are compared."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import one_line
from hypothesis import given
from hypothesis import strategies as st
from shards import PLAN, assert_whole, run

from digitforge_client import DataError, DigitClient
from digitforge_client.datasets.generate import generate
from digitforge_client.datasets.manifest import FORMATS, Manifest, Plan
from digitforge_client.datasets.verify import compare, problem_of, spread
from digitforge_client.testing import FakeTransport

pytest.importorskip("joblib")


@pytest.fixture
def client() -> DigitClient:
    return DigitClient(transports=[FakeTransport()])


def test_damaged_files_are_found_and_repaired(server: Any, tmp_path: Path, formula: Any) -> None:
    arguments = ("--n", 2000, "--rows-per-shard", 300, "--seed", 2, "--jobs", 1)
    assert run(server, "generate", tmp_path, *arguments).returncode == 0
    files = [tmp_path / shard.file for shard in Manifest.load(tmp_path).shards]
    files[0].unlink()
    files[2].write_bytes(files[2].read_bytes()[:-1])
    content = bytearray(files[4].read_bytes())
    content[len(content) // 2] ^= 1
    files[4].write_bytes(content)
    result = run(server, "verify", tmp_path, "--json")
    assert result.returncode == 4
    problems = json.loads(result.stdout)["problems"]
    assert [problem.split()[0] for problem in problems] == [files[number].name for number in (0, 2, 4)]
    assert ["missing" in problems[0], "bytes instead of" in problems[1], "checksum" in problems[2]] == [True] * 3
    assert "remove these files and run `digitforge generate" in one_line(run(server, "verify", tmp_path))
    files[4].unlink()
    # a file that is missing or has another size is made again
    assert run(server, "generate", tmp_path, "--jobs", 1).returncode == 0
    assert run(server, "verify", tmp_path).returncode == 0
    assert_whole(tmp_path, Manifest.load(tmp_path), formula)


def changing(levels: int, pixels: int) -> Callable[[Any], Any]:
    """Make a function that changes some pixels of an answer by some gray levels."""

    def change(reply: Any) -> Any:
        images = np.frombuffer(reply.outputs["images"].tensor_content, dtype=np.uint8).copy()
        images[:pixels] += np.where(images[:pixels] < 128, levels, -levels).astype(np.uint8)
        reply.outputs["images"].tensor_content = images.tobytes()
        return reply

    return change


def test_regenerated_digits_may_differ_within_the_tolerance(server: Any, tmp_path: Path) -> None:
    arguments = ("--n", 1000, "--rows-per-shard", 256, "--seed", 2, "--jobs", 1)
    assert run(server, "generate", tmp_path, *arguments).returncode == 0
    pixels = 256 * 784
    for levels, changed, status in ((1, pixels // 1001, 0), (1, pixels // 990, 4), (2, 1, 4)):
        server.mend = changing(levels, changed)
        result = run(server, "verify", tmp_path, "--regenerate", 1, "--json")
        assert result.returncode == status, (levels, changed, result.stderr)
        (compared,) = json.loads(result.stdout)["regenerated"]
        assert (compared["pixels"], compared["differing"], compared["largest"]) == (pixels, changed, levels)
    assert "does not match the server's images" in result.stderr
    server.mend = lambda reply: reply
    server.generator_id = "f" * 16
    result = run(server, "verify", tmp_path, "--regenerate", 1)
    assert (result.returncode, "started with generator 0123456789abcdef" in one_line(result)) == (3, True)


def test_a_file_with_other_addresses_is_found(tmp_path: Path, client: DigitClient) -> None:
    manifest = generate(client, tmp_path, PLAN, jobs=1)
    files = [tmp_path / shard.file for shard in manifest.shards]
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(DataError, match="differ from the manifest"):
        compare(client, tmp_path, manifest, manifest.shards[0])
    files[0].write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cannot read .*shard-00000"):
        compare(client, tmp_path, manifest, manifest.shards[0])


@pytest.fixture(scope="module", params=FORMATS)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DigitClient, bytes]:
    """The folder of a data set with one small shard, its client, and the bytes of the shard."""
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("small")
    client = DigitClient(transports=[FakeTransport(image_shape=(4, 4, 1))])
    manifest = generate(client, folder, replace(PLAN, n=3, format=request.param), jobs=1)
    return folder, client, (folder / manifest.shards[0].file).read_bytes()


@given(data=st.data())
def test_a_damaged_file_raises_only_data_errors(small: tuple[Path, DigitClient, bytes], data: st.DataObject) -> None:
    folder, client, whole = small
    manifest = Manifest.load(folder)
    path, content = folder / manifest.shards[0].file, bytearray(whole)
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert problem_of(folder, manifest.shards[0]) is not None
    with contextlib.suppress(DataError):  # some bytes do not matter
        compare(client, folder, manifest, manifest.shards[0])


def test_shards_to_regenerate_are_evenly_spread() -> None:
    shards = Plan(n=1000, seed=0, rows_per_shard=10).shards()
    assert [shards.index(shard) for shard in spread(shards, 4)] == [0, 33, 66, 99]
    assert spread(shards, 1) == shards[:1]
    assert spread(shards, 1000) == shards
