"""Losses: parity with cross-entropy and with the published formulas."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from digitforge_training.gan import losses
from digitforge_training.recipes import LossName

SCORES = npst.arrays(np.float32, 6, elements=st.floats(-8, 8, width=32))


@given(score=SCORES, smoothing=st.floats(0, 0.5))
def test_the_original_losses_are_cross_entropies_of_a_sigmoid(score: np.ndarray, smoothing: float) -> None:
    probability = np.asarray(tf.sigmoid(score.astype(np.float64)))

    def cross_entropy(target: float) -> np.ndarray:
        return np.asarray(-(target * np.log(probability) + (1 - target) * np.log1p(-probability)))

    for loss in ("minimax", "non-saturating"):
        np.testing.assert_allclose(
            losses.on_real(loss, score, smoothing=smoothing), cross_entropy(1 - smoothing), atol=1e-4
        )
        np.testing.assert_allclose(losses.on_generated(loss, score), cross_entropy(0), atol=1e-4)
    np.testing.assert_allclose(losses.for_generator("non-saturating", score), cross_entropy(1), atol=1e-4)
    np.testing.assert_allclose(losses.for_generator("minimax", score), -cross_entropy(0), atol=1e-4)


def test_cross_entropy_is_the_one_that_keras_computes_behind_a_sigmoid() -> None:
    score = np.linspace(-5, 5, 11, dtype=np.float32)
    keras_loss = keras.losses.BinaryCrossentropy(reduction=None, axis=-1)
    expected = keras_loss(np.ones((11, 1), np.float32), tf.sigmoid(score)[:, None])
    np.testing.assert_allclose(losses.on_real("minimax", score), expected, atol=1e-5)


@given(score=SCORES)
def test_the_other_losses_follow_their_formulas(score: np.ndarray) -> None:
    np.testing.assert_allclose(losses.on_real("hinge", score), np.maximum(0, 1 - score))
    np.testing.assert_allclose(losses.on_generated("hinge", score), np.maximum(0, 1 + score))
    np.testing.assert_allclose(losses.on_real("least-squares", score, smoothing=0.1), (score - 0.9) ** 2 / 2, rtol=1e-4)
    # TensorFlow flushes numbers below 1.2e-38 to 0.
    np.testing.assert_allclose(losses.on_generated("least-squares", score), score**2 / 2, atol=1e-37)
    np.testing.assert_allclose(losses.for_generator("least-squares", score), (score - 1) ** 2 / 2, rtol=1e-4)
    np.testing.assert_array_equal(losses.on_real("wasserstein", score), -score)
    np.testing.assert_array_equal(losses.on_generated("wasserstein", score), score)


@pytest.mark.parametrize("loss", ["minimax", "non-saturating", "least-squares", "wasserstein", "hinge"])
def test_the_discriminator_gains_by_telling_apart_and_the_generator_by_passing_for_real(loss: LossName) -> None:
    low, high = tf.constant([0.2]), tf.constant([0.8])
    assert losses.on_real(loss, high) < losses.on_real(loss, low)
    assert losses.on_generated(loss, low) < losses.on_generated(loss, high)
    assert losses.for_generator(loss, high) < losses.for_generator(loss, low)


def test_minimax_gradients_vanish_where_non_saturating_ones_do_not() -> None:
    score = tf.constant([-9.0])  # the discriminator is certain
    gradients = {}
    for loss in ("minimax", "non-saturating"):
        with tf.GradientTape() as tape:
            tape.watch(score)
            value = losses.for_generator(loss, score)
        gradients[loss] = abs(float(tape.gradient(value, score)[0]))
    assert gradients["minimax"] < 1e-3
    assert gradients["non-saturating"] > 0.99
