"""The card of a generator: its recipe, its training data and its `generator_id`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from digitforge_client.contract import CONTRACT_VERSION, MAX_ROWS, MODEL_NAME
from digitforge_training.export.expansion import NO_EXPANSION, Expansion
from digitforge_training.runs.folder import Run

_LIBRARIES = ("digitforge", "tensorflow", "keras", "numpy")


def make_card(
    run: Run,
    *,
    weights: Iterable[npt.NDArray[np.float32]],
    images_seen: int,
    metrics: Mapping[str, Mapping[str, Any]],
    expansion: Expansion = NO_EXPANSION,
    name: str = MODEL_NAME,
) -> dict[str, Any]:
    """Make the card as JSON-ready data, including its `generator_id`.

    Args:
        run: the run that trained the generator.
        weights: the generator's weights, in the order of its variables.
        images_seen: real images shown in training, including repetitions.
        metrics: metric name => ``value`` and sample size ``n``, and optionally ``interval`` and floors.
        expansion: expansion of the latents.
        name: name of the model.
    """
    card: dict[str, Any] = {
        "contract_version": CONTRACT_VERSION,
        "name": name,
        "recipe": run.recipe.name,
        "recipe_config": run.recipe.as_dict(),
        "image_shape": list(run.image_shape),
        "class_names": list(run.class_names),
        "latent_size": run.recipe.latent_size,
        "latent_law": run.recipe.latent_distribution,
        "expansion": expansion.as_dict(),
        "max_rows": MAX_ROWS,
        # "fitted" says how images became what the generator has seen. None if Python code made them.
        "training_data": {**run.training_data, "fitted": run.origin.as_dict() if run.origin else None},
        "images_seen": images_seen,
        "earlier_steps": list(run.earlier_steps),
        "seed": run.seed,
        **({"parent": run.parent} if run.parent else {}),
        "libraries": {library: version(library) for library in _LIBRARIES},
        "metrics": {metric: dict(figure) for metric, figure in metrics.items()},
    }
    return {**card, "generator_id": generator_id(card, weights)}


def generator_id(card: Mapping[str, Any], weights: Iterable[npt.NDArray[np.float32]]) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over the card without its `generator_id`, and the weights."""
    rest = {key: value for key, value in card.items() if key != "generator_id"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())
    for array in weights:
        digest.update(np.ascontiguousarray(array, dtype="<f4").data)
    return digest.hexdigest()[:16]
