"""The main job from end to end: serve a generator, request digits, measure them, and see whether they help.

Everything is the real thing: the server is a process, the digits come over gRPC, the report is an experiment's.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from digitforge_client import DigitClient
from digitforge_client.common.command import import_quietly
from digitforge_client.common.files import replacing
from digitforge_client.errors import DataError
from digitforge_evaluation import experiment_folder
from digitforge_evaluation.demo.server_process import serving
from digitforge_evaluation.experiment.generators import Served
from digitforge_evaluation.experiment.plan import Plan
from digitforge_evaluation.experiment.store import RESULTS, CellResult
from digitforge_evaluation.experiment.subsets import hold_out
from digitforge_evaluation.features.extract import digitnet
from digitforge_evaluation.images.sources import Drawn, ServedGenerator, wanted_labels
from digitforge_evaluation.quality.assess import Report, assess
from digitforge_evaluation.quality.comparison import RealData
from digitforge_evaluation.report import SampleSheet, write_report
from digitforge_training.data import Dataset, load

ARMS: Final = ("real", "classical", "gan", "classical+gan")
N_PER_CLASS: Final = 10
BATCH: Final = 500  # digits between two movements of the progress bar


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How large a demonstration is; the defaults take less than five minutes on two cores."""

    digits: int = 10_000  # requested and measured
    repeats: int = 10  # subsets of the experiment; ten are needed for a verdict
    steps: int = 300  # optimizer steps of each classifier
    seed: int = 0
    model_base_path: Path | None = None  # folder with a generator's versions; None for the shipped one
    data_dir: Path | None = None  # folder with MNIST's files; None for the cache or a download


class Listener(Protocol):
    """Is told what happens, as it happens."""

    def stage(self, name: str) -> None:
        """A stage begins."""

    def progress(self, done: int, total: int) -> None:
        """So much of the stage is done."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a demonstration found."""

    card: dict[str, Any]
    digits: int
    seconds: float  # of the request for those digits
    quality: Report
    state: experiment_folder.State
    real: str  # name of the real images
    notes: tuple[str, ...]
    html: Path


class _Streamed(ServedGenerator):
    """A served generator whose digits are streamed, so that progress can be shown; keeps the last ones."""

    def __init__(self, client: DigitClient, target: str, progress: Callable[[int, int], None]) -> None:
        super().__init__(client, target)
        self._progress = progress
        self.seconds = 0.0
        self.drawn: Drawn | None = None

    def draw(self, n: int, *, proportions: tuple[int, ...], seed: int, expansion: float | None = None) -> Drawn:
        labels = wanted_labels(self.card, n, proportions)
        images = np.empty((n, *self.card["image_shape"]), np.uint8)
        done, started = 0, time.monotonic()
        self._progress(0, n)
        stream = self._client.stream(
            None if labels is not None else n, labels=labels, batch_size=BATCH, seed=seed, expansion=expansion
        )
        for batch in stream:
            images[done : done + len(batch)] = batch.images.reshape(-1, *images.shape[1:])
            done += len(batch)
            self._progress(done, n)
        self.seconds = time.monotonic() - started
        self.drawn = Drawn(images=images, labels=labels)
        return self.drawn


def run(folder: Path, settings: Settings, *, listener: Listener, command: str) -> Outcome:
    """Run the demonstration and write its report into *folder*.

    Args:
        folder: made if need be; an earlier report there is replaced.
        settings: how large.
        listener: is told what happens.
        command: for the report.

    Raises:
        ServerError: the server did not start, or went away.
        DataError: the data folder that was named cannot be used.
        InvalidInputError: the generator does not fit the digits, or the folder cannot be written to.
    """
    check_folder(folder)
    listener.stage("loading real digits")
    training, test, notes = real_digits(settings.data_dir)
    listener.stage("starting the embedded server")
    with serving(settings.model_base_path) as target, DigitClient(target) as client:
        import_quietly("tensorflow")  # late, so that wrong arguments are answered at once
        streamed = _Streamed(client, target, listener.progress)
        measured = assess(
            streamed,
            network=digitnet(),
            n=settings.digits,
            seed=settings.seed,
            real=RealData(train=training, test=test) if training.name == "mnist" else None,
            progress=lambda name: listener.stage(
                f"requesting {settings.digits} labeled digits from {target}" if name == "drawing images" else name
            ),
        )
        listener.stage("training classifiers with and without generated digits")
        with tempfile.TemporaryDirectory() as scratch:
            state = _experiment(
                Path(scratch),
                settings,
                target=target,
                training=training,
                test=test,
                listener=listener,
                command=command,
            )
            listener.stage("writing the report")
            assert streamed.drawn is not None  # assess drew
            sheets = samples(test, streamed.drawn)
            with replacing(folder / RESULTS) as file, (Path(scratch) / RESULTS).open("rb") as results:
                shutil.copyfileobj(results, file)
    seconds = streamed.seconds
    facts = replace(
        state.facts,
        quality=tuple(asdict(one) for one in measured.figures),
        notes=(
            *notes,
            f"{settings.digits} labeled digits came over gRPC in {seconds:.1f} s, "
            f"{settings.digits / seconds:.0f} per second.",
        ),
    )
    html, _ = write_report(folder, state.analysis, facts, sheets)
    return Outcome(
        card=dict(streamed.card),
        digits=settings.digits,
        seconds=seconds,
        quality=measured,
        state=state,
        real=training.name,
        notes=notes,
        html=html,
    )


def check_folder(folder: Path) -> None:
    """Fail before the work rather than after it.

    Raises:
        DataError: the folder cannot be made.
        InvalidInputError: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); choose another folder with --out") from error
    with replacing(folder / ".writable"):
        pass
    (folder / ".writable").unlink()


def real_digits(data_dir: Path | None) -> tuple[Dataset, Dataset, tuple[str, ...]]:
    """MNIST where it can be had, otherwise the digits that scikit-learn ships.

    Returns:
        Training images, test images, and notes on where they come from.

    Raises:
        DataError: *data_dir* was given and does not hold MNIST.
    """
    try:
        return load("mnist", split="train", data_dir=data_dir), load("mnist", split="test", data_dir=data_dir), ()
    except DataError as error:
        if data_dir is not None:
            raise
        reason = str(error).partition(";")[0]
    note = (
        "MNIST could not be had, so the real images are scikit-learn's 1 797 digits, enlarged; precision, recall "
        f"and their like, which need MNIST itself, are left out. ({reason})"
    )
    return load("digits", split="train"), load("digits", split="test"), (note,)


def _experiment(
    scratch: Path,
    settings: Settings,
    *,
    target: str,
    training: Dataset,
    test: Dataset,
    listener: Listener,
    command: str,
) -> experiment_folder.State:
    plan = Plan(
        arms=ARMS, n_per_class=(N_PER_CLASS,), subsets=settings.repeats, steps=settings.steps, seed=settings.seed
    )
    real = hold_out(training, test, which="test")
    source = Served(target)
    budget, card = experiment_folder.budget_and_card(source, real)

    def on_cell(_result: CellResult | None, done: int, planned: int) -> None:
        listener.progress(done, planned)

    experiment_folder.run(
        scratch, plan, real, {budget: source}, cards={str(budget): card}, command=command, on_cell=on_cell
    )
    return experiment_folder.read(scratch)


def samples(real: Dataset, generated: Drawn) -> tuple[SampleSheet, ...]:
    """Real digits that the generator has not seen, and generated ones."""
    assert generated.labels is not None  # the experiment before it refuses generators without classes
    return (
        SampleSheet(title=f"Real: {real.name} {real.split}", images=real.images, labels=real.labels),
        SampleSheet(title="Generated", images=generated.images, labels=generated.labels),
    )
