"""Computes features of images.

`digitnet()` is the shipped network. `own` makes features from the user's training images. `CallableFeatures` wraps any
function of your own.
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

#: Folder of the shipped files.
DATA = Path(__file__).parents[1] / "data"
WEIGHTS = DATA / f"{network.NAME}.npz"

#: Images in one pass of the network; about 100 MiB of activations.
BATCH = 512


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The output of a feature network for some images."""

    features: npt.NDArray[np.float32]  #: (n, d)
    probabilities: npt.NDArray[np.float32] | None  #: (n, K) class probabilities; None if it does not classify images


@dataclass(frozen=True, kw_only=True)
class About:
    """What readers of a report must know about its features. Each text is one or more sentences."""

    made: str  #: what the features are, and where they come from
    sees: str  #: differences between images that change them
    misses: str  #: differences that they do not show, or show too strongly


class FeatureNetwork(Protocol):
    """The interface of a feature network."""

    @property
    def name(self) -> str:
        """The part in brackets of a metric's name: ``fd[name]@10k``."""

    @property
    def caution(self) -> str | None:
        """A warning for readers of metrics in these features, or None."""

    @property
    def about(self) -> About:
        """What the features are, and what they can and cannot see."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of its probabilities; empty if it does not classify images."""

    def measure(self, images: npt.NDArray[np.uint8]) -> Measured:
        """Compute the output for (n, H, W, C) uint8 images."""


class Classifier:
    """A classifier of the kind of digitnet-64. Its features are the activations before its last layer."""

    caution = None

    def __init__(self, model: Any, *, name: str, class_names: tuple[str, ...], about: About) -> None:
        """Use a trained network.

        Args:
            model: as `digitnet.build_network` describes it.
            name: name of the features in reports.
            class_names: the classes that it tells apart, K.
            about: what readers must know.
        """
        import tensorflow as tf

        self.name, self.class_names, self.about = name, class_names, about
        self._image_shape = tuple(model.input_shape[1:])

        @tf.function(input_signature=[tf.TensorSpec((None, *self._image_shape), tf.uint8)])
        def forward(images: Any) -> Any:
            features, logits = model(tf.cast(images, tf.float32) / 255, training=False)
            return features, tf.nn.softmax(logits)

        self._forward = forward

    def measure(self, images: npt.NDArray[np.uint8]) -> Measured:
        """Compute features and class probabilities in one pass.

        Args:
            images: (n, H, W, C) uint8, 0 … 255. digitnet-64 takes white digits on black, 28×28 pixels in gray.

        Returns:
            Features (n, 64) float32 ≥ 0, and probabilities (n, K) float32; each row sums to 1.

        Raises:
            InvalidInputError: the images have another shape or dtype.
        """
        if images.ndim != 4 or images.shape[1:] != self._image_shape or images.dtype != np.uint8:
            raise InvalidInputError(
                f"images have dtype {images.dtype} and shape {images.shape}; {self.name} takes uint8 "
                f"(n, {', '.join(map(str, self._image_shape))}): resize the images, or measure them with other "
                "features (`digitforge evaluate --features`)"
            )
        features = np.empty((len(images), network.FEATURES), np.float32)
        probabilities = np.empty((len(images), len(self.class_names)), np.float32)
        for at in range(0, len(images), BATCH):
            rows = slice(at, at + BATCH)
            features[rows], probabilities[rows] = self._forward(images[rows])
        return Measured(features=features, probabilities=probabilities)

    def features(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute only the features: (n, H, W, C) uint8 => (n, 64) float32. See `measure` for errors."""
        return self.measure(images).features

    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Compute only the class probabilities: (n, H, W, C) uint8 => (n, K) float32. See `measure` for errors."""
        probabilities = self.measure(images).probabilities
        assert probabilities is not None
        return probabilities


class Digitnet(Classifier):
    """digitnet-64: a small classifier trained on all of MNIST's training set.

    It separates the classes of those training images slightly better than those of new images.
    """

    def __init__(self, weights: Path = WEIGHTS) -> None:
        """Load the network.

        Raises:
            DataError: *weights* is missing, unreadable, or has the weights of another network.
        """
        super().__init__(
            network.load_network(weights),
            name=network.NAME,
            class_names=tuple(map(str, range(network.CLASSES))),
            about=About(
                made=f"{network.FEATURES} features of a classifier that was trained on MNIST's 60 000 training images.",
                sees="Differences in shape that matter for the class of a digit, and unclear or wrong digits.",
                misses="Details that do not matter for the class, such as the slant or a foot of a 1. It has seen "
                "MNIST's training images, so it scores them slightly higher than new digits.",
            ),
        )


@functools.cache
def digitnet() -> Digitnet:
    """The shipped feature network. It is loaded once per process."""
    return Digitnet()


@dataclass(frozen=True, kw_only=True)
class CallableFeatures:
    """Features from any function, for example a layer of your own network."""

    name: str  #: the part in brackets of a metric's name
    function: Callable[[npt.NDArray[np.uint8]], npt.ArrayLike]  #: (n, H, W, C) uint8 => (n, d) real numbers
    caution: str | None = None  #: a warning for readers of metrics in these features
    #: What readers must know.
    about: About = About(
        made="Numbers from your own function.",
        sees="Whatever the function computes from an image.",
        misses="Everything that the function ignores.",
    )
    class_names: tuple[str, ...] = ()  #: always empty: the function does not classify images

    def measure(self, images: npt.NDArray[np.uint8]) -> Measured:
        """Compute features of (n, H, W, C) uint8 images, without probabilities.

        Raises:
            InvalidInputError: the function did not return one row of real numbers per image.
        """
        features = np.asarray(self.function(images))
        if features.ndim != 2 or len(features) != len(images) or features.dtype.kind not in "fiu":
            raise InvalidInputError(
                f"the features {self.name} of {len(images)} images have dtype {features.dtype} and shape "
                f"{features.shape}; expected real numbers ({len(images)}, d)"
            )
        return Measured(features=features.astype(np.float32), probabilities=None)
