"""The demo from end to end: serve a generator, request digits, measure them, and test whether they help.

The server is a separate process, the digits come over gRPC, and the report comes from a real experiment.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from digitforge_client import DigitClient
from digitforge_client.common.command import import_quietly
from digitforge_client.common.files import make_folder, replacing
from digitforge_client.common.interrupts import held_back
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
BATCH: Final = 500  #: digits between two updates of the progress bar


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the demo."""

    n: int = 10_000  #: digits to request and measure
    subsets: int = 10  #: subsets of the experiment; a verdict needs at least ten
    steps: int = 300  #: optimizer steps of each classifier
    seed: int = 0  #: random seed
    model: Path | None = None  #: folder of a generator's versions; None for the shipped generator
    data_dir: Path | None = None  #: folder with the four MNIST files; None for the cache or a download


class Listener(Protocol):
    """Receives the progress of the demo."""

    def stage(self, name: str) -> None:
        """The stage *name* begins."""

    def progress(self, done: int, total: int) -> None:
        """The current stage has finished *done* of *total* units of work."""

    def connected(self, card: Mapping[str, Any], notes: tuple[str, ...]) -> None:
        """The server is ready. *notes* are about the real images."""

    def requested(self, n: int, seconds: float) -> None:
        """The server has sent *n* digits in *seconds*."""

    def measured(self, quality: Report) -> None:
        """The digits are measured."""

    def tested(self, state: experiment_folder.State, real: str) -> None:
        """The classifiers are trained, on images of *real*."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The results of the demo."""

    quality: Report
    state: experiment_folder.State
    html: Path  #: the report


class _Streamed(ServedGenerator):
    """A served generator that streams its digits and reports progress. It keeps the digits of the last draw."""

    def __init__(self, client: DigitClient, target: str, listener: Listener) -> None:
        super().__init__(client, target)
        self._listener = listener
        self.seconds = 0.0
        self.drawn: Drawn | None = None

    def draw(self, n: int, *, proportions: tuple[int, ...], seed: int, expansion: float | None = None) -> Drawn:
        self._listener.stage(f"requesting {n} labeled digits from {self.name}")
        labels = wanted_labels(self.card, n, proportions)
        images = np.empty((n, *self.card["image_shape"]), np.uint8)
        done, started = 0, time.monotonic()
        self._listener.progress(0, n)
        stream = self._client.stream(
            None if labels is not None else n, labels=labels, batch_size=BATCH, seed=seed, expansion=expansion
        )
        for batch in stream:
            images[done : done + len(batch)] = batch.images.reshape(-1, *images.shape[1:])
            done += len(batch)
            self._listener.progress(done, n)
        self.seconds = time.monotonic() - started
        self._listener.requested(n, self.seconds)
        self.drawn = Drawn(images=images, labels=labels)
        return self.drawn


def run(folder: Path, settings: Settings, *, listener: Listener, command: str) -> Outcome:
    """Run the demo and write its report into *folder*.

    Args:
        folder: folder for the report. It is created if needed. An earlier report in it is replaced.
        settings: the settings.
        listener: receives the progress.
        command: the command line, for the report.

    Raises:
        ServerError: the server did not start, or went away.
        DataError: a folder cannot be read or written.
        InvalidInputError: the generator does not fit the real digits.
    """
    check_folder(folder)
    listener.stage("loading real digits")
    training, test, notes = real_digits(settings.data_dir)
    listener.stage("starting the embedded server")
    with serving(settings.model) as target, DigitClient(target) as client:
        import_quietly("tensorflow")  # slow, so only after the arguments are checked
        streamed = _Streamed(client, target, listener)
        listener.connected(streamed.card, notes)
        measured = assess(
            streamed,
            network=digitnet(),
            n=settings.n,
            seed=settings.seed,
            real=RealData(train=training, test=test) if training.name == "mnist" else None,
            progress=listener.stage,
        )
        listener.measured(measured)
        listener.stage("training classifiers with and without generated images")
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
            listener.tested(state, training.name)
            listener.stage("writing the report")
            assert streamed.drawn is not None  # `assess` has drawn them
            facts = replace(
                state.facts,
                quality=tuple(asdict(one) for one in measured.figures),
                notes=(
                    *notes,
                    f"The server sent {settings.n} labeled digits over gRPC in {streamed.seconds:.1f} s, "
                    f"{settings.n / streamed.seconds:.0f} per second.",
                ),
            )
            written = Path(scratch) / "report"
            html, _ = write_report(written, state.analysis, facts, samples(test, streamed.drawn))
            with held_back():  # an interrupt leaves all files or none
                for source in (Path(scratch) / RESULTS, *written.iterdir()):
                    with replacing(folder / source.name) as file, source.open("rb") as content:
                        shutil.copyfileobj(content, file)
    return Outcome(quality=measured, state=state, html=folder / html.name)


def check_folder(folder: Path) -> None:
    """Create *folder* and check that it can be written, before the work starts.

    Raises:
        DataError: the folder cannot be created or written.
    """
    make_folder(folder)
    with replacing(folder / ".writable"):
        pass
    (folder / ".writable").unlink()


def real_digits(data_dir: Path | None) -> tuple[Dataset, Dataset, tuple[str, ...]]:
    """MNIST if it is available, otherwise scikit-learn's digits.

    Returns:
        Training images, test images, and notes on their origin.

    Raises:
        DataError: *data_dir* is given, but does not hold MNIST.
    """
    try:
        return load("mnist", split="train", data_dir=data_dir), load("mnist", split="test", data_dir=data_dir), ()
    except DataError as error:
        if data_dir is not None:
            raise
        reason = str(error).partition(";")[0]
    note = (
        "MNIST is not available, so the real images are scikit-learn's 1 797 digits, enlarged. Metrics that need "
        f"MNIST's images, such as precision and recall, are left out. (Reason: {reason})"
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
        arms=ARMS, n_per_class=(N_PER_CLASS,), subsets=settings.subsets, steps=settings.steps, seed=settings.seed
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
    assert generated.labels is not None  # the experiment refuses generators without classes
    return (
        SampleSheet(title=f"Real: {real.name} {real.split}", images=real.images, labels=real.labels),
        SampleSheet(title="Generated", images=generated.images, labels=generated.labels),
    )
