"""TensorFlow's distribution strategies: what the documents say about them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ports import free_port

tensorflow = pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # each test starts processes that import TensorFlow

EXAMPLE = Path(__file__).parents[3] / "client" / "examples" / "tensorflow_workers.py"


def run(*command: str | Path, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_workers(*command: str | Path) -> list[subprocess.Popen[str]]:
    """Start a program as two workers of `MultiWorkerMirroredStrategy`."""
    cluster = {"worker": [f"127.0.0.1:{free_port()}" for _ in range(2)]}
    tasks = [{"type": "worker", "index": index} for index in range(2)]
    return [run(*command, environment={"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}) for task in tasks]


def asked_rows(server: Any) -> Counter[int]:
    """How often each row was requested."""
    seeds = [tensorflow.make_ndarray(request.inputs["seeds"]) for request in server.requests]
    return Counter(np.concatenate(seeds).tolist())


def test_workers_of_the_example_train_on_different_digits(server: Any) -> None:
    workers = run_workers(EXAMPLE, "--server", server.target, "--n", "128", "--batch-size", "32", "--epochs", "2")
    printed, errors = zip(*(worker.communicate() for worker in workers), strict=True)
    assert [worker.returncode for worker in workers] == [0, 0], errors
    assert printed[0].startswith("epoch 0: loss ")
    assert printed[0] == printed[1]  # the loss over both workers
    assert asked_rows(server) == dict.fromkeys(range(128), 2)


FIT = """
import numpy as np, tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import keras
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile(loss="mse")
model.fit(tf.data.Dataset.from_tensor_slices((np.zeros((8, 4)), np.zeros((8, 2)))).batch(4), verbose=0)
"""


def test_fit_does_not_support_several_workers() -> None:
    """If this fails, Keras has learned it, and the documents and the example can be shorter."""
    for worker in run_workers("-c", FIT):
        _, errors = worker.communicate()
        assert worker.returncode == 1
        assert "unsupported type (<class 'tensorflow.python.distribute.values.PerReplica'>)" in errors


DEVICES = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
import keras
from digitforge_client import DigitClient
from digitforge_client.adapters.keras import MixedDataset
from digitforge_client.adapters.mixing import MixedBatches
from digitforge_client.adapters.tensorflow import dataset

class Counts(keras.layers.Layer):
    def call(self, images):
        tf.print("device batch", tf.shape(images)[0], output_stream=sys.stdout)
        return images

with strategy.scope():
    model = keras.Sequential([keras.Input((28, 28, 1)), Counts(), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
with DigitClient(sys.argv[1]) as client:
    if sys.argv[2] == "dataset":
        data = dataset(client, 64, batch_size=16, seed=0)
    else:
        X, y = np.zeros((32, 28, 28, 1), np.uint8), np.arange(32) % 10
        data = MixedDataset(MixedBatches(client, X, y, batch_size=16, synthetic=0.5))
    model.fit(data, epochs=2, verbose=0)
"""


@pytest.mark.parametrize("kind", ["dataset", "MixedDataset"])
def test_several_devices_of_one_process_share_each_batch(server: Any, kind: str) -> None:
    training = run("-c", DEVICES, server.target, kind)
    printed, errors = training.communicate()
    assert training.returncode == 0, errors
    assert Counter(printed.splitlines())["device batch 8"] == 2 * 2 * 4  # epochs, devices, batches
    assert asked_rows(server).keys() == set(range(64))  # `MixedDataset`: 32 in each epoch
