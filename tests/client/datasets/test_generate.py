"""Very large data sets: every digit is written once, and finished shards are never lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from commands import one_line, start
from shards import PLAN, assert_whole, finished, names, run

from digitforge_client import DataError, DigitClient, GeneratorChangedError
from digitforge_client.common.extras import install_command
from digitforge_client.contract import ROWS_PER_SEED
from digitforge_client.datasets.generate import generate
from digitforge_client.datasets.manifest import FORMATS, NAME, Manifest
from digitforge_client.datasets.readers import read
from digitforge_client.datasets.verify import compare
from digitforge_client.testing import FakeTransport

pytest.importorskip("joblib")

#: What an interrupted command says.
STOPPED = "stopped; finished shards are kept, and the same command continues"


@pytest.fixture
def client() -> DigitClient:
    return DigitClient(transports=[FakeTransport()])


@pytest.mark.parametrize("form", FORMATS)
def test_shards_of_every_format_hold_the_digits_of_a_sample(tmp_path: Path, client: DigitClient, form: str) -> None:
    pytest.importorskip("pyarrow")
    plan = replace(PLAN, format=form)
    advanced: list[int] = []
    manifest = generate(client, tmp_path / "set", plan, jobs=1, advance=advanced.append)
    whole = client.sample(2500, seed=6, start=70)
    parts = [read(tmp_path / "set" / shard.file, form) for shard in manifest.shards]
    assert [len(part) for part in parts] == [600, 600, 600, 600, 100] == advanced
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
    np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), whole.labels)
    np.testing.assert_array_equal(np.concatenate([part.seeds for part in parts]), whole.seeds)
    assert {part.generator_id for part in parts} == {whole.generator_id}
    assert Manifest.load(tmp_path / "set") == manifest


@pytest.mark.parametrize("scaling", [{"truncation": 0.4}, {"expansion": 1.4}])
def test_class_and_scaling_apply_to_all_shards(tmp_path: Path, client: DigitClient, scaling: dict[str, Any]) -> None:
    manifest = generate(client, tmp_path, replace(PLAN, label=7, **scaling), jobs=1)
    last = read(tmp_path / manifest.shards[-1].file, "npz")
    assert set(last.labels.tolist()) == {7}
    assert last.scaling == scaling
    np.testing.assert_array_equal(last.images, client.sample(100, labels=7, seed=6, start=2470, **scaling).images)
    assert all(compare(client, tmp_path, manifest, shard).tolerable for shard in manifest.shards)


def test_parallel_processes_write_the_same_as_one(server: Any, tmp_path: Path, formula: Any) -> None:
    for jobs in ("1", "2"):
        arguments = ("--n", "5000", "--rows-per-shard", "700", "--seed", "1", "--jobs", jobs, "--json")
        with start("generate", "--server", server.target, tmp_path / jobs, *arguments) as process:
            stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
        report = json.loads(stdout)
        assert (report["n"], report["shards"], report["generator_id"]) == (5000, 8, server.generator_id)
        assert_whole(tmp_path / jobs, Manifest.load(tmp_path / jobs), formula)
    for file in names(tmp_path / "1"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()
    checked = run(server, "verify", tmp_path / "2", "--regenerate", 2)
    assert checked.returncode == 0, checked.stderr
    assert "8 shards with 5000 images match their checksums; 2 of them match" in checked.stdout


def test_a_dask_cluster_writes_the_same_shards(server: Any, tmp_path: Path, scheduler: str, formula: Any) -> None:
    arguments = ("--n", 5000, "--rows-per-shard", 700, "--seed", 1)
    result = run(server, "generate", tmp_path / "set", *arguments, "--scheduler", scheduler)
    assert result.returncode == 0, result.stderr
    assert_whole(tmp_path / "set", Manifest.load(tmp_path / "set"), formula)
    server.failures = [(grpc.StatusCode.INTERNAL, "oops")] * 100
    result = run(server, "generate", tmp_path / "b", *arguments, "--scheduler", scheduler)
    assert (result.returncode, "oops" in one_line(result)) == (3, True)


# --- interruptions


@pytest.fixture
def gate(server: Any) -> Iterator[threading.Event]:
    """An event. Until it is set, the server only answers requests for the first three shards of `begin`."""
    event = threading.Event()

    def hold(request: Any) -> None:
        seeds = np.frombuffer(request.inputs["seeds"].tensor_content, dtype="<i8")
        if seeds[0] % ROWS_PER_SEED >= 1500:
            event.wait(60)

    server.before_answer = hold
    yield event
    event.set()


def begin(server: Any, folder: Path, *arguments: Any) -> subprocess.Popen[str]:
    """Start a command with eight shards, and wait until three shards are finished."""
    words = ("generate", "--server", server.target, folder, "--n", "4000", "--rows-per-shard", "500", "--seed", "2")
    process = start(*words, *map(str, arguments))
    while process.poll() is None:
        if (folder / NAME).exists() and Manifest.load(folder).finished == 3:
            break
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("jobs", [1, 2])
def test_kill_9_loses_no_finished_shard(
    server: Any, gate: threading.Event, tmp_path: Path, formula: Any, jobs: int
) -> None:
    with begin(server, tmp_path / "set", "--jobs", jobs) as process:
        os.killpg(process.pid, signal.SIGKILL)
    gate.set()
    before = finished(tmp_path / "set")
    assert len(before) == 3
    asked = len(server.requests)
    result = run(server, "generate", tmp_path / "set", "--jobs", 1, "--json")  # the manifest has the other options
    assert result.returncode == 0, result.stderr
    assert before.items() <= finished(tmp_path / "set").items()
    assert len(server.requests) - asked == 2 * (8 - len(before))  # two requests of up to 256 rows per missing shard
    assert_whole(tmp_path / "set", Manifest.load(tmp_path / "set"), formula)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_with_its_status_and_keeps_finished_shards(
    server: Any, gate: threading.Event, tmp_path: Path, number: int, jobs: int
) -> None:
    with begin(server, tmp_path / "set", "--jobs", jobs) as process:
        os.killpg(process.pid, number)  # to all processes, like a terminal or systemd
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (128 + number, "")
    assert stderr.split("\n") == ["", STOPPED, "", "digitforge: interrupted", ""]
    before = finished(tmp_path / "set")
    assert names(tmp_path / "set") == {NAME, *before}
    checked = run(server, "verify", tmp_path / "set")
    assert checked.returncode == 4
    assert "3 of 8 shards are finished" in one_line(checked)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_workers_start_writes_no_traceback(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    # Python imports this module first. The workers take a minute to start.
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, sys, time\n"
        "if 'joblib.externals.loky.backend.popen_loky_posix' in sys.orig_argv:\n"
        f"    pathlib.Path({str(tmp_path / 'starts')!r}).touch()\n"
        "    time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    arguments = ("--n", "4000", "--rows-per-shard", "500", "--jobs", "2")
    with start("generate", "--server", server.target, tmp_path / "set", *arguments) as process:
        while not (tmp_path / "starts").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, number)
        stdout, stderr = process.communicate(timeout=50)
    assert (process.returncode, stdout) == (128 + number, "")
    assert stderr.split("\n") == ["", STOPPED, "", "digitforge: interrupted", ""]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_tfrecord_files_after_kills_at_random_moments_equal_those_of_one_run(
    server: Any, tmp_path: Path, kills: Callable[[int], range]
) -> None:
    arguments = (
        "--n",
        6000 * len(kills(10)),
        "--rows-per-shard",
        100,
        "--seed",
        3,
        "--format",
        "tfrecord",
        "--jobs",
        2,
    )
    assert run(server, "generate", tmp_path / "whole", *arguments).returncode == 0
    server.before_answer = lambda _: time.sleep(0.05)
    moments, folder = random.Random(0), tmp_path / "parts"

    def shards() -> int:
        return Manifest.load(folder).finished if (folder / NAME).exists() else 0

    for kill in kills(10):
        wanted = shards() + moments.randrange(20)
        with start("generate", "--server", server.target, folder, *map(str, arguments)) as process:
            while process.poll() is None and shards() < wanted:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.5))
            assert process.poll() is None
            # Sometimes only the command is killed, and sometimes its workers too.
            (os.killpg if kill % 2 else os.kill)(process.pid, signal.SIGKILL)
    server.before_answer = lambda _: None
    result = run(server, "generate", folder, *arguments)
    assert result.returncode == 0, result.stderr
    assert names(folder) == names(tmp_path / "whole")
    for name in names(folder) - {NAME}:
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def workers(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"LokyProcess" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found in /proc")
def test_workers_end_when_the_command_is_killed(server: Any, gate: threading.Event, tmp_path: Path) -> None:
    with begin(server, tmp_path / "set", "--jobs", 2) as process:
        left = workers(process)
        assert len(left) == 2
        process.kill()
    while any(Path(f"/proc/{child}").exists() for child in left):
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are found in /proc")
def test_a_killed_worker_is_an_error_and_loses_only_its_shard(
    server: Any, gate: threading.Event, tmp_path: Path
) -> None:
    with begin(server, tmp_path / "set", "--jobs", 2) as process:
        for child in workers(process):
            os.kill(child, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert "was killed" in stderr.strip().splitlines()[-1]
    assert len(finished(tmp_path / "set")) == 3


def test_a_failing_server_loses_only_unfinished_shards(server: Any, tmp_path: Path, formula: Any) -> None:
    def fail_at_the_fifth_shard(request: Any) -> None:
        if len(server.requests) == 9:
            server.failures.append((grpc.StatusCode.INTERNAL, "oops"))

    server.before_answer = fail_at_the_fifth_shard
    arguments = ("--n", 4000, "--rows-per-shard", 500, "--seed", 2, "--jobs", 1)
    result = run(server, "generate", tmp_path / "set", *arguments)
    assert (result.returncode, "oops" in one_line(result)) == (3, True)
    before = finished(tmp_path / "set")
    assert len(before) in (4, 5)
    assert names(tmp_path / "set") == {NAME, *before}
    assert run(server, "generate", tmp_path / "set", *arguments).returncode == 0
    assert before.items() <= finished(tmp_path / "set").items()
    assert_whole(tmp_path / "set", Manifest.load(tmp_path / "set"), formula)


def test_a_finished_data_set_is_not_changed(server: Any, tmp_path: Path) -> None:
    arguments = ("--n", 1000, "--rows-per-shard", 500, "--seed", 2, "--jobs", 1)
    run(server, "generate", tmp_path, *arguments)
    before, asked = finished(tmp_path), len(server.requests)
    assert run(server, "generate", tmp_path, *arguments).returncode == 0
    assert (finished(tmp_path), len(server.requests)) == (before, asked)


def test_a_data_set_is_never_continued_with_another_plan_or_generator(tmp_path: Path, client: DigitClient) -> None:
    generate(client, tmp_path, PLAN, jobs=1)
    before = finished(tmp_path)
    for other in (
        replace(PLAN, n=2501),
        replace(PLAN, seed=7),
        replace(PLAN, label=1),
        replace(PLAN, format="parquet"),
    ):
        with pytest.raises(DataError, match="holds another data set: "):
            generate(client, tmp_path, other, jobs=1)
    stranger = DigitClient(transports=[FakeTransport(generator_id="0" * 16)])
    with pytest.raises(GeneratorChangedError, match="started with generator fa4efa4efa4efa4e"):
        generate(stranger, tmp_path, PLAN, jobs=1)
    assert finished(tmp_path) == before


def test_a_generator_change_between_two_shards_is_an_error(tmp_path: Path) -> None:
    fake = FakeTransport()

    def change(_: int) -> None:
        fake.card["generator_id"] = "0" * 16

    with pytest.raises(
        GeneratorChangedError, match="started with generator fa4efa4efa4efa4e, but the server has generator 0000"
    ):
        generate(DigitClient(transports=[fake]), tmp_path, PLAN, jobs=1, advance=change)
    assert 1 <= len(finished(tmp_path)) < 5


def test_two_commands_never_write_the_same_data_set(server: Any, gate: threading.Event, tmp_path: Path) -> None:
    with begin(server, tmp_path / "set", "--jobs", 1) as process:
        second = run(server, "generate", tmp_path / "set")
        gate.set()
        stdout, _ = process.communicate(timeout=60)
    assert (second.returncode, "another `digitforge generate` is running" in one_line(second)) == (4, True)
    assert process.returncode == 0
    assert "in 8 shards" in stdout


# --- rejected


def test_a_kill_during_the_first_manifest_does_not_block_the_folder(tmp_path: Path, client: DigitClient) -> None:
    (tmp_path / f".{NAME}.0a1b2c3d.tmp").touch()
    manifest = generate(client, tmp_path, PLAN, jobs=1)
    assert names(tmp_path) == {NAME, *(shard.file for shard in manifest.shards)}


def test_a_folder_with_other_files_is_never_changed(tmp_path: Path, client: DigitClient) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(DataError, match="does not hold a data set"):
        generate(client, tmp_path, PLAN, jobs=1)
    assert {each.name for each in tmp_path.iterdir()} == {"letters.txt"}
    with pytest.raises(DataError, match="choose another folder"):
        generate(client, tmp_path / "letters.txt" / "set", PLAN, jobs=1)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--n", 10, "--label", "A"), 2, "no class 'A'"),
        (("--n", 10, "--truncation", 0), 2, "truncation is 0"),
        (("--n", 10, "--truncation", 1, "--expansion", 1.2), 2, "only one of them"),
        (("--n", 10, "--jobs", 0), 2, "--jobs is 0"),
        (("--n", 0), 2, "n is 0"),
        ((), 2, "number of images is missing"),
        (("--n", 10, "--model-name", "letters"), 3, "no model 'letters'"),
    ],
)
def test_a_rejected_command_leaves_no_folder(
    server: Any, tmp_path: Path, arguments: tuple[Any, ...], status: int, says: str
) -> None:
    result = run(server, "generate", tmp_path / "set", *arguments)
    assert (result.returncode, says in one_line(result)) == (status, True), result.stderr
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("library", "arguments", "extra"),
    [
        ("joblib", (), "generate"),
        ("filelock", (), "generate"),
        ("distributed", ("--scheduler", "tcp://127.0.0.1:1"), "dask"),
        ("pyarrow", ("--format", "parquet"), "parquet"),
        ("google_crc32c", ("--format", "tfrecord"), "tfrecord"),
    ],
)
def test_the_error_of_a_missing_library_names_library_and_extra(  # noqa: PLR0917
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, arguments: tuple[str, ...], extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    result = run(server, "generate", tmp_path / "set", "--n", 10, *arguments)
    assert result.returncode == 2
    assert install_command(extra) in one_line(result)
