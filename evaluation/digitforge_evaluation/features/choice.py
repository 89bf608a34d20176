"""Finds a feature network by name: digitnet-64, the Inception network of the FID paper, or a user's function."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features.digitnet import NAME
from digitforge_evaluation.features.extract import CallableFeatures, FeatureNetwork, digitnet
from digitforge_evaluation.features.inception import Inception


def features_called(name: str) -> FeatureNetwork:
    """Load a feature network by name.

    Args:
        name: ``digitnet-64``, ``inception``, ``inception:FILE`` for the Inception graph in a file, or ``MODULE:NAME``
            for your own function (n, H, W, C) uint8 => (n, d) real numbers. The module may be in the current folder.

    Raises:
        InvalidInputError: the name is unknown, or the function cannot be imported.
        DataError: the Inception network cannot be loaded or downloaded.
    """
    if name == NAME:
        return digitnet()
    module, colon, attribute = name.partition(":")
    if module == "inception":
        return Inception(Path(attribute) if attribute else None)
    if not colon or not attribute:
        raise InvalidInputError(
            f"unknown features {name!r}; expected {NAME}, inception, inception:FILE, or MODULE:NAME of a function"
        )
    if str(Path.cwd()) not in sys.path:  # `python -m` adds it, an installed command does not
        sys.path.append(str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(
            f"cannot import the features {name!r}: {error}; expected MODULE:NAME of a function in the current folder "
            "or an installed package"
        ) from error
    if not callable(function):
        raise InvalidInputError(f"the features {name!r} are of type {type(function).__name__}; expected a function")
    return CallableFeatures(name=name, function=function)
