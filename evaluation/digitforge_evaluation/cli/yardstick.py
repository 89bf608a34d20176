"""Commands that make the shipped files in ``digitforge_evaluation/data``.

    python -m digitforge_evaluation.cli.yardstick network     # digitnet-64.npz: about eight minutes on two cores
    python -m digitforge_evaluation.cli.yardstick reference   # mnist-test.npz: a few minutes

Each command also writes a ``.json`` file that says how the file was made.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np

from digitforge_client.common.files import replacing
from digitforge_client.errors import DigitforgeError
from digitforge_training.data.cli import data_dir_option

#: Metrics without shipped floors: they always need the real images, so `evaluate` measures their floors then.
WITHOUT_SHIPPED_FLOORS = ("missing", "train_on_generated", "train_on_real")
OUT = click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write.  [default: the shipped file in the package]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def yardstick() -> None:
    """Make the shipped feature network and reference statistics again."""


@yardstick.command()
@OUT
@data_dir_option()
@click.option(
    "--seed", default=0, show_default=True, help="Seed for initial weights, batches, augmentation and dropout."
)
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training images.  [default: 14]")
def network(out: Path | None, data_dir: Path | None, seed: int, epochs: int | None) -> None:
    """Train digitnet-64 on MNIST's 60 000 training images and test it once on the 10 000 test images."""
    import keras

    from digitforge_evaluation.features import digitnet, extract
    from digitforge_training.data import load

    config = digitnet.DigitnetConfig(seed=seed)
    config = config if epochs is None else replace(config, epochs=epochs)
    train, test = (load("mnist", split=split, data_dir=data_dir) for split in ("train", "test"))
    started = time.monotonic()
    keras.utils.set_random_seed(config.seed)
    model = digitnet.build_network(config.dropout)
    digitnet.train_network(
        model,
        train.images,
        train.labels,
        config,
        lambda epoch, loss, accuracy: click.echo(f"epoch {epoch}: loss {loss:.4f}, accuracy {accuracy:.4f}", err=True),
    )
    described = {
        "name": digitnet.NAME,
        "test_accuracy": digitnet.accuracy(model, test.images, test.labels),
        "test_images": len(test),
        "training_data": {"name": train.name, "split": train.split, "images": len(train), "sha256": train.sha256},
        "config": asdict(config),
        "parameters": model.count_params(),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "made_by": provenance("network"),
    }
    path = out or extract.WEIGHTS
    digitnet.save_weights(model, path)
    with replacing(path.with_suffix(".json")) as file:
        file.write((json.dumps(described, indent=2) + "\n").encode())
    click.echo(f"{path}: test accuracy {described['test_accuracy']:.4f}, n = {len(test)}")


@yardstick.command()
@OUT
@data_dir_option()
def reference(out: Path | None, data_dir: Path | None) -> None:
    """Compute the statistics of MNIST's test images with digitnet-64, and the floors of the metrics."""
    from digitforge_evaluation.features import extract
    from digitforge_evaluation.quality import reference as statistics
    from digitforge_evaluation.quality.comparison import NEIGHBORS, Comparison, Real, RealData, Sample, Training
    from digitforge_evaluation.quality.floors import measure_floors
    from digitforge_evaluation.quality.registry import METRICS

    net, data = extract.digitnet(), RealData.load("mnist", data_dir=data_dir)
    test, train = (Sample.of(half, net.measure(half.images)) for half in (data.test, data.train))
    every = np.ones(len(train), bool)
    real = Real(test=test, training=Training(data=data.train, sample=train, seen=every, held_out=len(test)))
    made = statistics.make_reference(test=data.test, measured=test.measured, features=net.name)
    metrics = {key: metric for key, metric in METRICS.items() if key not in WITHOUT_SHIPPED_FLOORS}
    for n in statistics.FLOOR_SIZES:
        made.floors[n] = measure_floors(Comparison(generated=train[np.arange(n)], reference=made, real=real), metrics)
        for kind, floors in asdict(made.floors[n]).items():
            for key, floor in floors.items():
                of_class = key.startswith(statistics.CLASS_DISTANCE)
                name = METRICS["distance" if of_class else key].full_name(features=net.name, n=floor["n"], k=NEIGHBORS)
                name += f" of class {key.removeprefix(statistics.CLASS_DISTANCE)}" if of_class else ""
                spread = "" if floor["standard_deviation"] is None else f" ± {floor['standard_deviation']:.4f}"
                click.echo(
                    f"n = {n}, {kind}: {name}: {floor['mean']:.4f}{spread}, {floor['n']} against {floor['held_out']}, "
                    f"repeats = {floor['repeats']}"
                )
    statistics.save_reference(made, out or statistics.SHIPPED, provenance("reference"))


def provenance(command: str) -> dict[str, Any]:
    """How a shipped file was made: the command, and the versions of Python and packages."""
    return {
        "command": f"python -m digitforge_evaluation.cli.yardstick {command}",
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("digitforge", "tensorflow", "keras", "numpy")},
    }


if __name__ == "__main__":
    try:
        yardstick()
    except DigitforgeError as error:
        click.echo(f"{error}", err=True)
        sys.exit(error.exit_status)
