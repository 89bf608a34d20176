"""An export of a run, as `digitforge export` and `digitforge.export` begin it.

Imports without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from digitforge_client.common.command import import_quietly
from digitforge_client.contract import MODEL_NAME
from digitforge_client.errors import InvalidInputError
from digitforge_training.data import Dataset, load
from digitforge_training.export.expansion import Expansion
from digitforge_training.runs.folder import read_run
from digitforge_training.runs.train import TrainedRun


def export(
    run: TrainedRun | str | Path,
    *,
    to: str | Path,
    data: Dataset | str | Path | None = None,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
    expansion: float | Literal["auto"] = 1.0,
    judge: str = "digitnet-64",
    name: str = MODEL_NAME,
    on_expansion: Callable[[Expansion], None] = lambda _: None,
) -> Path:
    """Publish a trained generator as the next version of a model that TensorFlow Serving can load.

    ::

        version = digitforge.export(run, to="models/digits")  # models/digits/1
        with digitforge.EmbeddedServer("models/digits") as target:
            ...

    Args:
        run: of `digitforge.train`, or its folder.
        to: base folder of the model; versions are numbered folders in it.
        data: the one that was given to `train`; needed where *run* is a folder. The identities of the training images
            travel with the model, so that nobody scores on them by accident.
        metrics: for the card, each with ``value`` and ``n``.
        expansion: what latents are multiplied by inside the model, above 0: above 1 for more variety and less density.
            ``auto``: what the judge finds nearest to held-out or training images.
        judge: who chooses, with ``auto``.
        name: of the model, for the card and the warm-up requests.
        on_expansion: called with the expansion that was given or chosen.

    Returns:
        The folder of the new version.

    Raises:
        DataError: there is no run, it has no checkpoint, or the folder cannot be written.
        InvalidInputError: the data set is not the one the run was trained on, the expansion is no number above 0, or
            there is no such judge.
    """
    given = None if expansion == "auto" else Expansion(factor=expansion)
    folder = run.folder if isinstance(run, TrainedRun) else Path(run)
    read_run(folder)  # a folder without a run is noticed before data are read or downloaded for it
    if data is None:
        if not isinstance(run, TrainedRun):
            raise InvalidInputError(f"what was {run} trained on? Give the same data as in training")
        data = run.data
    dataset = data if isinstance(data, Dataset) else load(data)
    import_quietly("tensorflow")
    from digitforge_training.export import saved_model

    chosen = given or saved_model.choose_expansion(folder, dataset, judge=judge)
    on_expansion(chosen)
    return saved_model.export(folder, dataset, to=Path(to), metrics=metrics, expansion=chosen, name=name)
