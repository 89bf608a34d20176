"""Adversarial losses, as functions of the discriminator's scores.

A score s is a real number. Texts whose discriminator ends in a sigmoid write D = σ(s).

| loss | discriminator, real | discriminator, generated | generator | source |
|---|---|---|---|---|
| minimax | −log σ(s) | −log(1 − σ(s)) | log(1 − σ(s)) | Goodfellow et al. 2014, arXiv:1406.2661 |
| non-saturating | −log σ(s) | −log(1 − σ(s)) | −log σ(s) | Goodfellow et al. 2014, section 3 |
| least-squares | (s − 1)²/2 | s²/2 | (s − 1)²/2 | Mao et al. 2016, arXiv:1611.04076 |
| wasserstein | −s | s | −s | Arjovsky et al. 2017, arXiv:1701.07875 |
| hinge | max(0, 1 − s) | max(0, 1 + s) | −s | Lim and Ye 2017, arXiv:1705.02894 |

The relativistic loss compares pairs of a real and a generated image: softplus(s_generated − s_real) for the
discriminator, softplus(s_real − s_generated) for the generator (Jolicoeur-Martineau 2018, arXiv:1807.00734).
"""

from __future__ import annotations

import tensorflow as tf

from digitforge_training.recipes import LossName


def on_real(loss: LossName, score: tf.Tensor, *, smoothing: float = 0.0) -> tf.Tensor:
    """The discriminator's loss on real images, (n,) => (n,). Its target is 1 − *smoothing*."""
    match loss:
        case "minimax" | "non-saturating":
            return tf.nn.softplus(score) - (1.0 - smoothing) * score  # cross-entropy with the target 1 − smoothing
        case "least-squares":
            return 0.5 * tf.square(score - (1.0 - smoothing))
        case "wasserstein":
            return -score
        case "hinge":
            return tf.nn.relu(1.0 - score)
    raise AssertionError(loss)  # the relativistic loss needs pairs


def on_generated(loss: LossName, score: tf.Tensor) -> tf.Tensor:
    """The discriminator's loss on generated images, (n,) => (n,)."""
    match loss:
        case "minimax" | "non-saturating":
            return tf.nn.softplus(score)
        case "least-squares":
            return 0.5 * tf.square(score)
        case "wasserstein":
            return score
        case "hinge":
            return tf.nn.relu(1.0 + score)
    raise AssertionError(loss)


def for_generator(loss: LossName, score: tf.Tensor) -> tf.Tensor:
    """The generator's loss on its images, (n,) => (n,)."""
    match loss:
        case "minimax":
            return -tf.nn.softplus(score)
        case "non-saturating":
            return tf.nn.softplus(-score)
        case "least-squares":
            return 0.5 * tf.square(score - 1.0)
        case "wasserstein" | "hinge":
            return -score
    raise AssertionError(loss)


def relativistic(score: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """The loss of a network that wants *score* above *other*, (n,), (n,) => (n,)."""
    return tf.nn.softplus(other - score)


def of_discriminator(loss: LossName, *, real: tf.Tensor, generated: tf.Tensor, smoothing: float) -> tf.Tensor:
    """The discriminator's loss, a scalar, from the scores of pairs, (n,) and (n,)."""
    if loss == "relativistic":
        return tf.reduce_mean(relativistic(real, generated))
    return tf.reduce_mean(on_real(loss, real, smoothing=smoothing)) + tf.reduce_mean(on_generated(loss, generated))


def of_generator(loss: LossName, score: tf.Tensor, *, real: tf.Tensor) -> tf.Tensor:
    """The generator's loss, a scalar, from the scores of its images, (n,), and of their real partners, (n,)."""
    return tf.reduce_mean(relativistic(score, real) if loss == "relativistic" else for_generator(loss, score))


def boundary(loss: LossName, score_real: tf.Tensor, score_generated: tf.Tensor) -> tf.Tensor:
    """The score above which an image passes for real.

    The wasserstein and relativistic losses define no such score. For them it is the midpoint of the two mean scores.
    """
    match loss:
        case "minimax" | "non-saturating" | "hinge":
            return tf.constant(0.0)
        case "least-squares":
            return tf.constant(0.5)
    return 0.5 * (tf.reduce_mean(score_real) + tf.reduce_mean(score_generated))
