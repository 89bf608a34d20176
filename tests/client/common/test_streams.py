"""The command with standard streams that are closed, full, or without UTF-8."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digitforge_client.common.command import LazyGroup, digitforge

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


def shell(
    *arguments: object, streams: str = "", encoding: str = "utf-8", cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `digitforge ARGUMENTS` with the shell's redirections *streams*."""
    words = shlex.join([sys.executable, "-m", "digitforge", *map(str, arguments)])
    return subprocess.run(
        ["sh", "-c", f"{words} {streams}"],
        env=os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "100"},
        capture_output=True,
        check=False,
        timeout=120,
        cwd=cwd,
    )


@pytest.mark.parametrize("streams", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_file_is_written_whatever_the_other_streams_are(server: Any, tmp_path: Path, streams: str) -> None:
    out = tmp_path / "d.npz"
    done = shell("sample", "--server", server.target, "--n", 50, "--out", out, streams=streams)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (b"50 images" in done.stdout) == (">&-" not in streams.replace("2>&-", ""))
    with np.load(out) as archive:
        assert len(archive["y"]) == 50
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("streams", ["2>&-", "<&- >&- 2>&-"])
def test_worker_processes_write_files_whatever_the_streams_are(server: Any, tmp_path: Path, streams: str) -> None:
    arguments = ["generate", tmp_path / "d", "--server", server.target, "--n", 40, "--rows-per-shard", 10, "--jobs", 2]
    done = shell(*arguments, streams=streams)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(list((tmp_path / "d").glob("shard-*.npz"))) == 4
    assert shell("verify", tmp_path / "d").returncode == 0


def test_an_error_keeps_its_status_if_nobody_can_read_it(tmp_path: Path) -> None:
    for streams in ("2>&-", "2>/dev/full"):
        done = shell("sample", "--out", tmp_path / "d.npz", streams=streams)
        assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


@pytest.mark.parametrize("arguments", [["recipes"], ["recipes", "--json"], ["--help"], ["train", "--help"]])
def test_a_full_standard_output_is_a_single_error(arguments: list[str]) -> None:
    done = shell(*arguments, streams=">/dev/full")
    assert done.returncode == 4
    assert done.stderr.decode().splitlines() == [
        "digitforge: cannot write to standard output: No space left on device; the result is incomplete"
    ]


@pytest.mark.parametrize("out", ["-", "/dev/stdout", "/dev/fd/1"])
def test_digits_for_a_closed_or_full_standard_output_are_a_single_error(server: Any, tmp_path: Path, out: str) -> None:
    arguments = ["sample", "--server", server.target, "--n", 3000, "--out", out, "--format", "npz"]
    closed = shell(*arguments, streams=">&-", cwd=tmp_path)
    assert closed.returncode == 4
    assert b"it is closed" in closed.stderr
    assert server.requests == []
    full = shell(*arguments, streams=">/dev/full", cwd=tmp_path)
    assert full.returncode == 4
    assert b"No space left on device" in full.stderr
    assert (closed.stderr.count(b"\n"), full.stderr.count(b"\n")) == (1, 1)
    assert list(tmp_path.iterdir()) == []


def _commands(group: Any, *path: str) -> list[tuple[str, ...]]:
    found = [path]
    context = Any
    for name in group.list_commands(context) if hasattr(group, "list_commands") else []:
        found += _commands(group.get_command(context, name), *path, name)
    return found


def test_every_help_can_be_written_in_every_encoding() -> None:
    """In one process per encoding: each command has characters such as … in its help."""
    assert isinstance(digitforge, LazyGroup)
    commands = _commands(digitforge)
    assert ("experiment", "run") in commands
    program = f"""
import sys
from digitforge_client.common.command import main
for words in {commands!r}:
    sys.argv[:] = ["digitforge", *words, "--help"]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, words
"""
    for encoding in ("latin-1", "cp1252", "koi8-r", "ascii"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if encoding == "latin-1":
            assert b"CLASS,CLASS,..." in done.stdout


def test_names_that_an_encoding_lacks_stay_readable_and_json_stays_json(server: Any, tmp_path: Path) -> None:
    server.class_names = ("Größe", "猫")
    for label in ("Größe", "猫"):
        arguments = ["sample", "--server", server.target, "--n", 2, "--label", label, "--json"]
        arguments += ["--out", tmp_path / "1 − 2.npz"]
        done = shell(*arguments, encoding="latin-1")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["classes"] == {label: 2}
        assert json.loads(done.stdout)["files"] == [str(tmp_path / "1 − 2.npz")]
    wrong = shell("sample", "--server", server.target, "--n", 2, "--label", "x", "--out", "d.npz", encoding="latin-1")
    assert "Größe".encode("latin-1") in wrong.stderr
    assert rb"\u732b" in wrong.stderr


def test_a_file_name_that_is_not_utf_8_keeps_its_bytes(server: Any, tmp_path: Path) -> None:
    out = os.fsencode(tmp_path) + b"/d\xff.npz"
    done = shell("sample", "--server", server.target, "--n", 2, "--out", os.fsdecode(out))
    assert done.returncode == 0, done.stderr
    assert out in done.stdout
    assert Path(os.fsdecode(out)).is_file()
