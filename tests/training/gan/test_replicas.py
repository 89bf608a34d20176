"""Several devices or machines train like a single device."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_training.data import load
from digitforge_training.gan import replicas
from digitforge_training.gan.trainer import Trainer
from digitforge_training.recipes import resolve
from digitforge_training.runs import checkpoints
from digitforge_training.runs.loop import Progress, train

#: Documented tolerance of the losses in the first steps. Later, rounding errors grow as in any training.
TOLERANCE = 1e-3

#: Trains a recipe for three steps on two logical CPU devices, and prints the statistics of each step.
TRAIN = """
import json, sys
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from digitforge_client.errors import InvalidInputError
from digitforge_training.data import load
from digitforge_training.gan import replicas
from digitforge_training.recipes import resolve
from digitforge_training.gan.trainer import Trainer

assert replicas.strategy().num_replicas_in_sync == 2
digits = load("digits").subset(np.arange(200))
name, overrides = json.loads(sys.argv[1])
trainer = Trainer(resolve(name, overrides), digits, seed=1)
curve = [trainer.run(1) for _ in range(3)]
again = Trainer(trainer.recipe, digits, seed=1)
again.restore(trainer.state())
for key, value in again.state().items():
    np.testing.assert_array_equal(value, trainer.state()[key], err_msg=key)
error = None
try:
    Trainer(resolve("dense-bn", {"batch_size": 15}), digits, seed=1)
except InvalidInputError as refused:
    error = str(refused)
print(json.dumps({"curve": curve, "error": error}))
"""
TINY = {"clusters": 1, "width": 8, "generator_blocks": 1, "discriminator_blocks": 1, "batch_size": 16}
DENSE = {
    "generator_widths": "16",
    "discriminator_widths": "16",
    "batch_size": 16,
    "jit": "false",
    "separate_batches": "false",
    "generator_predicts": "false",
}


def _compare(one: dict[str, float], other: dict[str, float]) -> None:
    losses = {name for name in one if name.endswith("loss") or name.startswith("class_loss")}
    assert len(losses) >= 2
    for name in losses:
        assert other[name] == pytest.approx(one[name], rel=TOLERANCE, abs=TOLERANCE), name


@pytest.mark.parametrize(
    "case",
    [
        # Shared statistics, masks and noise. The gradient is summed, then clipped.
        [
            "dense-bn",
            DENSE
            | {"optimizer": "rmsprop", "clip_value": 0.01, "gradient_penalty": 1, "augment_shift": 2}
            | {"augment_scale": 0.1, "augment_cutout": 4, "generator_dropout": 0.3, "discriminator_dropout": 0.3},
        ],
        pytest.param(["forge", TINY], marks=pytest.mark.slow),
        pytest.param(
            ["dense-bn", DENSE | {"discriminator_normalization": "batch", "gamma": 0.001}], marks=pytest.mark.slow
        ),
        pytest.param(["bp-gan", {"batch_size": 16, "discriminator_steps": 2}], marks=pytest.mark.slow),
    ],
    ids=lambda case: case[0],
)
def test_two_devices_train_as_one_does(case: list[Any]) -> None:
    command = [sys.executable, "-c", TRAIN, json.dumps(case)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        name, overrides = case
        alone = Trainer(resolve(name, overrides), load("digits").subset(np.arange(200)), seed=1)
        curve = [alone.run(1) for _ in range(3)]
        shared = json.loads(process.communicate()[0])
    for one, two in zip(curve, shared["curve"], strict=True):
        _compare(one, two)
    assert "batch_size is 15, but 2 devices share a batch" in shared["error"]


@pytest.mark.parametrize("config", ["{", '{"cluster": 3}', '{"cluster": {"worker": ["a:1", "b:1"]}}'])
def test_a_description_of_machines_that_is_no_use_is_shown(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InvalidInputError, match=r"TF_CONFIG is .*, which is malformed"):
        replicas.strategy.__wrapped__()


def _machines(run_dirs: list[Path], steps: int) -> list[subprocess.Popen[str]]:
    """Run the same command on two machines, which are two processes here."""
    with ExitStack() as stack:
        listening = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in run_dirs]
        cluster = {"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in listening]}
    overrides = [f"--set={field}={value}" for field, value in (TINY | {"images_per_checkpoint": 32}).items()]
    return [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "digitforge",
                "train",
                "--data",
                "digits",
                f"--out={run_dir}",
                f"--steps={steps}",
                *overrides,
            ],
            env=os.environ
            | {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})},
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, run_dir in enumerate(run_dirs)
    ]


@pytest.mark.slow
def test_two_machines_go_on_with_a_training_of_one_device_as_it_would(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.images_seen == 64:
            raise StopError

    recipe = resolve("forge", TINY | {"images_per_checkpoint": 32, "steps": 6})
    train(recipe, load("digits"), run_dir=tmp_path / "whole")
    with pytest.raises(StopError):
        train(recipe, load("digits"), run_dir=tmp_path / "parts", on_progress=stop)
    assert checkpoints.newest(tmp_path / "parts").stem == "000000000032"  # type: ignore[union-attr]
    machines = _machines([tmp_path / "parts"] * 2, recipe.steps)
    errors = [machine.communicate()[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], errors
    whole, parts = (
        [json.loads(line) for line in (tmp_path / name / "stats.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    )
    assert [line["images"] for line in parts] == [32, 64, 96]  # once each: only one machine has written
    for one, two in zip(whole, parts, strict=True):
        _compare(one, two)
    states = [checkpoints.load(checkpoints.newest(tmp_path / name)) for name in ("whole", "parts")]  # type: ignore[arg-type]
    assert states[0].keys() == states[1].keys()
    for key in states[0]:
        if key.startswith("averaged/"):
            np.testing.assert_allclose(states[1][key], states[0][key], atol=TOLERANCE, err_msg=key)
    assert (tmp_path / "parts" / "training.gif").exists()


@pytest.mark.slow
def test_machines_that_would_mix_different_trainings_say_so(tmp_path: Path) -> None:
    recipe = resolve("forge", TINY | {"images_per_checkpoint": 32, "steps": 6})

    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.images_seen == 64:
            raise StopError

    with pytest.raises(StopError):
        train(recipe, load("digits"), run_dir=tmp_path / "0", on_progress=stop)
    machines = _machines([tmp_path / "0", tmp_path / "1"], recipe.steps)
    for machine in machines:
        assert "give all machines the same --out" in machine.communicate()[1]
        assert machine.returncode == 4


@pytest.mark.slow
def test_a_machine_that_goes_ends_the_training_of_the_others_with_an_error(tmp_path: Path) -> None:
    chief, other = _machines([tmp_path] * 2, 1_000_000)
    while checkpoints.newest(tmp_path) is None:
        assert chief.poll() is None
        time.sleep(0.1)
    other.kill()
    other.communicate()
    assert "another machine of this training does not answer" in chief.communicate()[1]
    assert chief.returncode == 4
    newest = checkpoints.newest(tmp_path)
    assert newest is not None
    assert checkpoints.load(newest)
