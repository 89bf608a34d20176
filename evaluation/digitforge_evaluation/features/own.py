"""Features for images that digitnet-64 does not suit, made from the user's own real training images.

With enough training images, the features come from a small network of the kind of digitnet-64, trained to tell the
classes of these images apart. With fewer, they are principal components of the pixels. A trained network is kept in the
cache, under the SHA-256 of its training images and settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.common.files import make_folder
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.features import digitnet as network
from digitforge_evaluation.features.extract import About, Classifier, FeatureNetwork, Measured
from digitforge_training.data import Dataset
from digitforge_training.data.mnist import cache_dir

#: Training images per class, on average, from which on a network is trained.
FEWEST_PER_CLASS: Final = 50
#: Largest number of principal components, as many as the network has features.
MOST_COMPONENTS: Final = network.FEATURES
#: Training images for each principal component. The held-out images are fewer, and a covariance needs more images than
#: components: this number leaves both halves of a fifth of the images enough.
_IMAGES_PER_COMPONENT: Final = 10


@dataclass(frozen=True, kw_only=True)
class OwnConfig:
    """How to train a network on the user's images. The other settings are those of digitnet-64."""

    #: Images shown to the network: `passes` over the training images, but at least and at most so many.
    images: tuple[int, int] = (48_000, 192_000)
    passes: int = 40
    batch: int = 128  #: images; fewer if there are not that many
    seed: int = 0  #: of weights, batches, augmentation and dropout


def own_features(
    train: Dataset, *, config: OwnConfig | None = None, progress: Callable[[str], None] = lambda _: None
) -> FeatureNetwork:
    """Make features from real training images: a network, or principal components if there are few images.

    Args:
        train: the real training images. Test images must not be among them.
        config: how to train the network; None for the defaults.
        progress: called with a line of text while the network is trained.

    Raises:
        InvalidInputError: the images are all the same.
        DataError: the cache cannot be written.
    """
    if len(train) < FEWEST_PER_CLASS * len(train.class_names):
        return PixelComponents(train)
    return trained_network(train, config=config or OwnConfig(), progress=progress)


def trained_network(
    train: Dataset, *, config: OwnConfig, progress: Callable[[str], None] = lambda _: None
) -> Classifier:
    """Train a network on real training images, or load it from the cache.

    Args:
        train: the real training images.
        config: how to train it.
        progress: called with a line of text after each pass over the images.

    Raises:
        DataError: the cache cannot be written.
    """
    settings = _settings(train, config)
    name = f"own-{_hash(train.sha256, settings)}"
    path = cache_dir() / "features" / f"{name}.npz"
    shape: dict[str, Any] = {"image_shape": train.images.shape[1:], "classes": len(train.class_names)}
    model = None
    if path.is_file():
        with suppress(DataError):  # a damaged file is replaced
            model = network.load_network(path, **shape)
    if model is None:
        model = network.build_network(settings.dropout, **shape, seed=settings.seed)

        def report(epoch: int, _loss: float, accuracy: float) -> None:
            progress(
                f"training the features on {train.name}: {epoch / settings.epochs:.0%}, {accuracy:.1%} of the training "
                "images right"
            )

        progress(f"training the features on {train.name}")
        network.train_network(model, train.images, train.labels, settings, report)
        make_folder(path.parent)
        network.save_weights(model, path)
    return Classifier(
        model,
        name=name,
        class_names=train.class_names,
        about=About(
            made=f"{network.FEATURES} features of a small classifier that was trained on the {len(train)} real "
            f"training images of {train.name}.",
            sees=f"Differences that help to tell the {len(train.class_names)} classes apart, and images that look like "
            "none or several of them.",
            misses="Details that do not matter for the class. The network has seen the real training images, so it "
            "scores them higher than new images: compare with both floors. Values with other features, or for other "
            "data, are not comparable.",
        ),
    )


def _settings(train: Dataset, config: OwnConfig) -> network.DigitnetConfig:
    batch = min(config.batch, len(train))
    fewest, most = config.images
    images = min(max(fewest, config.passes * len(train)), most)
    epochs = max(1, round(images / (len(train) // batch * batch)))
    return replace(network.DigitnetConfig(), epochs=epochs, batch=batch, outside="nearest", seed=config.seed)


def _hash(sha256: str, settings: network.DigitnetConfig) -> str:
    """Six hexadecimal digits that depend on the training images and the settings."""
    return hashlib.sha256(f"{sha256} {json.dumps(asdict(settings), sort_keys=True)}".encode()).hexdigest()[:6]


class PixelComponents:
    """Principal components of the pixels of real training images, and the length of the rest.

    The rest is what the components leave of an image. Its length shows noise and patterns that no real image has. One
    factor scales everything, so that the variances of the components are 1 on average: the kernel distance depends on
    the scale.
    """

    caution = None
    class_names: tuple[str, ...] = ()

    def __init__(self, train: Dataset) -> None:
        """Find the components.

        Args:
            train: the real training images, at least two different ones.

        Raises:
            InvalidInputError: the images are all the same.
        """
        from sklearn.decomposition import PCA

        pixels = _flat(train.images)
        if not np.ptp(pixels, axis=0).any():
            raise InvalidInputError(
                f"all {len(train)} training images of {train.name} are the same; expected different images"
            )
        components = max(1, min(MOST_COMPONENTS, len(train) // _IMAGES_PER_COMPONENT, pixels.shape[1]))
        self._components = PCA(components, svd_solver="full").fit(pixels)
        self._scale = np.sqrt(self._components.explained_variance_.mean())
        self.name = f"pca{components}-{train.sha256[:6]}"
        explained = self._components.explained_variance_ratio_.sum()
        few = len(train) < FEWEST_PER_CLASS * len(train.class_names)
        self.about = About(
            made=f"{components} principal component{'s' * (components > 1)} of the pixels of the {len(train)} real "
            f"training images of {train.name}, which hold {explained:.0%} of the variance, and the size of what they "
            "leave out." + (f" A network needs {FEWEST_PER_CLASS} training images per class." if few else ""),
            sees="Where an image is bright or dark, its large shapes and colors, and how much else it holds.",
            misses="What else it holds: noise can pass for detail. They also miss what matters for the class, and a "
            "shifted image counts as a different one. Look at the samples.",
        )

    def measure(self, images: npt.NDArray[np.uint8]) -> Measured:
        """Compute the components of (n, H, W, C) uint8 images, and the length of the rest: (n, d + 1) float32.

        Raises:
            InvalidInputError: the images have another number of pixels than the training images.
        """
        pixels = _flat(images)
        if pixels.shape[1] != self._components.n_features_in_:
            raise InvalidInputError(
                f"images have the shape {images.shape}; {self.name} takes {self._components.n_features_in_} values per "
                "image, as in its training images"
            )
        if not len(pixels):
            return Measured(features=np.empty((0, self._components.n_components_ + 1), np.float32), probabilities=None)
        components = self._components.transform(pixels)
        rest = np.linalg.norm(pixels - self._components.inverse_transform(components), axis=1, keepdims=True)
        features = np.concatenate([components, rest], axis=1) / self._scale
        return Measured(features=features.astype(np.float32), probabilities=None)


def _flat(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return (images.reshape(len(images), -1) / 255).astype(np.float32)
