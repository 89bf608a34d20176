"""Chooses features: by name, or those that suit the real images."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features.digitnet import CLASSES, IMAGE_SHAPE, NAME
from digitforge_evaluation.features.extract import CallableFeatures, FeatureNetwork, digitnet
from digitforge_evaluation.features.inception import Inception
from digitforge_evaluation.features.own import PixelComponents, own_features
from digitforge_training.data import Dataset

#: digitnet-64 suits images if it recognizes this share of them. It recognizes over 90 % of scikit-learn's digits, which
#: other people wrote.
_RECOGNIZED: Final = 0.75
_TRIED: Final = 1000  # training images that it is tried on


def features_called(
    name: str | None = None, *, train: Dataset | None = None, progress: Callable[[str], None] = lambda _: None
) -> FeatureNetwork:
    """Load features by name, or choose them.

    Args:
        name: ``digitnet-64``; ``own`` for features made from the real training images, see `own_features`; ``pca`` for
            principal components of their pixels; ``inception``; ``inception:FILE`` for the Inception graph in a file;
            or ``MODULE:NAME`` for your own function (n, H, W, C) uint8 => (n, d) real numbers. The module may be in the
            current folder. None: digitnet-64 if it suits the images, see `digitnet_suits`, else ``own``.
        train: the real training images; None if there are none.
        progress: called with a line of text while a network is trained.

    Raises:
        InvalidInputError: the name is unknown, the function cannot be imported, or real images are missing.
        DataError: the Inception network cannot be loaded or downloaded, or the cache cannot be written.
    """
    if name is None:
        name = NAME if train is None or digitnet_suits(train) else "own"
    if name == NAME:
        return digitnet()
    if name in ("own", "pca"):
        if train is None:
            raise InvalidInputError(f"the features {name} are made from real training images: give --data as well")
        return own_features(train, progress=progress) if name == "own" else PixelComponents(train)
    module, colon, attribute = name.partition(":")
    if module == "inception":
        return Inception(Path(attribute) if attribute else None)
    if not colon or not attribute:
        raise InvalidInputError(
            f"unknown features {name!r}; expected {NAME}, own, pca, inception, inception:FILE, or MODULE:NAME of a "
            "function"
        )
    return _function(name, module, attribute)


def digitnet_suits(train: Dataset) -> bool:
    """Whether digitnet-64 suits these images: the ten digits, 28×28 in gray, and it recognizes most of them.

    Args:
        train: real training images. Only the first ones are looked at, after a shuffle.
    """
    digits = tuple(map(str, range(CLASSES)))
    if train.images.shape[1:] != IMAGE_SHAPE or train.class_names != digits:
        return False
    some = np.random.default_rng(0).permutation(len(train))[:_TRIED]
    right = digitnet().probabilities(train.images[some]).argmax(axis=1) == train.labels[some]
    return bool(right.mean() >= _RECOGNIZED)


def _function(name: str, module: str, attribute: str) -> CallableFeatures:
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
