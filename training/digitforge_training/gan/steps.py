"""One training step: updates of the discriminator and the generator.

`paired_step` trains ``forge`` and its variants. `published_step` trains the five published recipes. It updates the
networks in the order and as often as the recipe says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from digitforge_training.gan import losses
from digitforge_training.gan.adversary import Adversary, Statistics
from digitforge_training.gan.augmentation import augment
from digitforge_training.gan.batches import Batch
from digitforge_training.gan.pixels import from_pixels
from digitforge_training.gan.replicas import descend, draw
from digitforge_training.recipes import Recipe

Step = Callable[[Adversary, Sequence[Batch], tf.Tensor], Statistics]

#: Recipes with these values use `paired_step`. All others use `published_step`.
_PAIRED = {
    "loss": "relativistic",
    "discriminator_steps": 1,
    "generator_steps": 1,
    "shared_latents": True,
    "generator_predicts": False,
    "discriminator_in_chain": "frozen",
    "gradient_penalty": 0.0,
}


def step_of(recipe: Recipe) -> Step:
    """Choose the training step of a recipe."""
    paired = all(getattr(recipe, field) == value for field, value in _PAIRED.items())
    return paired_step if paired else published_step


@tf.autograph.experimental.do_not_convert
def paired_step(gan: Adversary, batches: Sequence[Batch], step: tf.Tensor) -> Statistics:
    """Update the discriminator, the generator and its average once, on pairs of a real and a generated image.

    Uses R3GAN's relativistic loss with zero-centered gradient penalties (Huang et al. 2024, arXiv:2501.05441) and an
    auxiliary classifier. The images of a pair have the same class and cluster. Both networks learn from the same
    generated images. The generator's loss uses the scores of real images from before the discriminator's update.

    Args:
        gan: the networks to update.
        batches: a single batch.
        step: int64 scalar, counted from 0.

    Returns:
        The statistics of the step: name => scalar.
    """
    (batch,), recipe = batches, gan.recipe
    real, classes = from_pixels(batch.images), batch.class_weights
    with tf.GradientTape() as generator_tape:
        generated = gan.generate(classes, batch.latents)

    with tf.GradientTape() as discriminator_tape:
        images = augment(tf.concat([real, tf.stop_gradient(generated)], 0), recipe, batch.seed)
        both = tf.concat([classes, classes], 0)
        score, logits = gan.discriminate(images, both)
        score_real, score_generated = tf.split(score, 2)
        class_loss_real = gan.class_loss(logits, classes)
        if recipe.discriminator_head_start:
            class_loss_real = tf.where(_generator_learns(recipe, step), class_loss_real, gan.class_loss(logits, both))
        discriminator_loss = tf.reduce_mean(losses.relativistic(score_real, score_generated))
        discriminator_loss += recipe.auxiliary_discriminator * class_loss_real
        discriminator_loss += gan.penalty(images, both, score, step=step, seed=batch.seed)
    descend(gan.discriminator_optimizer, discriminator_tape, discriminator_loss, gan.discriminator.trainable_variables)

    with generator_tape:
        score, logits = gan.discriminate(augment(generated, recipe, batch.seed + [0, 8]), classes)
        class_loss_generated = gan.class_loss(logits, classes)
        generator_loss = tf.reduce_mean(losses.relativistic(score, tf.stop_gradient(score_real)))
        generator_loss += recipe.auxiliary_generator * class_loss_generated
        generator_loss *= tf.cast(_generator_learns(recipe, step), tf.float32)
    descend(gan.generator_optimizer, generator_tape, generator_loss, gan.generator.trainable_variables)
    gan.average(step)

    return gan.accuracies(score_real, score_generated) | {
        "discriminator_loss": discriminator_loss,
        "generator_loss": generator_loss,
        "class_loss_real": class_loss_real,
        "class_loss_generated": class_loss_generated,
    }


@tf.autograph.experimental.do_not_convert
def published_step(gan: Adversary, batches: Sequence[Batch], step: tf.Tensor) -> Statistics:
    """Update the discriminator as often as the recipe says, then the generator.

    Args:
        gan: the networks to update.
        batches: one batch per update. The discriminator takes the first batches. With shared latents, the generator
            also starts with the first batch. Otherwise it takes the batches after those of the discriminator.
        step: int64 scalar, counted from 0.

    Returns:
        The statistics of the step: name => scalar, the mean over all updates that compute it.
    """
    recipe, turns = gan.recipe, gan.recipe.discriminator_steps
    learn = _learn_one_by_one if recipe.separate_batches else _learn_from_both
    scores, watched = [], []
    for batch in batches[:turns]:
        with tf.GradientTape() as tape:
            generated = gan.generate(batch.class_weights, batch.latents, training=not recipe.generator_predicts)
        score_real, statistics = learn(gan, batch, tf.stop_gradient(generated), step)
        scores.append(score_real)
        watched.append(statistics)

    # One forward pass of the generator serves both networks if each has one update, both use the same latents, and the
    # generator runs in training mode.
    reuse_generated = recipe.shared_latents and not recipe.generator_predicts and turns == recipe.generator_steps == 1
    discriminator = gan.discriminator.trainable_variables
    copied = recipe.discriminator_in_chain == "copied"
    before = [tf.identity(variable.value) for variable in discriminator] if copied else []
    first = 0 if recipe.shared_latents else turns
    for turn, batch in enumerate(batches[first : first + recipe.generator_steps]):
        if not reuse_generated:
            with tf.GradientTape() as tape:
                generated = gan.generate(batch.class_weights, batch.latents)
        with tape:
            score, logits = gan.discriminate(augment(generated, recipe, batch.seed + [0, 8]), batch.class_weights)
            class_loss = gan.class_loss(logits, batch.class_weights)
            loss = losses.of_generator(recipe.loss, score, real=tf.stop_gradient(scores[turn % turns]))
            loss += recipe.auxiliary_generator * class_loss
            loss *= tf.cast(_generator_learns(recipe, step), tf.float32)
        descend(gan.generator_optimizer, tape, loss, learned_by_generator(gan.generator, gan.discriminator, recipe))
        watched.append({"generator_loss": loss, "class_loss_generated": class_loss})
    for variable, value in zip(discriminator, before, strict=copied):
        variable.assign(value)
    gan.average(step)

    values = {name: [one[name] for one in watched if name in one] for name in watched[0] | watched[-1]}
    return {name: tf.add_n(several) / len(several) for name, several in values.items()}


def _generator_learns(recipe: Recipe, step: tf.Tensor) -> tf.Tensor:
    """Whether the discriminator's head start is over. Before, the generator's loss is multiplied by 0."""
    return step >= recipe.discriminator_head_start


def learned_by_generator(generator: tf.Module, discriminator: tf.Module, recipe: Recipe) -> list[tf.Variable]:
    """The variables that the generator's updates train: its own, and in some published recipes the discriminator's."""
    frozen = recipe.discriminator_in_chain == "frozen"
    return generator.trainable_variables + ([] if frozen else discriminator.trainable_variables)


def _learn_from_both(
    gan: Adversary, batch: Batch, generated: tf.Tensor, step: tf.Tensor
) -> tuple[tf.Tensor, Statistics]:
    """One update of the discriminator on real and generated images. Returns the real scores and the statistics."""
    recipe, classes = gan.recipe, batch.class_weights
    with tf.GradientTape() as tape:
        images = augment(tf.concat([from_pixels(batch.images), generated], 0), recipe, batch.seed)
        both = tf.concat([classes, classes], 0)
        score, logits = gan.discriminate(images, both)
        real, fake = tf.split(score, 2)
        class_loss = gan.class_loss(logits, classes)
        loss = losses.of_discriminator(recipe.loss, real=real, generated=fake, smoothing=recipe.label_smoothing)
        loss += recipe.auxiliary_discriminator * class_loss
        loss += gan.penalty(images, both, score, step=step, seed=batch.seed)
        if recipe.gradient_penalty:
            loss += recipe.gradient_penalty * _gradient_penalty(gan, images, classes, seed=batch.seed)
    descend(gan.discriminator_optimizer, tape, loss, gan.discriminator.trainable_variables)
    return real, gan.accuracies(real, fake) | {"discriminator_loss": loss, "class_loss_real": class_loss}


def _learn_one_by_one(
    gan: Adversary, batch: Batch, generated: tf.Tensor, _step: tf.Tensor
) -> tuple[tf.Tensor, Statistics]:
    """One update on real images, then one on generated images, without penalties. See `_learn_from_both`."""
    recipe, classes, variables = gan.recipe, batch.class_weights, gan.discriminator.trainable_variables
    with tf.GradientTape() as tape:
        real, logits = gan.discriminate(augment(from_pixels(batch.images), recipe, batch.seed), classes)
        class_loss = gan.class_loss(logits, classes)
        loss_real = tf.reduce_mean(losses.on_real(recipe.loss, real, smoothing=recipe.label_smoothing))
        loss_real += recipe.auxiliary_discriminator * class_loss
    descend(gan.discriminator_optimizer, tape, loss_real, variables)
    with tf.GradientTape() as tape:
        fake, _ = gan.discriminate(augment(generated, recipe, batch.seed + [0, 5]), classes)
        loss_generated = tf.reduce_mean(losses.on_generated(recipe.loss, fake))
    descend(gan.discriminator_optimizer, tape, loss_generated, variables)
    watched = {"discriminator_loss": loss_real + loss_generated, "class_loss_real": class_loss}
    return real, gan.accuracies(real, fake) | watched


def _gradient_penalty(gan: Adversary, images: tf.Tensor, class_weights: tf.Tensor, *, seed: tf.Tensor) -> tf.Tensor:
    """WGAN-GP's E[(‖∇D(x)‖ − 1)²], where x lies between a real and a generated image (Gulrajani et al. 2017)."""
    real, generated = tf.split(images, 2)
    shape = (tf.shape(real)[0], 1, 1, 1)
    share = draw(tf.random.stateless_uniform, shape, seed + [0, 6], batch=gan.recipe.batch_size)
    between = share * real + (1.0 - share) * generated
    with tf.GradientTape() as tape:
        tape.watch(between)
        score, _ = gan.discriminate(between, class_weights)
    squares = tf.reduce_sum(tf.square(tape.gradient(score, between)), axis=(1, 2, 3))
    return tf.reduce_mean(tf.square(tf.sqrt(squares + 1e-12) - 1.0))  # + 1e-12: the root has no derivative at 0
