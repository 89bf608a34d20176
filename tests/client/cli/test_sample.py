"""The command `digitforge sample`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import one_line, run, start
from PIL import Image

from digitforge_client.datasets.readers import read


def sample(server: Any, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run("sample", "--server", server if isinstance(server, str) else server.target, *arguments)


def test_label_selects_one_class(server: Any, tmp_path: Path, formula: Any) -> None:
    out = tmp_path / "sevens.npz"
    result = sample(server, "--n", "3000", "--label", "7", "--seed", "5", "--out", out)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"3000 images of generator {server.generator_id} (seed 5, rows 0 to 2999)" in result.stdout
    with np.load(out) as archive:
        assert archive["x"].shape == (3000, 28, 28)
        assert set(archive["y"].tolist()) == {7}
        np.testing.assert_array_equal(archive["x"], formula(archive["y"], archive["seeds"])[..., 0])
        assert str(archive["generator_id"]) == server.generator_id


def test_several_outputs_have_the_same_digits_and_json_describes_them(server: Any, tmp_path: Path) -> None:
    archive, picture = tmp_path / "d.npz", tmp_path / "d.png"
    result = sample(server, "--n", "20", "--out", archive, "--out", picture, "--start", "40", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["n"], report["start"], report["generator_id"]) == (20, 40, server.generator_id)
    assert report["files"] == [str(archive), str(picture)]
    assert report["classes"] == {str(digit): 2 for digit in range(10)}
    with np.load(archive) as written:
        np.testing.assert_array_equal(np.asarray(Image.open(picture))[:28, :28], written["x"][0])
        assert written["seeds"][0] == report["seed"] * 2**32 + 40


def test_labels_name_one_class_for_each_digit(server: Any, tmp_path: Path) -> None:
    result = sample(server, "--labels", "3,1,4, 1,5", "--out", tmp_path / "pi.npz")
    assert result.returncode == 0, result.stderr
    with np.load(tmp_path / "pi.npz") as archive:
        assert archive["y"].tolist() == [3, 1, 4, 1, 5]


def test_a_class_may_be_named_or_numbered(server: Any, tmp_path: Path) -> None:
    server.class_names = ("T-shirt/top", "Trouser")
    for label in ("Trouser", "1"):
        result = sample(server, "--n", "4", "--label", label, "--out", tmp_path / "d.npz", "--json")
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["classes"] == {"Trouser": 4}
    assert "0 (T-shirt/top), 1 (Trouser)" in one_line(
        sample(server, "--n", "4", "--label", "Hat", "--out", tmp_path / "d.npz")
    )


def test_a_pipe_gets_arrays_without_messages(server: Any, formula: Any) -> None:
    words = [sys.executable, "-m", "digitforge", "sample", "--server", server.target]
    words += ["--n", "1500", "--seed", "1", "--out", "-"]
    result = subprocess.run(words, capture_output=True, check=True, timeout=120)
    assert b"1500 images" in result.stderr
    pipe = io.BytesIO(result.stdout)
    images, labels = np.load(pipe), np.load(pipe)
    np.testing.assert_array_equal(images, formula(labels, 2**32 + np.arange(1500))[..., 0])


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_a_reader_that_ends_early_gets_no_message(server: Any, form: str) -> None:
    words = [sys.executable, "-m", "digitforge", "sample", "--server", server.target]
    words += ["--n", "20000", "--out", "-", "--format", form]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(2)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_folder_of_idx_files(server: Any, tmp_path: Path) -> None:
    result = sample(server, "--n", "50", "--out", tmp_path / "synthetic", "--format", "idx")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "synthetic" / "train-images-idx3-ubyte").stat().st_size == 16 + 50 * 784


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--n", "5", "--label", "eleven"], "no class 'eleven'"),
        (["--n", "5", "--label", "12"], "no class 12"),
        (["--n", "10000000"], "at most 1000000"),
        (["--n", "0"], "nothing to write"),
        (["--n", "-1"], "n is -1"),
        (["--n", "5", "--seed", "3000000"], "seed is 3000000"),
        (["--n", "5", "--start", "-2"], "start is -2"),
        (["--n", "5", "--labels", "1,2"], "leave n out"),
        ([], "number of images is missing"),
        (["--labels", "1,2", "--label", "3"], "were both given"),
    ],
)
def test_invalid_input_gives_one_line_and_status_2(
    server: Any, tmp_path: Path, arguments: list[str], says: str
) -> None:
    result = sample(server, *arguments, "--out", tmp_path / "d.npz")
    assert says in one_line(result)
    assert result.returncode == 2
    assert list(tmp_path.iterdir()) == []
    assert server.requests == []


def test_an_unwritable_path_is_an_error_before_any_request(server: Any, tmp_path: Path) -> None:
    result = sample(server, "--n", "5", "--out", tmp_path / "missing" / "d.npz")
    assert "cannot write" in one_line(result)
    assert result.returncode == 4
    assert "ends in .npz" in one_line(sample(server, "--n", "5", "--out", tmp_path / "d.jpg"))
    assert server.calls == 0


def test_a_missing_server_gives_one_line_and_status_3(tmp_path: Path) -> None:
    result = sample("127.0.0.1:1", "--n", "5", "--out", tmp_path / "d.npz")
    assert "127.0.0.1:1" in one_line(result)
    assert "digitforge serve" in result.stderr
    assert result.returncode == 3
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_gives_status_3(server: Any, tmp_path: Path) -> None:
    result = sample(server, "--n", "5", "--model-name", "letters", "--out", tmp_path / "d.npz")
    assert "no model 'letters'" in one_line(result)
    assert result.returncode == 3


def test_an_unconditional_generator_gives_digits_but_accepts_no_label(server: Any, tmp_path: Path) -> None:
    server.class_names = ()
    result = sample(server, "--n", "5", "--out", tmp_path / "d.npz", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["classes"] == {}
    assert "unconditional" in one_line(sample(server, "--n", "5", "--label", "1", "--out", tmp_path / "e.npz"))


def test_ctrl_c_ends_with_130_and_leaves_nothing(server: Any, tmp_path: Path) -> None:
    server.delay_s = 0.2
    with start("sample", "--server", server.target, "--n", "100000", "--out", tmp_path / "d.npz") as process:
        while len(server.requests) < 6:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.strip() == "digitforge: interrupted"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "form"), [("d.npz", "npz"), ("d", "idx")])
def test_the_same_command_removes_what_a_killed_one_left(server: Any, tmp_path: Path, name: str, form: str) -> None:
    arguments = ["sample", "--server", server.target, "--out", tmp_path / name, "--format", form]
    server.delay_s = 0.2
    with start(*arguments, "--n", "100000") as process:
        while len(server.requests) < 2:
            time.sleep(0.02)
        process.kill()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f".{name}.")
    server.delay_s = 0
    result = run(*arguments, "--n", "50")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no terminals")
def test_a_terminal_shows_a_progress_bar_and_the_result_stays_clean(server: Any, tmp_path: Path) -> None:
    server.delay_s = 0.3
    terminal, end = os.openpty()
    command = [sys.executable, "-m", "digitforge", "sample", "--server", server.target]
    command += ["--n", "3000", "--out", str(tmp_path / "d.npz"), "--json"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end, text=True, env=environment) as process:
        os.close(end)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal closes with the command
            while data := os.read(terminal, 65536):
                shown += data
        stdout, _ = process.communicate(timeout=60)
    os.close(terminal)
    assert process.returncode == 0
    assert json.loads(stdout)["n"] == 3000
    assert b"1024/3000" in shown


def test_standard_output_may_have_a_file_name(server: Any, tmp_path: Path) -> None:
    out, named = tmp_path / "d.npz", tmp_path / "stdout"
    named.symlink_to("/dev/fd/1")  # like /dev/stdout, which a test must not put at risk
    arguments = ["--n", "50", "--seed", "1", "--format", "npz", "--out", str(named)]
    command = [sys.executable, "-m", "digitforge", "sample", "--server", server.target]
    for mode in ("wb", "ab"):  # > d.npz, >> d.npz
        with out.open(mode) as file:
            result = subprocess.run([*command, *arguments], stdout=file, stderr=subprocess.PIPE, check=False)
        assert result.returncode == 0, result.stderr
        assert b"50 images" in result.stderr
        with np.load(out) as archive:
            assert archive["y"].tolist() == [row % 10 for row in range(50)]
        out.write_bytes(b"")
    assert named.is_symlink()
    piped = subprocess.run([*command, *arguments], capture_output=True, check=True)
    with np.load(io.BytesIO(piped.stdout)) as archive:
        assert len(archive["y"]) == 50


def test_process_substitution_of_a_shell_can_read_the_output(server: Any) -> None:
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "digitforge", "sample", "--server", server.target]
    command += ["--n", "50", "--out", f"/dev/fd/{write_end}", "--format", "npz"]  # >(…) in bash
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=[write_end]) as process:
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe, np.load(io.BytesIO(pipe.read())) as archive:
            assert len(archive["y"]) == 50
        assert "50 images" in process.communicate(timeout=60)[0]
    assert process.returncode == 0


def _run_in_a_terminal(server: Any, *arguments: str | Path) -> tuple[int, bytes, bytes]:
    """Run `sample` with a terminal as its standard output. Return the status, that output, and standard error."""
    terminal, end = os.openpty()
    command = [sys.executable, "-m", "digitforge", "sample", "--server", server.target, *map(str, arguments)]
    with subprocess.Popen(command, stdout=end, stderr=subprocess.PIPE) as process:
        _, stderr = process.communicate(timeout=60)
    os.set_blocking(terminal, False)
    shown = b""
    with contextlib.suppress(BlockingIOError):
        shown = os.read(terminal, 65536)
    os.close(end)
    os.close(terminal)
    return process.returncode, shown, stderr


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no terminals")
@pytest.mark.parametrize(
    ("out", "form"),
    [
        *(("-", form) for form in ("npy", "npz", "png", "tfrecord", "parquet")),
        ("/dev/stdout", "npz"),
        ("/proc/self/fd/1", "npy"),
    ],
)
def test_digits_are_never_written_to_a_terminal(server: Any, form: str, out: str) -> None:
    status, shown, stderr = _run_in_a_terminal(server, "--n", "5", "--out", out, "--format", form)
    assert (status, shown) == (2, b"")
    assert b"is a terminal" in stderr
    assert server.requests == []


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no terminals")
def test_a_file_and_a_terminal_for_the_report(server: Any, tmp_path: Path) -> None:
    status, shown, stderr = _run_in_a_terminal(server, "--n", "5", "--out", tmp_path / "d.npz")
    assert (status, stderr) == (0, b"")
    assert shown.startswith(b"5 images")


@pytest.mark.parametrize("form", ["npz", "png", "tfrecord", "parquet"])
def test_standard_output_takes_every_format_that_is_a_file(server: Any, tmp_path: Path, form: str) -> None:
    sample(server, "--n", "5", "--seed", "1", "--out", tmp_path / "d", "--format", form)
    command = [sys.executable, "-m", "digitforge", "sample", "--server", server.target, "--n", "5", "--seed", "1"]
    piped = subprocess.run([*command, "--out", "-", "--format", form], capture_output=True, check=True, cwd=tmp_path)
    (tmp_path / "piped").write_bytes(piped.stdout)
    if form == "png":
        assert piped.stdout == (tmp_path / "d").read_bytes()
    else:
        one, other = (read(tmp_path / name, form) for name in ("d", "piped"))
        np.testing.assert_array_equal(one.images, other.images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "piped"]


@pytest.mark.parametrize("form", ["idx", "files"])
def test_a_folder_does_not_fit_into_standard_output(server: Any, form: str) -> None:
    result = sample(server, "--n", "5", "--out", "-", "--format", form)
    assert "makes a folder" in one_line(result)
    assert result.returncode == 2
    assert not Path("-").exists()


@pytest.mark.parametrize("outs", [("d.npz", "d.npz"), ("d.npz", "../{}/d.npz"), ("d.npz", "link.npz"), ("-", "-")])
def test_two_outputs_at_one_place_are_an_error(server: Any, tmp_path: Path, outs: tuple[str, str]) -> None:
    (tmp_path / "link.npz").symlink_to("d.npz")
    first, second = (out if out == "-" else tmp_path / out.format(tmp_path.name) for out in outs)
    result = sample(server, "--n", "5", "--out", first, "--out", second)
    assert "more than once" in one_line(result)
    assert result.returncode == 2


def test_the_help_says_that_an_existing_file_is_replaced(server: Any, tmp_path: Path) -> None:
    assert "existing file is replaced" in " ".join(run("sample", "--help").stdout.split())
    for n in ("5", "7"):
        sample(server, "--n", n, "--out", tmp_path / "d.npz")
        with np.load(tmp_path / "d.npz") as archive:
            assert len(archive["y"]) == int(n)
