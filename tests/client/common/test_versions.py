"""The versions of a model: parsed as in TensorFlow Serving, published atomically."""

from __future__ import annotations

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
    (tmp_path / ".124.tmp").mkdir()  # left by a killed process
    published = publish(tmp_path, write)
    assert published == tmp_path / "124"
    assert (published / "variables" / "data").read_bytes() == b"weights"
    assert not (tmp_path / ".124.tmp").exists()


def test_the_first_version_after_negative_numbers_is_1(tmp_path: Path) -> None:
    (tmp_path / "-7").mkdir()
    assert publish(tmp_path, write) == tmp_path / "1"


def test_nothing_follows_the_highest_version(tmp_path: Path) -> None:
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(DataError, match="so there is no next version"):
        publish(tmp_path, write)


def test_the_base_path_is_created(tmp_path: Path) -> None:
    assert publish(tmp_path / "models" / "digits", write) == tmp_path / "models" / "digits" / "1"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_publication_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise error

    with pytest.raises(type(error)):
        publish(tmp_path, fail)
    assert list(tmp_path.iterdir()) == []
