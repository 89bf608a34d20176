"""digitforge: will synthetic images help my classifier, and by how much? One import for the whole library.

::

    import digitforge

    data = digitforge.load_data("digits")
    run = digitforge.train("forge-small", data, out="runs/mine", steps=2000)
    digitforge.export(run, to="models/digits")
    with digitforge.EmbeddedServer("models/digits") as target, digitforge.DigitClient(target) as client:
        batch = client.sample(1000, seed=7)
    report = digitforge.evaluate(batch.images, batch.labels, real="digits")
    result = digitforge.run_experiment("runs/help", model="models/digits", data="digits")

* ``DigitClient``, ``AsyncDigitClient`` and all other names of ``digitforge_client`` request digits from a server.
* ``load_data``, ``RECIPES``, ``train``, ``adapt`` and ``export`` make a generator. They need ``digitforge[training]``.
* ``EmbeddedServer`` serves a generator from this process. It needs ``digitforge[serving]``.
* ``evaluate`` and ``run_experiment`` measure digits and their effect on a classifier. They need
  ``digitforge[evaluation]``.

The import is light: TensorFlow is imported when a function needs it. If an extra is missing, the error names it.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import digitforge_client
from digitforge_client.common.extras import needs_extra

if TYPE_CHECKING:
    from digitforge_client import *  # noqa: F403
    from digitforge_evaluation.quality.evaluate import evaluate
    from digitforge_evaluation.run_experiment import ExperimentResult, run_experiment
    from digitforge_serving.server import EmbeddedServer
    from digitforge_training.adaptation import adapt
    from digitforge_training.data import Dataset, DataSource
    from digitforge_training.data import load as load_data
    from digitforge_training.export.export import export
    from digitforge_training.recipes import RECIPES
    from digitforge_training.runs.train import TrainedRun, train

__all__ = [
    "RECIPES",
    "DataSource",
    "Dataset",
    "EmbeddedServer",
    "ExperimentResult",
    "TrainedRun",
    "__version__",
    "adapt",
    "evaluate",
    "export",
    "load_data",
    "run_experiment",
    "train",
]
__all__ += digitforge_client.__all__

__version__ = version("digitforge")

#: Name => "module:name" in the component that defines it.
_SOURCES = {
    "RECIPES": "digitforge_training.recipes:RECIPES",
    "DataSource": "digitforge_training.data:DataSource",
    "Dataset": "digitforge_training.data:Dataset",
    "EmbeddedServer": "digitforge_serving.server:EmbeddedServer",
    "ExperimentResult": "digitforge_evaluation.run_experiment:ExperimentResult",
    "TrainedRun": "digitforge_training.runs.train:TrainedRun",
    "adapt": "digitforge_training.adaptation:adapt",
    "evaluate": "digitforge_evaluation.quality.evaluate:evaluate",
    "export": "digitforge_training.export.export:export",
    "load_data": "digitforge_training.data:load",
    "run_experiment": "digitforge_evaluation.run_experiment:run_experiment",
    "train": "digitforge_training.runs.train:train",
}


def __getattr__(name: str) -> Any:
    """Import a name from its component when it is first used."""
    if name in _SOURCES:
        module, _, source_name = _SOURCES[name].partition(":")
        extra, what = module.partition(".")[0].removeprefix("digitforge_"), f"digitforge.{name}"
        with needs_extra(extra, what):
            value = getattr(importlib.import_module(module), source_name)
        if not isinstance(value, type) and callable(value):
            value = needs_extra(extra, what)(value)
    elif name in digitforge_client.__all__:
        value = getattr(digitforge_client, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
