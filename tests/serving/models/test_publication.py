"""`digitforge models`, with and without a running server."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from serving_toys import connect, wait_for

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_serving import EmbeddedServer
from digitforge_serving.cli.models import models
from digitforge_serving.models import publication


def numbers(base_path: Path) -> list[int]:
    return [info.version for info in publication.versions(base_path)]


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(models, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def test_promote_rollback_and_remove_change_what_a_running_server_answers(base_path: Path, other_version: Path) -> None:
    with EmbeddedServer(base_path, model_name="toy", file_system_poll_wait_seconds=0.1) as target:
        stubs = connect(target)
        assert stubs.sums() == [4.0, 6.0]
        assert run("promote", other_version, "--to", base_path) == str(base_path / "2")
        wait_for(lambda: stubs.sums() == [104.0, 106.0])
        assert run("rollback", base_path) == str(base_path / "1")
        wait_for(lambda: stubs.sums() == [4.0, 6.0])
        assert run("promote", base_path / ".2.withdrawn", "--to", base_path) == str(base_path / "2")
        wait_for(lambda: stubs.sums() == [104.0, 106.0])
        run("remove", "1", "--from", base_path)
        assert numbers(base_path) == [2]
        assert stubs.sums() == [104.0, 106.0]


def test_list_shows_versions_highest_first_and_marks_incomplete_ones(base_path: Path, other_version: Path) -> None:
    shutil.copytree(other_version, base_path / "10")
    (base_path / "10" / "saved_model.pb").unlink()
    (base_path / ".11.tmp").mkdir()
    listed = json.loads(run("list", base_path, "--json"))
    assert [(row["version"], row["complete"]) for row in listed] == [(10, False), (1, True)]
    assert listed[1]["bytes"] == sum(file.stat().st_size for file in (base_path / "1").rglob("*") if file.is_file())
    assert "no saved_model.pb" in run("list", base_path).splitlines()[0]


def test_a_promotion_that_fails_leaves_nothing_behind(
    base_path: Path, other_version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        publication.promote(other_version, base_path)
    assert [path.name for path in base_path.iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda base: publication.promote(base, base), "has no saved_model.pb"),
        (publication.rollback, "has fewer than two versions"),
        (lambda base: publication.remove(base, 1), "is the only one"),
        (lambda base: publication.remove(base, 7), "has no version 7; it has 1"),
    ],
    ids=["promote no model", "roll back a single version", "remove the last version", "remove an unknown version"],
)
def test_impossible_changes_raise_a_clear_error_and_change_nothing(
    base_path: Path, act: Callable[[Path], object], said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        act(base_path)
    assert numbers(base_path) == [1]


def test_version_folders_with_leading_zeros_work_everywhere(base_path: Path, other_version: Path) -> None:
    shutil.copytree(other_version, base_path / "00000123")
    shutil.copytree(other_version, base_path / "0000007")
    assert [(info.version, info.path.name, info.complete) for info in publication.versions(base_path)] == [
        (123, "00000123", True),
        (7, "0000007", True),
        (1, "1", True),
    ]
    assert publication.promote(other_version, base_path).path == base_path / "124"
    assert publication.rollback(base_path).path == base_path / "00000123"
    assert publication.rollback(base_path).path == base_path / "0000007"
    assert run("remove", "7", "--from", base_path) == ""
    assert sorted(path.name for path in base_path.iterdir()) == [".123.withdrawn", ".124.withdrawn", "1"]


@pytest.mark.parametrize("act", [publication.rollback, lambda base: publication.remove(base, 5)])
def test_a_version_with_two_folders_is_neither_rolled_back_nor_removed(
    base_path: Path, other_version: Path, act: Callable[[Path], object]
) -> None:
    for name in ("5", "005"):
        shutil.copytree(other_version, base_path / name)
    with pytest.raises(InvalidInputError, match=r"version 5 of .* has 2 folders: 005, 5\. Servers use only the last"):
        act(base_path)
    assert numbers(base_path) == [5, 1]
    assert publication.versions(base_path)[0].path.name == "5"


def test_rollback_refuses_to_go_back_to_an_incomplete_version(base_path: Path) -> None:
    (base_path / "2").mkdir()
    shutil.move(base_path / "1" / "saved_model.pb", base_path / "2" / "saved_model.pb")
    with pytest.raises(InvalidInputError, match="so it cannot replace"):
        publication.rollback(base_path)
    assert numbers(base_path) == [2, 1]


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        publication.versions(tmp_path / "nowhere")
