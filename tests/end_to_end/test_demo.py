"""Tests of ``digitforge demo`` with a real server process, real digits and a real report."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import commands
import pytest

COMMAND = [sys.executable, "-m", "digitforge", "demo"]
STOPPED = "\nstopped; nothing is kept, and the same command starts over\n\ndigitforge: interrupted\n"
SMALL = ["--n", "1000", "--subsets", "2", "--steps", "20"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment without MNIST: no folder, an empty cache, and no reachable mirror."""
    return {
        **{name: value for name, value in os.environ.items() if name != "DIGITFORGE_DATA_DIR"},
        "DIGITFORGE_CACHE_DIR": str(tmp_path / "cache"),
        "DIGITFORGE_MIRRORS": "http://127.0.0.1:9/",
        "COLUMNS": "60",
    }


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Restores SIGINT for child processes. A shell that runs tests in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def _here(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare this process to run the command. A new process for each refusal takes seconds."""
    monkeypatch.delenv("DIGITFORGE_DATA_DIR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


def _refused(*arguments: object) -> subprocess.CompletedProcess[str]:
    return commands.run("demo", *SMALL, *arguments, "--out", "here")


def _listens(target: str) -> bool:
    host, port = target.split(":")
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, int(port))) == 0


def test_the_demo_runs_without_mnist_and_says_so(
    exported_model: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [*COMMAND, *SMALL, "--model", str(exported_model), "--out", "here"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    printed = re.sub(r"\s+", " ", done.stdout)
    assert "MNIST is not available, so the real images are scikit-learn's 1 797 digits" in printed
    assert "1000 labeled digits over gRPC in" in printed
    assert re.search(r"fd\[digitnet-64\]@1k (generated )?\d", printed)
    assert "Do they help a classifier with 100 real images of digits?" in printed
    assert re.search(
        r"classical\+gan \(oracle\) (10 real per class )?\d\d?\.\d\d % ", printed
    )  # the tiny generator saw the digits
    assert "With 10 real images per class (100 in total), adding images from an oracle generator" in printed
    assert "a verdict needs at least 10 subsets" in printed
    assert "\x1b" not in done.stdout
    assert f"Report: {tmp_path / 'here' / 'report.html'}" in done.stdout

    out = tmp_path / "here"
    names = {path.name for path in out.iterdir()}
    assert {"report.html", "report.json", "results.jsonl", "accuracy.svg"} <= names
    assert all(name.endswith(".svg") for name in names - {"report.html", "report.json", "results.jsonl"})
    page = (out / "report.html").read_text("utf-8")
    assert not re.search(r"""(src|href)=["']?https?:|url\(["']?https?:|<script|<link""", page)
    assert "MNIST is not available" in page
    report = json.loads((out / "report.json").read_text())
    assert report["cells"] == 8
    assert report["quality"][0]["name"] == "fd[digitnet-64]@1k"
    assert report["quality"][0]["training_floor"]["mean"] > 0  # the floor, from the shipped statistics
    assert len((out / "results.jsonl").read_text().splitlines()) == 9

    target = re.search(r"from (127\.0\.0\.1:\d+)", done.stderr)
    assert target is not None
    assert not _listens(target[1])


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize(
    ("number", "stage"),
    [(signal.SIGINT, "training classifiers with"), (signal.SIGTERM, "requesting"), (signal.SIGKILL, "requesting")],
)
def test_an_interrupt_stops_the_server_too_and_leaves_no_report(
    number: signal.Signals, stage: str, exported_model: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    demo = subprocess.Popen(
        [*COMMAND, "--model", str(exported_model), "--n", "1000", "--out", "here"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert demo.stderr is not None
        target = ""
        for line in demo.stderr:
            if found := re.search(r"from (127\.0\.0\.1:\d+)", line):
                target = found[1]
            if stage in line:
                break
        assert target
        assert _listens(target)
        demo.send_signal(number)
        stdout, stderr = demo.communicate(timeout=120)
    finally:
        demo.kill()
    if number == signal.SIGKILL:
        assert demo.returncode == -number
        while _listens(target):  # the server notices it within a second
            time.sleep(0.1)
        return
    assert demo.returncode == 128 + number, stderr
    stdout = re.sub(r"\s+", " ", stdout)
    assert "was trained on" in stdout  # each result is printed when it is there
    assert ("How good are they?" in stdout) == (stage == "training classifiers with")
    assert "Do they help" not in stdout
    assert stderr.endswith(STOPPED)
    assert "Traceback" not in stderr
    assert not _listens(target)
    assert list((tmp_path / "here").iterdir()) == []


def _cpu_s(process: subprocess.Popen[str]) -> tuple[float, bool]:
    """Seconds of computing so far, in all threads, and whether the process has ended. Its children do not count."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), fields[0] == "Z"


@contextlib.contextmanager
def _started(folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start the demo at its default size as a terminal does, with one experiment of a minute."""
    (folder / "tmp").mkdir(parents=True)
    one_thread = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")
    demo = subprocess.Popen(
        [*COMMAND, "--subsets", "1", "--out", "here"],
        cwd=folder,
        env=environment | one_thread | {"TMPDIR": str(folder / "tmp")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield demo
    finally:
        demo.kill()
        demo.wait()


def _stages(demo: subprocess.Popen[str]) -> Iterator[str]:
    assert demo.stderr is not None
    for line in demo.stderr:
        if line.endswith(" …\n"):
            yield re.sub(r"[0-9.:]+", "N", line.removesuffix(" …\n"))


#: After Ctrl-C, the demo may compute this long.
LIMIT_S = 3.0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads computing times in /proc")
@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_ends_the_demo_soon_in_every_stage(tmp_path: Path) -> None:
    environment = dict(os.environ)
    began_cpu_s: dict[str, float] = {}
    with _started(tmp_path / "whole", environment) as demo:
        for stage in _stages(demo):
            began_cpu_s[stage] = _cpu_s(demo)[0]
        assert demo.wait() == 0
    moments, stages = random.Random(0), list(began_cpu_s)
    for stage, following in zip(stages, [*stages[1:], ""], strict=True):
        computing_s = began_cpu_s.get(following, began_cpu_s[stage]) - began_cpu_s[stage]
        folder = tmp_path / f"{stages.index(stage)}"
        with _started(folder, environment) as demo:
            assert stage in _stages(demo)  # waits for it
            began_s = _cpu_s(demo)[0]
            moment_s = moments.uniform(0, 0.9 * computing_s)
            waited = time.monotonic()
            while _cpu_s(demo)[0] - began_s < moment_s and time.monotonic() - waited < computing_s:
                time.sleep(0.01)
            before_s, ended = _cpu_s(demo)
            assert not ended
            interrupted = time.monotonic()
            os.killpg(demo.pid, signal.SIGINT)
            while not (status := _cpu_s(demo))[1]:
                time.sleep(0.01)
            assert demo.stderr is not None
            errors = demo.stderr.read()
            ending_s, computed_s = time.monotonic() - interrupted, status[0] - before_s
            print(f"{stage}: {ending_s:.1f} s, computing {computed_s:.1f} s")
            assert demo.wait() == 130
            assert computed_s < LIMIT_S, stage
            assert ending_s < 2 * LIMIT_S * max(1, os.getloadavg()[0]), stage  # a busy machine gives it less time
            assert "Traceback" not in errors
            assert errors.endswith(STOPPED)
            assert not list((folder / "here").iterdir())
            assert not list((folder / "tmp").iterdir())


@pytest.mark.usefixtures("_here")
def test_a_server_that_does_not_start_is_reported_with_its_output(tmp_path: Path) -> None:
    (tmp_path / "damaged" / "1").mkdir(parents=True)
    (tmp_path / "damaged" / "1" / "saved_model.pb").write_bytes(b"not a model")
    done = _refused("--model", tmp_path / "damaged")
    assert done.returncode == 3
    assert "the embedded server did not start: it ended with exit status" in done.stderr
    assert "damaged" in done.stderr.partition("It wrote:")[2]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("folder", ["empty", "nowhere"])
def test_a_folder_without_a_generator_is_refused_without_waiting(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    done = _refused("--model", folder)
    assert done.returncode == 4
    assert f"{folder}: no generator here" in done.stderr
    assert done.stdout == ""


def test_a_folder_that_cannot_be_written_is_refused_first(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [*COMMAND, *SMALL, "--out", "file/folder"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 4
    assert "choose another folder" in done.stderr
    assert "starting the embedded server" not in done.stderr


@pytest.mark.usefixtures("_here")
def test_a_given_data_folder_must_hold_mnist(tmp_path: Path) -> None:
    done = _refused("--data-dir", tmp_path)
    assert done.returncode == 4
    assert str(tmp_path) in done.stderr
