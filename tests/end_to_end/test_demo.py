"""Tests of ``digitforge demo`` with a real server process, real digits and a real report."""

from __future__ import annotations

import json
import os
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
#: Computing times do not depend on the number of cores.
ONE_THREAD = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")
#: Ctrl-C ends the demo within this time, if cores are free.
LIMIT_S = 3.0
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


def _computing_s(process: subprocess.Popen[str]) -> float:
    """Computing time of a process so far, in all its threads."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _has_ended(process: subprocess.Popen[str]) -> bool:
    """Whether a process has ended. Its state in /proc stays until somebody waits for it."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


#: Part of the line of a stage => whether the metrics are printed before.
STAGES = {
    "loading real digits": False,
    "starting the embedded server": False,
    "reading reference statistics": False,
    "requesting": False,
    "measuring images": False,
    "comparing": False,
    "training classifiers with": True,
    "writing the report": True,
}
FAST = [(signal.SIGINT, "training classifiers with"), (signal.SIGTERM, "requesting"), (signal.SIGKILL, "requesting")]


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize(
    ("number", "stage"),
    [*FAST, *(pytest.param(signal.SIGINT, stage, marks=pytest.mark.slow) for stage in STAGES if stage != FAST[0][1])],
)
def test_an_interrupt_stops_the_server_too_and_leaves_no_report(
    number: signal.Signals, stage: str, exported_model: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    demo = subprocess.Popen(
        [*COMMAND, "--model", str(exported_model), *SMALL, "--out", "here"],
        cwd=tmp_path,
        env=environment | ONE_THREAD | {"TMPDIR": str(tmp_path / "temporary")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert demo.stderr is not None
        target = ""
        for line in demo.stderr:
            if found := re.search(r"from (127\.0\.0\.1:\d+)", line):
                target = found[1]
            if stage in line:
                break
        else:
            pytest.fail("the demo ended before the stage began")
        assert not target or _listens(target)
        before_s = _computing_s(demo)
        os.killpg(demo.pid, number)  # as a terminal does
        while not _has_ended(demo):
            time.sleep(0.01)
        computing_s = _computing_s(demo) - before_s
        stdout, stderr = demo.communicate(timeout=120)
    finally:
        demo.kill()
    if number == signal.SIGKILL:
        assert demo.returncode == -number
        while _listens(target):  # the server notices it within a second
            time.sleep(0.1)
        return
    assert demo.returncode == 128 + number, stderr
    assert computing_s < LIMIT_S  # the waiting time on a machine with free cores
    stdout = re.sub(r"\s+", " ", stdout)
    # each result is printed when it is there
    assert ("was trained on" in stdout) == (list(STAGES).index(stage) >= 2)
    assert ("How good are they?" in stdout) == STAGES[stage]
    assert ("Do they help" in stdout) == (stage == "writing the report")
    assert stderr.endswith(STOPPED)
    assert "Traceback" not in stderr
    assert not target or not _listens(target)
    assert list((tmp_path / "here").iterdir()) == []
    assert list((tmp_path / "temporary").iterdir()) == []


#: Runs the demo, and measures the longest time in which a signal could not end it. It is computing time, because a busy
#: machine makes everything else longer.
PROBE = """
import _thread, signal, sys, threading, time, traceback
from digitforge_client.common.command import main

longest, before = (0.0, ""), time.process_time()

def handle(_number, frame):
    global longest, before
    waited = time.process_time() - before
    if waited > longest[0]:
        longest = waited, "".join(traceback.format_stack(frame)[-5:])
    before = time.process_time()

def send():
    while True:
        time.sleep(0.05)
        _thread.interrupt_main(signal.SIGUSR1)

signal.signal(signal.SIGUSR1, handle)
threading.Thread(target=send, daemon=True).start()
try:
    main()
finally:
    print(f"longest: {longest[0]} s\\n{longest[1]}", file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_stage_of_the_demo_keeps_ctrl_c_waiting(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "demo", "--subsets", "1", "--out", "here"],
        cwd=tmp_path,
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, _, longest = done.stderr.rpartition("longest: ")
    print(longest)
    assert float(longest.partition(" ")[0]) < LIMIT_S, longest


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
