"""The downstream classifiers, whose accuracy an experiment measures.

``fit(draw, seed=...)`` trains a classifier: *draw* returns training images. The arms of an experiment differ only in
*draw*. Architecture, optimizer steps, batch size and schedule belong to the classifier and are the same in every arm.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.estimators import estimator_by_path

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
#: ``draw(rows, rng)`` returns (rows, H, W, C) uint8 images and (rows,) int64 labels.
Draw = Callable[[int, np.random.Generator], tuple[Images, Labels]]

BATCH_SIZE: Final = 64
LEARNING_RATE: Final = 2e-3  #: at the start; decays to zero along a cosine
WEIGHT_DECAY: Final = 1e-4
STEPS_PER_CALL: Final = 50  #: optimizer steps in one call of the graph
PREDICTION_BATCH: Final = 1000
#: Largest number of rows to fit a scikit-learn classifier on. More rows take longer without better accuracy.
SCIKIT_ROWS: Final = 4_000


class Classifier(Protocol):
    """The interface of a classifier."""

    def fit(self, draw: Draw, *, seed: int) -> None:
        """Train from scratch on the images of *draw*. The same *seed* gives the same classifier."""

    def predict(self, images: Images) -> Labels:
        """Predict the classes, (n,) int64, of (n, H, W, C) uint8 images."""

    def predict_surely(self, images: Images) -> tuple[Labels, npt.NDArray[np.float64]]:
        """Predict the classes, and their probabilities (n,): 1 if the classifier does not compute probabilities."""


class Cnn:
    """A small or large convolutional network, trained with AdamW.

    The graph is traced once per object, and each `fit` resets the weights: tracing takes longer than training on a
    hundred images.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], classes: int, steps: int, large: bool = False) -> None:
        """Build the network.

        Args:
            image_shape: height, width, channels.
            classes: number of classes.
            steps: optimizer steps of a fit, each on ``BATCH_SIZE`` images.
            large: whether to build the large network. For 28×28 images it has 459 thousand weights, the small one has
                114 thousand.
        """
        import keras
        import tensorflow as tf

        self._steps = steps
        self._network = _network(image_shape, classes, large=large)
        schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, decay_steps=steps)
        self._optimizer = keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY)
        self._optimizer.build(self._network.trainable_variables)
        loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        def scaled(images: Any) -> Any:
            return tf.cast(images, tf.float32) / 255.0

        def train(images: Any, labels: Any) -> None:
            """Take *steps* optimizer steps on (steps, batch, H, W, C) uint8 images and (steps, batch) labels."""
            for step in tf.range(tf.shape(images)[0]):
                with tf.GradientTape() as tape:
                    loss = loss_of(labels[step], self._network(scaled(images[step]), training=True))
                variables = self._network.trainable_variables
                self._optimizer.apply(tape.gradient(loss, variables), variables)

        def probabilities_of(images: Any) -> Any:
            return tf.nn.softmax(self._network(scaled(images), training=False))

        some_images = tf.TensorSpec((None, *image_shape), tf.uint8)
        self._train = tf.function(
            train,
            input_signature=(
                tf.TensorSpec((None, BATCH_SIZE, *image_shape), tf.uint8),
                tf.TensorSpec((None, BATCH_SIZE), tf.int64),
            ),
        )
        self._probabilities_of = tf.function(probabilities_of, input_signature=(some_images,))

    def fit(self, draw: Draw, *, seed: int) -> None:
        """Train from new weights; see `Classifier`."""
        rng = np.random.default_rng(seed)
        self._reset(rng)
        for done in range(0, self._steps, STEPS_PER_CALL):
            steps = min(STEPS_PER_CALL, self._steps - done)
            images, labels = draw(steps * BATCH_SIZE, rng)
            self._train(images.reshape(steps, BATCH_SIZE, *images.shape[1:]), labels.reshape(steps, BATCH_SIZE))

    def _reset(self, rng: np.random.Generator) -> None:
        """Set new random weights (He et al., 2015) and zero biases, and reset the optimizer."""
        for variable in self._network.trainable_variables:
            shape = tuple(variable.shape)
            if len(shape) == 1:
                variable.assign(np.zeros(shape, np.float32))
            else:
                fan_in = np.prod(shape[:-1])
                variable.assign(rng.normal(0.0, np.sqrt(2.0 / fan_in), shape).astype(np.float32))
        for variable in self._network.non_trainable_variables:  # states of the random generators of dropout layers
            variable.assign(rng.integers(0, 2**31, tuple(variable.shape)).astype(variable.dtype))
        for variable in self._optimizer.variables:  # momenta, and the step count of the schedule
            if variable.path.rpartition("/")[2] != "learning_rate":
                variable.assign(np.zeros(tuple(variable.shape), variable.dtype))

    def predict(self, images: Images) -> Labels:
        """Predict the classes; see `Classifier`."""
        return self.predict_surely(images)[0]

    def predict_surely(self, images: Images) -> tuple[Labels, npt.NDArray[np.float64]]:
        """Predict the classes and their probabilities; see `Classifier`."""
        if not len(images):
            return np.zeros(0, np.int64), np.zeros(0)
        probabilities = np.concatenate(
            [
                self._probabilities_of(images[start : start + PREDICTION_BATCH]).numpy()
                for start in range(0, len(images), PREDICTION_BATCH)
            ]
        )
        return probabilities.argmax(axis=1).astype(np.int64), probabilities.max(axis=1).astype(np.float64)


def _network(image_shape: tuple[int, int, int], classes: int, *, large: bool) -> Any:
    """Build the network. The large one is close to the best small networks on MNIST: it can show tenths of a point."""
    import keras
    from keras import layers

    convolutions = [(32, 5), (64, 3), (64, 3)] if large else [(16, 5), (32, 5)]  # filters, side
    network = keras.Sequential([keras.Input(image_shape)])
    for place, (filters, side) in enumerate(convolutions):
        network.add(layers.Conv2D(filters, side, padding="same", activation="relu"))
        if place < 2:
            network.add(layers.MaxPooling2D(2))
    network.add(layers.Flatten())
    network.add(layers.Dropout(0.5))
    network.add(layers.Dense(128 if large else 64, activation="relu"))
    network.add(layers.Dropout(0.5))
    network.add(layers.Dense(classes))
    return network


class Scikit:
    """A scikit-learn classifier on pixels. A fit draws all its rows at once."""

    def __init__(self, make: Callable[[int], Any], *, rows: int) -> None:
        """Prepare a classifier.

        Args:
            make: builds a new estimator from a random state.
            rows: number of rows to fit it on.
        """
        self._make = make
        self._rows = rows
        self._estimator: Any = None

    def fit(self, draw: Draw, *, seed: int) -> None:
        """Fit a new estimator; see `Classifier`."""
        from threadpoolctl import threadpool_limits

        images, labels = draw(self._rows, np.random.default_rng(seed))
        # One thread: on such small problems, several threads mostly wait for each other.
        with threadpool_limits(limits=1):
            self._estimator = self._make(seed).fit(_flat(images), labels)

    def predict(self, images: Images) -> Labels:
        """Predict the classes; see `Classifier`."""
        return np.asarray(self._estimator.predict(_flat(images)), dtype=np.int64)

    def predict_surely(self, images: Images) -> tuple[Labels, npt.NDArray[np.float64]]:
        """Predict the classes and their probabilities; see `Classifier`."""
        classes = self.predict(images)
        if not hasattr(self._estimator, "predict_proba"):
            return classes, np.ones(len(classes))
        return classes, np.asarray(self._estimator.predict_proba(_flat(images))).max(axis=1)


def _flat(images: Images) -> npt.NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32) / 255.0


def _logistic_regression(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=0.1, max_iter=200, random_state=seed)


def _rbf_svm(seed: int) -> Any:
    from sklearn.svm import SVC

    return SVC(C=5.0, random_state=seed)


def _random_forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=200, random_state=seed)


_SCIKIT: Final = {"logistic": _logistic_regression, "svm": _rbf_svm, "forest": _random_forest}
_CNNS: Final = ("cnn", "cnn-large")
CLASSIFIERS: Final = (*_CNNS, *_SCIKIT)


def check_classifier(name: str) -> None:
    """Check the name of a classifier.

    Raises:
        InvalidInputError: the name is unknown, or the estimator cannot be imported or used.
    """
    if ":" in name:
        estimator_by_path(name)
    elif name not in CLASSIFIERS:
        raise InvalidInputError(
            f"unknown classifier {name!r}; expected one of {', '.join(CLASSIFIERS)}, or MODULE:NAME of your own"
        )


def learns_stepwise(name: str) -> bool:
    """Whether a classifier draws its training images step by step, so that their order counts."""
    return name in _CNNS


@lru_cache(maxsize=4)
def classifier(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    steps: int,
    copy: int = 0,  # noqa: ARG001 - for the cache alone
) -> Classifier:
    """Build a classifier by name. The last four are cached, so the same arguments give the same object.

    Args:
        name: one of ``CLASSIFIERS``, or ``MODULE:NAME`` for `estimator_by_path`.
        image_shape: height, width, channels.
        classes: number of classes.
        steps: optimizer steps of a fit, each on ``BATCH_SIZE`` rows. A scikit-learn classifier takes the same number
            of rows at once, but at most ``SCIKIT_ROWS``, and runs until it converges.
        copy: different numbers give different objects, which can be trained independently.

    Raises:
        InvalidInputError: the name is unknown, the estimator cannot be imported or used, or *steps* is below 1.
    """
    if steps < 1:
        raise InvalidInputError(f"steps is {steps}; expected at least 1")
    if name in _CNNS:
        return Cnn(image_shape=image_shape, classes=classes, steps=steps, large=name == "cnn-large")
    check_classifier(name)
    make = _SCIKIT[name] if name in _SCIKIT else estimator_by_path(name)
    return Scikit(make, rows=min(steps * BATCH_SIZE, SCIKIT_ROWS))
