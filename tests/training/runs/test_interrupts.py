"""A training that is stopped: by a signal, a closed terminal, or kill -9."""

from __future__ import annotations

import json
import os
import random
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_recipes import DENSE

from digitforge_training.data import Dataset
from digitforge_training.runs import checkpoints

#: The command. It takes SIGINT even if the tests run in the background, where shells ignore it.
COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from digitforge_client.common.command import main; main()"
)


def _endless(run_dir: Path) -> list[str]:
    """Arguments of a training that runs until it is stopped and writes no checkpoint before."""
    fields = {**DENSE, "images_per_checkpoint": 1e9, "images_per_sheet": 1e9}
    sets = [f"--set={field}={value}" for field, value in fields.items()]
    return ["train", "--data", "digits", "--out", str(run_dir), *sets, "--steps", "10000000"]


def _images(run_dir: Path) -> list[int]:
    try:
        content = (run_dir / "stats.jsonl").read_text()
    except FileNotFoundError:
        return []
    whole_lines = content[: content.rfind("\n") + 1].splitlines()
    return [json.loads(line)["images"] for line in whole_lines]


def _interrupt(arguments: list[str], run_dir: Path, number: int) -> tuple[int, str]:
    """Start a training and send a signal after its next report. Returns its exit status and standard error."""
    before = len(_images(run_dir))
    with subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], stderr=subprocess.PIPE, text=True) as process:
        while len(_images(run_dir)) <= before:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_and_the_same_command_goes_on(number: int, tmp_path: Path) -> None:
    found, errors = _interrupt(_endless(tmp_path), tmp_path, number)
    assert found == 128 + number
    assert "Traceback" not in errors
    assert "stopping: the current step ends first, then a checkpoint is written." in errors
    first = checkpoints.newest(tmp_path)
    assert first is not None
    assert checkpoints.images_of(first) > 0
    *_, stopped, command, last = filter(None, errors.splitlines())
    assert stopped == f"stopped; the same command resumes from the checkpoint in {tmp_path}:"
    assert last == "digitforge: interrupted"
    program, *again = shlex.split(command)
    assert (program, again) == ("digitforge", _endless(tmp_path))

    if number == signal.SIGTERM:
        assert _interrupt(again, tmp_path, number)[0] == 143
        images = _images(tmp_path)
        assert checkpoints.images_of(checkpoints.newest(tmp_path)) >= images[-1] > checkpoints.images_of(first)  # type: ignore[arg-type]
        assert images == sorted(set(images))


def test_a_closed_terminal_writes_a_checkpoint(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    code = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + COMMAND
    with subprocess.Popen(
        [sys.executable, "-c", code, *_endless(tmp_path)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        while not _images(tmp_path):
            assert process.poll() is None
            if select.select([ours], [], [], 0.1)[0]:
                os.read(ours, 10_000)
        os.close(ours)
        assert process.wait(timeout=120) == 129
    assert checkpoints.newest(tmp_path) is not None


def test_a_training_that_is_stopped_before_it_began_does_not_promise_a_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMMAND, *_endless(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("forge: "):  # then it has the data, and imports TensorFlow
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "Traceback" not in errors
    assert "there is no checkpoint yet, so the same command starts over" in errors
    assert not (tmp_path / "run").exists()


def _finite(run_dir: Path, steps: int) -> list[str]:
    """Arguments of a training with a checkpoint every two steps, and more by time."""
    fields = DENSE | {"images_per_sheet": 3200}
    sets = [f"--set={field}={value}" for field, value in fields.items()]
    return ["train", "--data=digits", f"--out={run_dir}", f"--steps={steps}", "--save-every=0.05s", *sets]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_training_killed_at_random_moments_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, kills: Callable[[int], range]
) -> None:
    per_kill = 300
    steps = per_kill * (len(kills(20)) + 1)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subprocess.run([sys.executable, "-c", COMMAND, *_finite(whole, steps)], check=True, stderr=subprocess.DEVNULL)
    moments = random.Random(0)
    resumed_from, startup_s = set(), 0.0
    for kill in kills(20):
        began_s, number = time.monotonic(), len(_images(parts))
        with subprocess.Popen(
            [sys.executable, "-c", COMMAND, *_finite(parts, steps)], stderr=subprocess.DEVNULL
        ) as process:
            if kill % 4 == 3:  # before or just after the first new checkpoint
                time.sleep(moments.uniform(0, startup_s))
            else:
                wanted = number + moments.randrange(1, per_kill // 4)
                while len(_images(parts)) < wanted:
                    assert process.poll() is None
                    time.sleep(0.01)
                startup_s = time.monotonic() - began_s
                time.sleep(moments.uniform(0, 0.1))
            assert process.poll() is None
            process.kill()
        newest = checkpoints.newest(parts)
        if newest is not None:
            checkpoints.load(newest)
            resumed_from.add(newest.stem)
    assert len(resumed_from) > len(kills(20)) // 2
    subprocess.run([sys.executable, "-c", COMMAND, *_finite(parts, steps)], check=True, stderr=subprocess.DEVNULL)
    one, other = (checkpoints.load(checkpoints.newest(folder)) for folder in (whole, parts))  # type: ignore[arg-type]
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)
    assert _images(whole) == _images(parts)
    sheets = [{path.name: path.read_bytes() for path in (folder / "sheets").iterdir()} for folder in (whole, parts)]
    assert sheets[0] == sheets[1]
    left = {path.name for path in parts.rglob(".*")}
    assert not left


def test_kill_9_leaves_only_whole_checkpoints(digits: Dataset, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from digitforge_training.data import load\n"
        "from digitforge_training.runs.loop import train\n"
        "from digitforge_training.recipes import resolve\n"
        f"recipe = resolve('forge', {DENSE | {'images_per_checkpoint': 32, 'steps': 100000}})\n"
        "train(recipe, load('digits'), run_dir=Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL) as process:
        while len(list(tmp_path.glob("checkpoints/[0-9]*.npz"))) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    for path in (tmp_path / "checkpoints").glob("[0-9]*.npz"):
        state = checkpoints.load(path)
        assert int(state["generator_optimizer/000"]) * int(DENSE["batch_size"]) == int(path.stem)
