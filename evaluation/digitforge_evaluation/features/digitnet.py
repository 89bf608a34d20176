"""digitnet-64: the small convolutional classifier that computes the features of digits, and networks of the same kind.

digitnet-64 is trained on MNIST's training set and shipped in ``data/digitnet-64.npz``. To train it again (about eight
minutes on two cores)::

    python -m digitforge_evaluation.cli.yardstick network --out digitnet-64.npz

Its 64 features are the activations before the last layer. It measures 10 000 digits in a few seconds. `own` trains
networks of the same kind for other images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from digitforge_client.common.archives import open_archive
from digitforge_client.common.files import replacing

NAME = "digitnet-64"
FEATURES = 64
CLASSES = 10
IMAGE_SHAPE = (28, 28, 1)
_LARGE: Final = 40  # pixels: from this side on, the first layer halves the image, which bounds the time of a pass


@dataclass(frozen=True, kw_only=True)
class DigitnetConfig:
    """How to train the feature network. There are no flips in the augmentation: a mirrored 2 is not a digit."""

    epochs: int = 14  #: passes over the images
    batch: int = 128  #: images
    learning_rate: float = 2e-3  #: peak of Adam's learning rate: one epoch of linear warm-up, then a cosine to zero
    shift: float = 2.0  #: pixels of a 28-pixel image; uniform in ± this, on both axes
    rotation: float = 12.0  #: degrees; uniform in ± this
    scale: float = 0.12  #: relative; uniform in 1 ± this
    dropout: float = 0.3  #: share of the 64 features dropped, in training only
    #: Pixels from outside the image: ``constant`` is black, ``nearest`` repeats the border.
    outside: Literal["constant", "nearest"] = "constant"
    seed: int = 0  #: of batches and augmentation


def build_network(
    dropout: float = 0.0,
    *,
    image_shape: tuple[int, ...] = IMAGE_SHAPE,
    classes: int = CLASSES,
    seed: int | None = None,
) -> Any:
    """Build the network with new weights.

    Args:
        dropout: share of the features dropped, in training only.
        image_shape: (H, W, C), from 16×16 pixels on.
        classes: number of classes, K.
        seed: for the weights and the dropout. None: they depend on Keras's global seed.

    Returns:
        A Keras model: (n, H, W, C) float32 in [0, 1] => [(n, 64) features ≥ 0, (n, K) logits].
    """
    import keras

    layers = keras.layers
    seeds = itertools.repeat(None) if seed is None else itertools.count(1000 * seed)

    def weights() -> Any:
        return keras.initializers.GlorotUniform(seed=next(seeds))  # Keras's default

    x = images = keras.Input(image_shape, name="images")
    first = 2 if max(image_shape[:2]) >= _LARGE else 1
    for block, (width, stride) in enumerate([(24, first), (48, 2), (48, 1), (96, 2), (96, 1)], start=1):
        x = layers.Conv2D(
            width,
            3,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer=weights(),
            name=f"conv_{block}",
        )(x)
        x = layers.BatchNormalization(momentum=0.95, name=f"norm_{block}")(x)
        x = layers.ReLU(name=f"relu_{block}")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)  # 7 × 7 => 3 × 3
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(FEATURES, use_bias=False, kernel_initializer=weights(), name="dense")(x)
    x = layers.BatchNormalization(momentum=0.95, name="norm_features")(x)
    features = layers.ReLU(name="features")(x)
    kept = layers.Dropout(dropout, seed=next(seeds), name="dropout")(features)
    logits = layers.Dense(classes, kernel_initializer=weights(), name="logits")(kept)
    return keras.Model(images, [features, logits], name=NAME.replace("-", "_"))


def random_affine(
    rng: np.random.Generator, n: int, config: DigitnetConfig, *, side: int = IMAGE_SHAPE[0]
) -> npt.NDArray[np.float32]:
    """Draw *n* random small shifts, rotations and scalings around the center of an image of *side* × *side* pixels.

    Returns:
        (n, 8) float32 with rows (a0, a1, a2, b0, b1, b2, 0, 0): output pixel (x, y) shows the input point
        (a0·x + a1·y + a2, b0·x + b1·y + b2).
    """
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation, n))
    zoom = rng.uniform(1 - config.scale, 1 + config.scale, n)
    shift_x, shift_y = rng.uniform(-config.shift, config.shift, (2, n)) * (side / IMAGE_SHAPE[0])
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    center = (side - 1) / 2
    offset_x = center - cos * center + sin * center + shift_x
    offset_y = center - sin * center - cos * center + shift_y
    zero = np.zeros(n)
    return np.stack([cos, -sin, offset_x, sin, cos, offset_y, zero, zero], axis=1).astype(np.float32)


def train_network(
    model: Any,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    config: DigitnetConfig,
    report: Callable[[int, float, float], None],
) -> None:
    """Train a feature network. The same arguments give the same batches, and the same weights up to rounding.

    Args:
        model: a network from `build_network`, with new weights.
        images: (n, H, W, C) uint8, n ≥ ``config.batch``, H = W.
        labels: (n,) int64, 0 … K − 1.
        config: the settings.
        report: called after each epoch with its number, the mean loss, and the accuracy on the augmented images.
    """
    import keras
    import tensorflow as tf

    rng = np.random.default_rng(config.seed)
    steps = len(images) // config.batch
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=config.learning_rate / 100,
        warmup_target=config.learning_rate,
        warmup_steps=steps,
        decay_steps=steps * max(config.epochs - 1, 1),
    )
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(batch: Any, targets: Any, transforms: Any) -> tuple[Any, Any]:
        pixels = keras.ops.image.affine_transform(
            tf.cast(batch, tf.float32) / 255, transforms, fill_mode=config.outside
        )
        with tf.GradientTape() as tape:
            _, logits = model(pixels, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients)
        hit = tf.reduce_mean(tf.cast(tf.argmax(logits, axis=1) == targets, tf.float32))
        return loss, hit

    for epoch in range(1, config.epochs + 1):
        order = rng.permutation(len(images))
        totals = np.zeros(2)
        for at in range(steps):
            rows = order[at * config.batch : (at + 1) * config.batch]
            loss, hit = step(images[rows], labels[rows], random_affine(rng, len(rows), config, side=images.shape[1]))
            totals += float(loss), float(hit)
        report(epoch, *(totals / steps))


def save_weights(model: Any, path: Path) -> None:
    """Write the weights atomically: one array per variable, named by its path."""
    arrays: dict[str, Any] = {weight.path: np.asarray(weight, np.float32) for weight in _weights(model)}
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)


def _weights(model: Any) -> list[Any]:
    """All variables except the state of dropout's random generator."""
    return [weight for weight in model.weights if "seed" not in weight.path]


def load_network(path: Path, *, image_shape: tuple[int, ...] = IMAGE_SHAPE, classes: int = CLASSES) -> Any:
    """Load a network from a file written by `save_weights`.

    Args:
        path: the file.
        image_shape: (H, W, C) of the images that the network takes.
        classes: number of classes.

    Raises:
        DataError: the file is missing, unreadable, or has the weights of another network.
    """
    model = build_network(image_shape=image_shape, classes=classes)
    advice = f"reinstall digitforge, or train {NAME} again with `python -m digitforge_evaluation.cli.yardstick network`"
    with open_archive(path, advice=advice) as arrays:
        for weight in _weights(model):
            weight.assign(arrays[weight.path])
    return model


def accuracy(model: Any, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], batch: int = 500) -> float:
    """Compute the share of images whose most probable class is their label.

    Args:
        model: as `build_network` describes it.
        images: (n, 28, 28, 1) uint8.
        labels: (n,) int64.
        batch: images per pass.

    Returns:
        0 … 1; NaN without images.
    """
    right = 0
    for at in range(0, len(images), batch):
        _, logits = model(images[at : at + batch].astype(np.float32) / 255, training=False)
        right += int((np.asarray(logits).argmax(axis=1) == labels[at : at + batch]).sum())
    return right / len(images) if len(images) else math.nan
