"""The feature network that a user names: the shipped one, the FID paper's, or a function of their own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features.digitnet import NAME
from digitforge_evaluation.features.extract import CallableFeatures, FeatureNetwork, digitnet
from digitforge_evaluation.features.inception import Inception


def features_called(name: str) -> FeatureNetwork:
    """The feature network that the user names.

    Args:
        name: ``digitnet-64``; ``inception``, or ``inception:FILE`` for its graph in a file; or ``MODULE:NAME`` for a
            function of your own, (n, H, W, C) uint8 => (n, d) real numbers, also from a module in this folder.

    Raises:
        InvalidInputError: there is no such function.
        DataError: the Inception network cannot be had.
    """
    if name == NAME:
        return digitnet()
    module, colon, attribute = name.partition(":")
    if module == "inception":
        return Inception(Path(attribute) if attribute else None)
    if not colon or not attribute:
        raise InvalidInputError(
            f"there are no features {name!r}; expected {NAME}, inception, inception:FILE, or MODULE:NAME of a "
            "function of your own"
        )
    if str(Path.cwd()) not in sys.path:  # as `python -m` has it, and a command has not
        sys.path.append(str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidInputError(f"the features {name!r} cannot be imported: {error}") from error
    if not callable(function):
        raise InvalidInputError(f"the features {name!r} are no function but a {type(function).__name__}")
    return CallableFeatures(name=name, function=function)
