"""From images to the features that distances are measured in.

`digitnet()` is the shipped network; `CallableFeatures` wraps any function of your own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features import digitnet as network

DATA = Path(__file__).parents[1] / "data"
WEIGHTS = DATA / f"{network.NAME}.npz"

#: Images in one pass of the network; some 100 MiB of activations.
BATCH = 512


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one pass over some images gave."""

    features: npt.NDArray[np.float32]  # (n, d)
    probabilities: npt.NDArray[np.float32] | None  # (n, K); None if the network is no classifier of digits


class FeatureNetwork(Protocol):
    """What the metrics need of a network."""

    @property
    def name(self) -> str:
        """What stands in brackets behind a distance: ``fd[name]@10k``."""

    @property
    def caution(self) -> str | None:
        """What a reader must know of metrics in these features; None for nothing."""

    def measure(self, images: npt.NDArray[np.uint8]) -> Measured:
        """One pass over (n, H, W, C) uint8 images."""


class Digitnet:
    """digitnet-64: a small classifier trained on the whole of MNIST's training set.

    Its features of MNIST's training images are therefore a little tidier than those of images it has never seen.
    """

    name = network.NAME
    caution = None

    def __init__(self, weights: Path = WEIGHTS) -> None:
        """Load the network.

        Raises:
            DataError: *weights* does not hold its weights.
        """
        import tensorflow as tf

        model = network.load_network(weights)

        @tf.function(input_signature=[tf.TensorSpec((None, *network.IMAGE_SHAPE), tf.uint8)])
        def forward(images: Any) -> Any:
            features, logits = model(tf.cast(images, tf.float32) / 255, training=False)
            return features, tf.nn.softmax(logits)

        self._forward = forward

    def measure(self, images: npt.NDArray[np.uint8]) -> Measured:
        """Features and class probabilities in one pass.

        Args:
            images: (n, 28, 28, 1) uint8, 0 … 255, white digits on black.

        Returns:
            features (n, 64) float32 ≥ 0 and probabilities (n, 10) float32, rows summing to 1.

        Raises:
            InvalidInputError: the images are not (n, 28, 28, 1) uint8.
        """
        if images.ndim != 4 or images.shape[1:] != network.IMAGE_SHAPE or images.dtype != np.uint8:
            raise InvalidInputError(
                f"images are {images.dtype} {images.shape}; {self.name} takes uint8 (n, 28, 28, 1): resize them, or "
                "pass features of your own (digitforge_evaluation.features.extract.CallableFeatures)"
            )
        features = np.empty((len(images), network.FEATURES), np.float32)
        probabilities = np.empty((len(images), network.CLASSES), np.float32)
        for at in range(0, len(images), BATCH):
            rows = slice(at, at + BATCH)
            features[rows], probabilities[rows] = self._forward(images[rows])
        return Measured(features=features, probabilities=probabilities)

    def features(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Features alone: (n, 28, 28, 1) uint8 => (n, 64) float32; errors as in `measure`."""
        return self.measure(images).features

    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Class probabilities alone: (n, 28, 28, 1) uint8 => (n, 10) float32; errors as in `measure`."""
        probabilities = self.measure(images).probabilities
        assert probabilities is not None
        return probabilities


@functools.cache
def digitnet() -> Digitnet:
    """The shipped feature network, loaded once per process."""
    return Digitnet()


@dataclass(frozen=True, kw_only=True)
class CallableFeatures:
    """Features by any function, for instance one layer of a network of your own."""

    name: str  # stands in brackets behind a distance
    function: Callable[[npt.NDArray[np.uint8]], npt.ArrayLike]  # (n, H, W, C) uint8 => (n, d) real numbers
    caution: str | None = None

    def measure(self, images: npt.NDArray[np.uint8]) -> Measured:
        """Features of (n, H, W, C) uint8 images; no probabilities.

        Raises:
            InvalidInputError: the function did not return one row of numbers per image.
        """
        features = np.asarray(self.function(images))
        if features.ndim != 2 or len(features) != len(images) or features.dtype.kind not in "fiu":
            raise InvalidInputError(
                f"the features {self.name} of {len(images)} images are {features.dtype} {features.shape}; "
                f"expected real numbers ({len(images)}, d)"
            )
        return Measured(features=features.astype(np.float32), probabilities=None)
