"""Fixtures for the tests of experiments: real digits, generators, and quick plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digitforge_client.contract import image_hashes
from digitforge_evaluation.experiment.generators import Exported, GeneratorSource
from digitforge_evaluation.experiment.plan import Plan, identity
from digitforge_evaluation.experiment.run import run_cells
from digitforge_evaluation.experiment.store import CellKey, CellResult, open_store, read_store
from digitforge_evaluation.experiment.subsets import RealImages, hold_out
from digitforge_training.data import load
from digitforge_training.export.card import make_card
from digitforge_training.export.saved_model import ServedGenerator, publish
from digitforge_training.recipes import resolve
from digitforge_training.runs.folder import describe


@pytest.fixture(scope="session")
def real() -> RealImages:
    return hold_out(load("digits"), load("digits", split="test"), which="test")


@pytest.fixture(scope="session")
def exported(exported_model: Path) -> Exported:
    """A generator with little training that has seen the pool of `real`."""
    return Exported(exported_model)


@pytest.fixture(scope="session")
def without_classes(real: RealImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained generator without classes. Its export lists the pool of `real` as seen."""
    import keras

    latents = keras.Input((5,))
    generator = keras.Model(latents, keras.layers.Reshape((28, 28, 1))(keras.layers.Dense(784)(latents)))
    described = describe(resolve("forge", {"latent_size": 5}), real.pool, seed=0)
    card = {**make_card(described, weights=generator.get_weights(), images_seen=0, metrics={}), "class_names": []}
    folder = tmp_path_factory.mktemp("unconditional") / "digits"
    publish(ServedGenerator(generator, card, np.sort(image_hashes(real.pool.images))), to=folder, card=card)
    return folder


@pytest.fixture(scope="session")
def run_plan(real: RealImages) -> Callable[..., dict[CellKey, CellResult]]:
    """A function that runs the missing cells of a small plan in a folder. The default classifier is quick."""

    def run(
        folder: Path,
        *arms: str,
        sources: Mapping[str, GeneratorSource] | None = None,
        options: Mapping[str, Any] | None = None,  # of `run_cells`
        **settings: Any,
    ) -> dict[CellKey, CellResult]:
        plan = Plan(arms=arms, **{"n_per_class": (2,), "subsets": 2, "classifier": "svm", "steps": 4, **settings})
        path, sources = folder / "results.jsonl", sources or {}
        with open_store(path, identity=identity(plan, real, sources), about={}) as store:
            run_cells(plan, real, sources, store, **(options or {}))
        return read_store(path).cells

    return run
