"""The downstream classifiers learn, are reproducible, and start each fit from scratch."""

from __future__ import annotations

import numpy as np
import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers import classifiers
from digitforge_evaluation.classifiers.classifiers import BATCH_SIZE, CLASSIFIERS, Cnn, Draw, Images, Labels, classifier
from digitforge_evaluation.experiment.draws import draw_for
from digitforge_training.data import Dataset, load

STEPS_PER_CALL = 4
STEPS = 5  # one more step than a call of the graph takes


@pytest.fixture(scope="module")
def training() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def held_out() -> Dataset:
    return load("digits", split="test")


@pytest.fixture(scope="module")
def cnn() -> Cnn:
    return Cnn(image_shape=(28, 28, 1), classes=10, steps=STEPS)


@pytest.fixture
def _short_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each call of the graph take four steps instead of fifty, so that five steps need two calls."""
    monkeypatch.setattr(classifiers, "STEPS_PER_CALL", STEPS_PER_CALL)


def _real(data: Dataset) -> Draw:
    return draw_for("real", images=data.images, labels=data.labels)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_learns_real_digits_and_returns_probabilities(
    name: str, training: Dataset, held_out: Dataset
) -> None:
    model = classifier(name, image_shape=(28, 28, 1), classes=10, steps=80 if name == "cnn" else 40)
    model.fit(_real(training), seed=0)
    predicted, confidence = model.predict_surely(held_out.images)
    assert predicted.dtype == np.int64
    right = predicted == held_out.labels
    assert right.mean() > 0.9
    np.testing.assert_array_equal(predicted, model.predict(held_out.images))
    if name == "svm":
        assert (confidence == 1).all()  # an SVM computes no probabilities
    else:
        assert ((confidence > 0.1 - 1e-6) & (confidence <= 1 + 1e-6)).all()
        assert confidence[right].mean() > confidence[~right].mean()


@pytest.mark.usefixtures("_short_calls")
def test_the_same_seed_gives_the_same_network_after_any_earlier_fit(
    cnn: Cnn, training: Dataset, held_out: Dataset
) -> None:
    def fitted(data: Dataset, seed: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        cnn.fit(_real(data), seed=seed)
        return [variable.numpy() for variable in cnn._network.trainable_variables]

    first = fitted(training, seed=1)
    other = fitted(held_out, seed=2)
    again = fitted(training, seed=1)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(first, again, strict=True))
    assert not all(np.allclose(a, b, atol=1e-2) for a, b in zip(first, other, strict=True))


@pytest.mark.usefixtures("_short_calls")
def test_every_fit_takes_the_same_number_of_steps_and_one_graph_for_any_number_of_images(
    cnn: Cnn, training: Dataset
) -> None:
    for data in (training.subset(np.arange(20)), training):
        asked: list[int] = []
        draw = _real(data)

        def counting(
            rows: int, rng: np.random.Generator, draw: Draw = draw, asked: list[int] = asked
        ) -> tuple[Images, Labels]:
            asked.append(rows)
            return draw(rows, rng)

        cnn.fit(counting, seed=0)
        cnn.predict(data.images)
        assert sum(asked) == STEPS * BATCH_SIZE
        assert int(cnn._optimizer.iterations) == STEPS
    assert cnn._train.experimental_get_tracing_count() == 1
    assert cnn._probabilities_of.experimental_get_tracing_count() == 1


def test_other_image_sizes_and_numbers_of_classes_work() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8), np.arange(30) % 3
    model = classifier("cnn", image_shape=(32, 32, 3), classes=3, steps=2)
    model.fit(draw_for("real", images=images, labels=labels), seed=0)
    assert model.predict(images).shape == (30,)
    assert model.predict(images[:0]).shape == (0,)


def test_the_error_about_an_unknown_classifier_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"resnet.*expected one of cnn, cnn-large, logistic"):
        classifier("resnet", image_shape=(28, 28, 1), classes=10, steps=1)
    with pytest.raises(InvalidInputError, match="at least 1"):
        classifier("cnn", image_shape=(28, 28, 1), classes=10, steps=0)
