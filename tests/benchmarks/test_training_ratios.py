"""Compares the speed of training with other implementations: `make benchmark ARGS="-k training_ratios"`.

Both sides have the same network, batch and updates. They run in short blocks, in turn, so a busy machine slows both.
The output has the median and the range of the ratios of neighboring blocks, for wall time and for processor time. No
test depends on time. Comparisons with PyTorch are skipped if it is not installed.

If other programs use the cores, PyTorch's threads wait for each other much longer than TensorFlow's. Then set
DIGITFORGE_BENCHMARK_THREADS=1, which gives both sides one thread, and compare processor times.
"""

from __future__ import annotations

import os
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from digitforge_training.data import Dataset, load
from digitforge_training.gan.trainer import Trainer
from digitforge_training.recipes import Recipe, resolve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

BLOCKS = int(os.environ.get("DIGITFORGE_BENCHMARK_BLOCKS", "9"))
THREADS = int(os.environ.get("DIGITFORGE_BENCHMARK_THREADS", "0"))  # of each side; 0: its default
Side = Callable[[int], object]  # runs a number of steps


@pytest.fixture(scope="module", autouse=True)
def threads() -> None:
    if THREADS:
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(THREADS)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def compare(name: str, ours: Side, theirs: Side, *, steps: tuple[int, int]) -> None:
    """Print how many steps of *ours* take as long as one step of *theirs*. *steps* are the steps of a block of each."""
    for side, count in zip((ours, theirs), steps, strict=True):
        side(count)  # warm-up: compilation and caches
    ratios: dict[str, list[float]] = {"clock": [], "processor": []}
    for _ in range(BLOCKS):
        (clock, processor), (their_clock, their_processor) = (
            cost(side, count) for side, count in zip((ours, theirs), steps, strict=True)
        )
        ratios["clock"].append(their_clock / clock)
        ratios["processor"].append(their_processor / processor)
    print(f"\n{name}; {BLOCKS} pairs of blocks, load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores")
    for by, values in ratios.items():
        print(f"  by the {by:<10} {statistics.median(values):6.2f} × ({min(values):.2f} to {max(values):.2f})")
        assert min(values) > 0


def cost(side: Side, steps: int) -> tuple[float, float]:
    """Wall time and processor time of a step, in seconds."""
    clock, processor = time.perf_counter(), time.process_time()
    side(steps)
    return (time.perf_counter() - clock) / steps, (time.process_time() - processor) / steps


# --- the loop of the tutorial


def published_loop(images: np.ndarray) -> Side:
    """The loop that `dense-bn` reproduces, as published: one call of `predict` and three of `train_on_batch`."""

    def optimizer() -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(2e-4, beta_1=0.5)

    def hidden(width: int, *, normalized: bool) -> list[Any]:
        more = [layers.BatchNormalization(momentum=0.8)] if normalized else []
        return [layers.Dense(width), layers.LeakyReLU(negative_slope=0.2), *more]

    widths = (256, 512, 1024)
    generator = keras.Sequential(
        [
            keras.Input((100,)),
            *(layer for width in widths for layer in hidden(width, normalized=True)),
            layers.Dense(784, activation="tanh"),
            layers.Reshape((28, 28, 1)),
        ]
    )
    discriminator = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            *(layer for width in (512, 256) for layer in hidden(width, normalized=False)),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    discriminator.compile(optimizer(), loss="binary_crossentropy", metrics=["accuracy"])
    real = images / np.float32(127.5) - 1
    ones, zeros, random = np.ones((32, 1), np.float32), np.zeros((32, 1), np.float32), np.random.default_rng(0)
    # Keras 3 fixes the trainable weights at the first call; Keras 2 did so in `compile`.
    discriminator.train_on_batch(real[:32], ones)
    discriminator.trainable = False
    combined = keras.Sequential([keras.Input((100,)), generator, discriminator])
    combined.compile(optimizer(), loss="binary_crossentropy")

    def weight(model: keras.Model) -> float:
        return float(np.abs(model.get_weights()[0]).sum())

    def run(steps: int) -> None:
        for _ in range(steps):
            noise = random.standard_normal((32, 100)).astype(np.float32)
            generated = generator.predict(noise, verbose=0)
            discriminator.train_on_batch(real[random.integers(0, len(real), 32)], ones)
            discriminator.train_on_batch(generated, zeros)
            combined.train_on_batch(random.standard_normal((32, 100)).astype(np.float32), ones)

    before = weight(discriminator), weight(generator)
    discriminator.train_on_batch(real[:32], ones)
    between = weight(discriminator), weight(generator)
    combined.train_on_batch(random.standard_normal((32, 100)).astype(np.float32), ones)
    after = weight(discriminator), weight(generator)
    assert before[0] != between[0] == after[0], "only the discriminator's own updates must change it"
    assert before[1] == between[1] != after[1], "only the generator's own updates must change it"
    return run


def test_against_the_published_loop(digits: Dataset) -> None:
    trainer = Trainer(resolve("dense-bn"), digits, seed=0)
    compare("dense-bn against predict and train_on_batch", trainer.run, published_loop(digits.images), steps=(200, 12))


# --- PyTorch, eager


def in_torch(recipe: Recipe, dataset: Dataset, trainer: Trainer) -> Side:
    """The recipe `dense-bn` or `forge` as a plain eager loop, with the same number of parameters as ours."""
    torch = pytest.importorskip("torch")
    if THREADS:
        torch.set_num_threads(THREADS)
    twin = runpy.run_path(str(Path(__file__).with_name("torch_twins.py")))["twin"]
    generator, discriminator, run = twin(recipe, dataset.images, dataset.labels)
    ours = {name: value.size for name, value in trainer.state().items() if "optimizer" not in name}
    for name, model in (("generator", generator), ("discriminator", discriminator)):
        # Both sides have the moving averages of batch normalization; only PyTorch has a count of batches.
        theirs = sum(v.numel() for k, v in model.state_dict().items() if "num_batches" not in k)
        assert theirs == sum(size for key, size in ours.items() if key.startswith(f"{name}/")), name
    return run


@pytest.mark.parametrize(("name", "steps"), [("dense-bn", (200, 40)), ("forge", (8, 8))])
def test_against_pytorch(name: str, steps: tuple[int, int], digits: Dataset) -> None:
    recipe = resolve(name, {"clusters": 1})  # the twin has no clusters
    trainer = Trainer(recipe, digits, seed=0)
    compare(f"{name} against PyTorch, eager", trainer.run, in_torch(recipe, digits, trainer), steps=steps)


# --- oneDNN, XLA, memory

# TensorFlow reads the switch at its import, so each measurement has its own process.
_STEPS_AND_IMAGES = """
import time
import numpy as np
from digitforge_training.data import load
from digitforge_training.recipes import resolve
from digitforge_training.gan.trainer import Trainer
trainer = Trainer(resolve("forge"), load("digits"), seed=0)
labels, latents = np.arange(2048) % 10, np.zeros((2048, trainer.recipe.latent_size), np.float32)
for work in (lambda: trainer.run(20), lambda: trainer.sample(labels, latents)):
    work()
    began = time.perf_counter()
    work()
    print(time.perf_counter() - began)
"""


def test_onednn_against_none() -> None:
    ratios = []
    for _ in range(BLOCKS):
        seconds = []
        for switch in "01":
            done = subprocess.run(
                [sys.executable, "-c", _STEPS_AND_IMAGES],
                env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": switch},
                capture_output=True,
                text=True,
                check=True,
            )
            seconds.append([float(line) for line in done.stdout.split()])
        ratios.append([without / with_it for without, with_it in zip(*seconds, strict=True)])
    print(f"\nforge: with oneDNN against without; {BLOCKS} pairs of processes")
    for what, values in zip(("a step", "generating"), zip(*ratios, strict=True), strict=True):
        print(f"  {what:<10} {statistics.median(values):6.2f} × ({min(values):.2f} to {max(values):.2f})")
        assert min(values) > 0


@pytest.mark.parametrize(("name", "steps"), [("dense-bn", 100), ("forge", 8)])
def test_xla_against_plain_graphs(name: str, steps: int, digits: Dataset) -> None:
    compiled, plain = (Trainer(resolve(name, {"jit": jit}), digits, seed=0) for jit in ("true", "false"))
    compare(f"{name}: with XLA against without", compiled.run, plain.run, steps=(steps, steps))


@pytest.mark.parametrize(("name", "steps"), [("dcgan-rmsprop", 1), ("forge", 8)])
def test_bfloat16_against_float32(name: str, steps: int, digits: Dataset) -> None:
    narrow, plain = (Trainer(resolve(name, {"bfloat16": it}), digits, seed=0) for it in ("true", "false"))
    compare(f"{name}: in bfloat16 against float32", narrow.run, plain.run, steps=(steps, steps))


def resident() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_memory_stays_flat_over_10_000_steps(digits: Dataset) -> None:
    recipe = resolve("dense-bn", {"generator_widths": "16", "discriminator_widths": "16", "batch_size": 16})
    trainer = Trainer(recipe, digits, seed=0)
    sizes = []
    for steps in range(0, 11_000, 100):  # a report after each 1 600 images, as in the loop
        trainer.run(100)
        if steps % 1_000 == 0:
            sizes.append(resident())
    grown = sizes[-1] - sizes[0]
    print(f"\nmemory after 100 and after 10 100 steps: {sizes[0]:.1f} and {sizes[-1]:.1f} MB")
    assert grown < 8, sizes
