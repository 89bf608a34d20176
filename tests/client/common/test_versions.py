"""The versions of a model: parsed as in TensorFlow Serving, published atomically."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from digitforge_client.common.versions import publish, versions
from digitforge_client.errors import DataError


def write(folder: Path) -> None:
    (folder / "variables").mkdir(parents=True)
    (folder / "variables" / "data").write_bytes(b"weights")


def test_a_new_version_gets_the_next_number_in_any_notation(tmp_path: Path) -> None:
    for name in ("00000123", " 7", "+8", ".200.tmp", "201.tmp", "v9", "9.5"):
        (tmp_path / name).mkdir()
    (tmp_path / "300").touch()  # a file is not a version
    assert {number: [path.name for path in paths] for number, paths in versions(tmp_path).items()} == {
        7: [" 7"],
        8: ["+8"],
        123: ["00000123"],
    }
    (tmp_path / ".version.0a1b2c3d.tmp").mkdir()  # left by a killed process
    published = publish(tmp_path, write)
    assert published == tmp_path / "124"
    assert (published / "variables" / "data").read_bytes() == b"weights"
    assert not (tmp_path / ".version.0a1b2c3d.tmp").exists()


def test_the_first_version_after_negative_numbers_is_1(tmp_path: Path) -> None:
    (tmp_path / "-7").mkdir()
    assert publish(tmp_path, write) == tmp_path / "1"


def test_nothing_follows_the_highest_version(tmp_path: Path) -> None:
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(DataError, match="so there is no next version"):
        publish(tmp_path, write)


def test_the_base_path_is_created(tmp_path: Path) -> None:
    assert publish(tmp_path / "models" / "digits", write) == tmp_path / "models" / "digits" / "1"


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(28, "No space left on device"), DataError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_failed_publication_leaves_nothing(tmp_path: Path, error: BaseException, raised: type[BaseException]) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise error

    with pytest.raises(raised):
        publish(tmp_path, fail)
    assert list(tmp_path.iterdir()) == []


#: Publishes ten versions, each with two files that name this process. The files are written slowly, one after the
#: other, so a folder that two processes share would have a mixed or incomplete content.
PUBLISHER = """
import os, sys, time
from pathlib import Path
from digitforge_client.common.versions import publish

def write(folder):
    for name in ("one", "two"):
        with (folder / name).open("x") as file:
            file.write(f"{os.getpid()} {number}")
        time.sleep(0.005)

print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    print(publish(Path(sys.argv[1]), write).name, flush=True)
"""


def test_processes_that_publish_at_the_same_time_get_versions_of_their_own(tmp_path: Path) -> None:
    base = tmp_path / "digits"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    expected: dict[str, str] = {}
    for process in processes:
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        expected |= {name: f"{process.pid} {number}" for number, name in enumerate(printed.split())}
    assert sorted(expected, key=int) == [str(number) for number in range(1, 41)]
    assert {path.name for path in base.iterdir()} == expected.keys()
    for name, content in expected.items():
        assert {file.name: file.read_text() for file in (base / name).iterdir()} == {"one": content, "two": content}
