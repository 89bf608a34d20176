"""``digitforge.export``. Importing this module does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from digitforge_client.common.command import import_quietly
from digitforge_client.common.tracking import Tracking, check_tracker
from digitforge_client.contract import MODEL_NAME
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data import Dataset, load
from digitforge_training.data.dataset import DataSource
from digitforge_training.data.sources import NAMED
from digitforge_training.export import model_card
from digitforge_training.export.expansion import Expansion
from digitforge_training.runs.folder import read_run
from digitforge_training.runs.train import TrainedRun


def export(
    run: TrainedRun | str | Path,
    *,
    to: str | Path,
    data: Dataset | str | Path | DataSource | None = None,
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
    expansion: float | Literal["auto"] = 1.0,
    judge: str = "digitnet-64",
    name: str = MODEL_NAME,
    track: str | None = None,
    on_expansion: Callable[[Expansion], None] = lambda _: None,
) -> Path:
    """Publish a trained generator as the next version of a model that TensorFlow Serving can load.

    ::

        version = digitforge.export(run, to="models/digits")  # models/digits/1
        with digitforge.EmbeddedServer("models/digits") as target:
            ...

    Args:
        run: the result of `digitforge.train`, or the run folder.
        to: folder of the model, which holds its numbered versions.
        data: the data given to `train`. None if they are still where they were read. The run remembers the options of
            `digitforge.load_data`. The model carries hashes of its
            training images, so that nobody evaluates on them by accident.
        metrics: metrics for the card: name => ``value`` and sample size ``n``, and optionally ``interval``,
            ``training_floor`` and ``unseen_floor``, as in a report of `digitforge.evaluate`.
        expansion: factor above 0 that the model multiplies its latents by. Above 1: more variety, less density.
            ``auto``: the factor that the judge scores best on held-out images, or on training images if none were
            held out.
        judge: judge that chooses the factor with ``auto``.
        name: name of the model, for the card and the warm-up requests.
        track: ``mlflow`` also registers the new version as a version of the model *name* in MLflow, in the run of
            MLflow that belongs to the training.
        on_expansion: called with the given or chosen expansion.

    Returns:
        The folder of the new version. Its ``MODEL_CARD.md`` describes the generator.

    Raises:
        DataError: *run* is not a run folder or has no checkpoint, its data cannot be read, or *to* cannot be written.
        InvalidInputError: *data* is missing, the run was trained on other data, the expansion is not above 0, or the
            judge does not exist.
        MissingExtraError: MLflow is not installed.
        DigitforgeError: MLflow cannot be reached.
    """
    if track:
        check_tracker(track)
    given = None if expansion == "auto" else Expansion(factor=expansion)
    folder = run.folder if isinstance(run, TrainedRun) else Path(run)
    if isinstance(run, TrainedRun) and data is None:
        data = run.data
    if isinstance(data, DataSource):
        data = load(data, need_labels=read_run(folder).recipe.conditional)
    dataset = data if isinstance(data, Dataset) else training_data(folder, data)
    import_quietly("tensorflow")
    from digitforge_training.export import saved_model

    chosen = given or saved_model.choose_expansion(folder, dataset, judge=judge)
    on_expansion(chosen)
    version = saved_model.export(folder, dataset, to=Path(to), metrics=metrics, expansion=chosen, name=name)
    if track:
        _register(folder, version, name=name, card=saved_model.read_card(version))
    return version


def _register(run: Path, version: Path, *, name: str, card: Mapping[str, Any]) -> None:
    """Store an exported model in MLflow, so that the downloaded folder ``model`` can be served, and register it."""
    tracking = Tracking(run, advice=f"the export {version} is complete")
    tracking.file(version, f"model/{version.name}")
    tracking.metrics(
        [(figure, float(value["value"]), card["images_seen"]) for figure, value in card["metrics"].items()]
    )
    tracking.register(
        "model",
        name=name,
        tags={"generator_id": card["generator_id"], "recipe": card["recipe"]},
        description=(version / model_card.NAME).read_text("utf-8"),
    )
    tracking.end("FINISHED")


def training_data(run: Path, data: str | Path | None = None, **options: Any) -> Dataset:
    """Load the data set of a run.

    Args:
        run: the run folder. Checked before any data set is read or downloaded.
        data: the data given to `train`, in their new place. None: the run remembers.
        **options: options of `digitforge.load_data`. The run remembers those that are missing.

    Raises:
        DataError: *run* is not a run folder, or the data cannot be read.
        InvalidInputError: *data* is missing, because the run does not remember.
    """
    described = read_run(run)
    origin = described.origin
    options["need_labels"] = described.recipe.conditional
    name = described.training_data["name"]
    if origin is None and name in NAMED:  # written by an earlier version
        origin = DataSource(source=name)
    if data is not None:
        return load(DataSource(source=str(data)) if origin is None else replace(origin, source=str(data)), **options)
    if origin is None:
        raise InvalidInputError(
            f"{run} does not say where its {described.training_data['images']} images of {name} are; give the data set "
            "of its training with --data (in Python: data)"
        )
    try:
        return load(origin, **options)
    except DataError as error:
        raise DataError(
            f"{error}. The run {run} was trained on this; if it has moved, give its place with --data (in Python: data)"
        ) from error
