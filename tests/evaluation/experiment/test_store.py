"""Tests of the store: no result is lost or repeated, whatever happens to the writer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.experiment.arms import Arm
from digitforge_evaluation.experiment.store import CellKey, CellResult, open_store, read_store

IDENTITY = {"seed": 0, "data": {"name": "digits"}, "sizes": [1, 2]}

UNKNOWN_ARM = b"""{"kind":"store","version":2,"identity":{},"about":{}}
{"key":{"n_per_class":1,"subset":0,"arm":"flipped"},"accuracy":1,"confusion":[[1]],"seconds":1,"generated":[]}
"""

WRITER = """
import sys
from pathlib import Path
from digitforge_evaluation.experiment.arms import Arm
from digitforge_evaluation.experiment.store import CellKey, CellResult, open_store
with open_store(Path(sys.argv[1]), identity={"seed": 0}, about={}) as store:
    for subset in range(100_000):
        key = CellKey(n_per_class=10, subset=subset, arm=Arm(name="real"))
        if key not in store.cells:
            store.append(CellResult(key=key, accuracy=subset / 1e5, confusion=((1, 2), (3, 4)), seconds=0.1))
            print(subset, flush=True)
"""


def _result(subset: int, arm: str = "real") -> CellResult:
    key = CellKey(n_per_class=10, subset=subset, arm=Arm.parse(arm))
    note = ({"generator_id": "ab", "seed": 3, "n": 5},) if "gan" in arm else ()
    return CellResult(key=key, accuracy=0.5, confusion=((3, 1), (2, 4)), seconds=1.5, generated=note)


def test_stored_results_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    results = [_result(0), _result(1), _result(0, "gan (oracle)")]
    with open_store(path, identity=IDENTITY, about={"command": "x"}) as store:
        for result in results:
            store.append(result)
    contents = read_store(path)
    assert list(contents.cells.values()) == results
    assert contents.identity == IDENTITY
    assert contents.about == {"command": "x"}


def test_a_killed_writer_loses_no_cell_and_repeats_none(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    reported: list[int] = []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        reported += [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        reported += [int(line) for line in process.communicate()[0].splitlines() if line]
    stored = [key.subset for key in read_store(path).cells]
    assert stored == list(range(len(stored)))
    assert reported == sorted(set(reported))
    assert set(reported) <= set(stored)
    assert len(stored) - len(reported) <= 3  # each of three writers may be killed between storing and printing


@given(cut=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_file_cut_off_anywhere_keeps_its_complete_lines_and_can_be_continued(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("torn") / "results.jsonl"
    with open_store(path, identity=IDENTITY, about={}) as store:
        for subset in range(5):
            store.append(_result(subset))
    content = path.read_bytes()
    cut = cut % (len(content) + 1)
    path.write_bytes(content[:cut])
    whole = max(content[:cut].count(b"\n") - 1, 0)
    with open_store(path, identity=IDENTITY, about={}) as store:
        assert len(store.cells) == whole
        for subset in range(whole, 5):
            store.append(_result(subset))
    assert [key.subset for key in read_store(path).cells] == [0, 1, 2, 3, 4]


def test_a_cell_is_stored_once(tmp_path: Path) -> None:
    with open_store(tmp_path / "r.jsonl", identity=IDENTITY, about={}) as store:
        store.append(_result(0))
        with pytest.raises(InvalidInputError, match="already"):
            store.append(_result(0))
    assert len(read_store(tmp_path / "r.jsonl").cells) == 1


def test_a_repeated_line_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with open_store(path, identity=IDENTITY, about={}) as store:
        store.append(_result(0))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[-1]]))
    with pytest.raises(DataError, match="line 3 repeats"):
        read_store(path)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with (
        open_store(path, identity=IDENTITY, about={}),
        pytest.raises(DataError, match="another process"),
        open_store(path, identity=IDENTITY, about={}),
    ):
        pass


def test_an_experiment_with_another_identity_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with open_store(path, identity=IDENTITY, about={}):
        pass
    with (
        pytest.raises(InvalidInputError, match="its seed is 0, but yours is 1"),
        open_store(path, identity={**IDENTITY, "seed": 1}, about={}),
    ):
        pass
    with open_store(path, identity={**IDENTITY, "sizes": (1, 2)}, about={"command": "another"}):
        pass  # JSON turns a tuple into a list, and `about` is not compared


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"kind":"store","version":99,"identity":{},"about":{}}\n', "version 99"),
        (b'{"images":3}\n', "not a results file"),
        (b"not json\n", "line 1 is damaged"),
        (b'{"kind":"store","version":2,"identity":{},"about":{}}\n{"kind":"cell"}\n', "line 2 is not a finished cell"),
        (b'{"kind":"store","version":2,"identity":{},"about":{}}\n[1]\n', "line 2 is not a JSON object"),
        (UNKNOWN_ARM, "line 2 is not a finished cell .*unknown arm 'flipped'"),
        (b"", "empty"),
    ],
)
def test_other_files_are_refused_with_the_reason(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_store(path)
    if content:
        with pytest.raises(DataError, match=message), open_store(path, identity={}, about={}):
            pass
        assert path.read_bytes() == content


def test_a_missing_file_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="digitforge experiment run"):
        read_store(tmp_path / "none.jsonl")


def test_every_line_is_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with open_store(path, identity=IDENTITY, about={}) as store:
        store.append(_result(0))
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == ["store", "cell"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_reported_and_finished_cells_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with open_store(path, identity=IDENTITY, about={}) as store:
        store.append(_result(0))
        full = os.open("/dev/full", os.O_WRONLY)
        kept, store._descriptor = store._descriptor, full
        with pytest.raises(DataError, match="free some disk space"):
            store.append(_result(1))
        store._descriptor = kept
        os.close(full)
        store.append(_result(1))
    assert len(read_store(path).cells) == 2


def test_results_can_be_read_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        counts = []
        for _ in range(20):
            counts.append(len(read_store(path).cells))
            process.stdout.readline()  # at least one more cell is stored
        assert counts == sorted(counts)
        assert all(count >= printed for printed, count in enumerate(counts, start=1))
    finally:
        process.kill()
        process.communicate()
