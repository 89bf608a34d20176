"""One training in memory: two networks, their optimizers, the averaged generator, and the compiled step.

All randomness is derived from (seed, step), so a resumed training is the same training.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data import Dataset
from digitforge_training.gan import replicas
from digitforge_training.gan.adversary import Adversary, Statistics
from digitforge_training.gan.clusters import count_clusters, find_clusters
from digitforge_training.gan.latents import place_in_clusters
from digitforge_training.gan.networks import build_discriminator, build_generator
from digitforge_training.gan.networks.parts import Clusters
from digitforge_training.gan.pixels import from_pixels, generated_pixels
from digitforge_training.recipes import Recipe

State = dict[str, npt.NDArray[np.generic]]  # every variable of a training by name
Batch = tuple[tf.Tensor, tf.Tensor]
Inputs = tuple[list[Batch], list[tf.Tensor]]  # of a step, or of many, which then come first in each shape

_GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
_STREAMS = 16  # independent random streams of an update; see `_seed_of`


def on_gpu() -> bool:
    """Whether TensorFlow sees a GPU here."""
    return bool(tf.config.list_logical_devices("GPU"))


def _means(statistics: list[Statistics]) -> Statistics:
    """The mean of each statistic over the updates that have it."""
    values: dict[str, list[tf.Tensor]] = {}
    for one in statistics:
        for name, value in one.items():
            values.setdefault(name, []).append(value)
    return {name: tf.add_n(several) / len(several) for name, several in values.items()}


@tf.function
def _mean_of(value: tf.Tensor) -> tf.Tensor:
    return replicas.mean([value])[0]


def _cluster_counts(generator: keras.Model) -> Any:
    return next(layer for layer in generator.layers if isinstance(layer, Clusters)).counts


class Trainer:
    """Trains a recipe's generator on a data set, a number of steps at a time.

    On several devices (see replicas.py) each takes its share of every batch; the recipe keeps its meaning.

    Raises:
        InvalidInputError: the devices cannot share a batch equally.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, *, seed: int) -> None:
        self._strategy = replicas.strategy()
        self.recipe = recipe = recipe.computed(on_gpu=on_gpu())
        self._seed = seed
        self._classes = len(dataset.class_names)
        self._together = False
        self._replicas = self._strategy.num_replicas_in_sync
        if recipe.batch_size % self._replicas:
            raise InvalidInputError(
                f"batch_size is {recipe.batch_size}, which {self._replicas} devices cannot share equally; "
                f"use --set batch_size=N with a multiple of {self._replicas}, or another number of devices"
            )
        self._draw = functools.partial(replicas.draw, batch=recipe.batch_size) if self._replicas > 1 else None
        # On the device once, as uint8: no copy from the host inside the loop.
        self._images = tf.constant(dataset.images)
        clusters = find_clusters(dataset, recipe.clusters, seed=seed)
        kinds = dataset.labels * recipe.clusters + clusters  # class and cluster in one number
        self._kinds = tf.constant(kinds)
        self._by_kind = tf.constant(np.argsort(kinds, kind="stable"))
        self._counts = count_clusters(clusters, dataset.labels, classes=self._classes, each=recipe.clusters)
        self._shape = dataset.images.shape[1:]
        with self._strategy.scope():
            self._build()
        # XLA compiles what one device does alone; several meet within an update.
        alone = self._replicas == 1
        self._steps = tf.function(self._take_steps, jit_compile=True) if recipe.jit and alone else self._take_steps

    def _build(self) -> None:
        recipe, seed = self.recipe, self._seed
        generator = self._build_generator()
        discriminator = build_discriminator(
            recipe, image_shape=self._shape, classes=self._classes, seed=1000 * seed + 500, draw=self._draw
        )
        self.averaged = self._build_generator() if recipe.ema_images else generator
        self._adversary = Adversary(generator=generator, discriminator=discriminator, recipe=recipe)
        learned = generator.trainable_variables
        if recipe.discriminator_in_chain != "frozen":
            learned = learned + discriminator.trainable_variables
        self._generator_learns = learned
        self._generator_optimizer = self._optimizer(
            learned, recipe.learning_rate, recipe.decay, updates=recipe.generator_steps
        )
        self._discriminator_optimizer = self._optimizer(
            discriminator.trainable_variables,
            recipe.discriminator_learning_rate or recipe.learning_rate,
            recipe.discriminator_decay,
            updates=recipe.discriminator_steps * (1 + recipe.separate_batches),
        )

    def _build_generator(self) -> keras.Model:
        classes = self._classes if self.recipe.conditional else 0
        generator = build_generator(
            self.recipe, image_shape=self._shape, classes=classes, seed=1000 * self._seed, draw=self._draw
        )
        if self.recipe.clusters > 1:
            _cluster_counts(generator).assign(self._counts)
        return generator

    def _optimizer(self, variables: Any, rate: float, decay: float, *, updates: int) -> keras.optimizers.Optimizer:
        """Build an optimizer that takes so many *updates* in a step."""
        recipe = self.recipe
        schedules = keras.optimizers.schedules
        schedule: Any = rate
        if recipe.schedule == "cosine":
            schedule = schedules.CosineDecay(rate, recipe.steps * updates)
        elif recipe.schedule == "inverse-time":
            schedule = schedules.InverseTimeDecay(rate, decay_steps=1, decay_rate=decay)
        common: dict[str, Any] = {"learning_rate": schedule, "clipvalue": recipe.clip_value or None}
        optimizer = (
            keras.optimizers.Adam(beta_1=recipe.beta_1, beta_2=recipe.beta_2, **common)
            if recipe.optimizer == "adam"
            else keras.optimizers.RMSprop(**common)
        )
        optimizer.build(variables)
        return optimizer

    @property
    def steps_done(self) -> int:
        """Steps taken so far, over all resumptions."""
        return int(self._generator_optimizer.iterations.numpy()) // self.recipe.generator_steps

    @property
    def images_seen(self) -> int:
        """Real images shown to the discriminator so far."""
        return self.steps_done * self.recipe.images_per_step

    def run(self, steps: int) -> dict[str, float]:
        """Take *steps* steps in one compiled call and return the means of the statistics over them.

        Raises:
            DataError: the machines of a training have not begun with the same state, or one of them has gone.
        """
        first = self.steps_done
        try:
            if self._replicas > 1 and not self._together:
                self._meet()
            means = self._run(tf.constant(first, tf.int64), tf.constant(steps, tf.int64))
            return {name: float(value) for name, value in means.items()}
        except _GONE as error:
            raise DataError(
                f"another machine of this training does not answer after step {first}: "
                f"{error.message.splitlines()[0]}; "
                "start the same command on all of them again, and it goes on from the newest checkpoint"
            ) from error

    def _meet(self) -> None:
        """Be sure, before the first step, that all machines go on from the same one."""
        here = float(self.steps_done)
        (mean,) = self._strategy.experimental_local_results(self._strategy.run(_mean_of, args=(tf.constant(here),)))[:1]
        if float(mean) != here:
            raise DataError(
                f"this machine would go on after step {here:.0f}, and others elsewhere; "
                "give all of them the same --out, on a disk that they share"
            )
        self._together = True

    @tf.function(reduce_retracing=True)
    def _run(self, first: tf.Tensor, steps: tf.Tensor) -> Statistics:
        totals, most = dict.fromkeys(self._adversary.statistics, 0.0), self.recipe.steps_at_once
        for begin in tf.range(first, first + steps, most):
            # For as many steps even where fewer are left, because XLA compiles anew for other shapes.
            steps_to_come = begin + tf.range(most, dtype=tf.int64)
            inputs = tf.map_fn(self._inputs, steps_to_come, fn_output_signature=self._input_types())
            sums = self._steps(begin, tf.minimum(first + steps - begin, most), inputs)
            totals = {name: totals[name] + sums[name] for name in totals}
        return {name: total / tf.cast(steps, tf.float32) for name, total in totals.items()}

    def _take_steps(self, first: tf.Tensor, steps: tf.Tensor, inputs: Inputs) -> Statistics:
        """Take *steps* steps with the first of *inputs*, and sum up their statistics."""
        sums = dict.fromkeys(self._adversary.statistics, 0.0)
        for i in tf.range(steps):
            statistics = self._step(first + i, *tf.nest.map_structure(operator.itemgetter(i), inputs))
            sums = {name: sums[name] + statistics[name] for name in sums}
        return sums

    def _draws(self) -> tuple[int, int]:
        """How many batches of images and of latents a step takes."""
        turns, more = self.recipe.discriminator_steps, self.recipe.generator_steps
        return turns, max(turns, more) if self.recipe.shared_latents else turns + more

    def _inputs(self, step: tf.Tensor) -> Inputs:
        """What a step draws; outside of what XLA may compile: it knows no shuffling, and has other normal numbers."""
        turns, draws = self._draws()
        batches = [self._batch(step * turns + turn) for turn in range(turns)]
        latents = [self._latents(self._seed_of(step, turn), batches[turn % turns][1]) for turn in range(draws)]
        return batches, latents

    def _input_types(self) -> Any:
        turns, draws = self._draws()
        return [(tf.uint8, tf.float32)] * turns, [tf.float32] * draws

    def _step(self, step: tf.Tensor, batches: list[Batch], latents: list[tf.Tensor]) -> Statistics:
        if self._replicas == 1:
            statistics: Statistics = self._update_both(step, batches, latents)
            return statistics
        shares = self._strategy.run(self._update_share, args=(step, batches, latents))
        # All replicas have the same means.
        return {name: self._strategy.experimental_local_results(share)[0] for name, share in shares.items()}

    @tf.autograph.experimental.do_not_convert
    def _update_share(self, step: tf.Tensor, batches: list[Batch], latents: list[tf.Tensor]) -> Statistics:
        """The update on this replica's rows; the statistics of all."""
        own = functools.partial(replicas.own_rows, batch=self.recipe.batch_size)
        shares = [(own(real), own(class_weights)) for real, class_weights in batches]
        statistics = self._update_both(step, shares, [own(drawn) for drawn in latents])
        return dict(zip(statistics, replicas.mean(list(statistics.values())), strict=True))

    @tf.autograph.experimental.do_not_convert
    def _update_both(self, step: tf.Tensor, batches: list[Batch], latents: list[tf.Tensor]) -> Statistics:
        """The discriminator's updates, one for each batch, then the generator's."""
        recipe, adversary = self.recipe, self._adversary
        scores, watched = [], []
        for turn, (images, class_weights) in enumerate(batches):
            real, seed = from_pixels(images), self._seed_of(step, turn)
            with tf.GradientTape() as tape:
                generated = adversary.generate(class_weights, latents[turn], training=not recipe.generator_predicts)
            score_real, statistics = self._update_discriminator(
                real, tf.stop_gradient(generated), class_weights, self._gamma(step), seed
            )
            scores.append(score_real)
            watched.append(statistics)
        # Where nothing has changed in between, both networks learn from the same forward pass of the generator.
        once = recipe.shared_latents and not recipe.generator_predicts and len(batches) == recipe.generator_steps == 1
        discriminator = adversary.discriminator.trainable_variables
        copied = recipe.discriminator_in_chain == "copied"
        before = [tf.identity(variable.value) for variable in discriminator] if copied else []
        for turn in range(recipe.generator_steps):
            _, class_weights = batches[turn % len(batches)]
            draw = turn if recipe.shared_latents else len(batches) + turn
            seed = self._seed_of(step, draw)
            if not once:
                with tf.GradientTape() as tape:
                    generated = adversary.generate(class_weights, latents[draw])
            with tape:
                loss, more = adversary.generator_loss(
                    generated=generated,
                    score_real=scores[turn % len(batches)],
                    class_weights=class_weights,
                    seed=seed + [0, 8],
                )
            self._apply(self._generator_optimizer, tape, loss, self._generator_learns)
            watched.append(more)
        if copied:
            for variable, value in zip(discriminator, before, strict=True):
                variable.assign(value)
        self._average(step)
        return _means(watched)

    def _update_discriminator(
        self, real: tf.Tensor, generated: tf.Tensor, class_weights: tf.Tensor, gamma: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, Statistics]:
        """One update on both kinds of images, or one on each; the scores of the real ones, and what to watch."""
        adversary, variables = self._adversary, self._adversary.discriminator.trainable_variables
        if not self.recipe.separate_batches:
            with tf.GradientTape() as tape:
                loss, score_real, statistics = adversary.discriminator_loss(
                    real=real, generated=generated, class_weights=class_weights, gamma=gamma, seed=seed
                )
            self._apply(self._discriminator_optimizer, tape, loss, variables)
            return score_real, statistics
        with tf.GradientTape() as tape:
            loss_real, score_real, of_classes = adversary.one_sided_loss(
                "real", images=real, class_weights=class_weights, seed=seed
            )
        self._apply(self._discriminator_optimizer, tape, loss_real, variables)
        with tf.GradientTape() as tape:
            loss_generated, score_generated, _ = adversary.one_sided_loss(
                "generated", images=generated, class_weights=class_weights, seed=seed + [0, 5]
            )
        self._apply(self._discriminator_optimizer, tape, loss_generated, variables)
        statistics = adversary.accuracies(score_real, score_generated)
        return score_real, {"discriminator_loss": loss_real + loss_generated} | statistics | of_classes

    def _seed_of(self, step: tf.Tensor, turn: int) -> tf.Tensor:
        """int64 (2,), of one update; its streams differ in the second number."""
        return tf.stack([tf.constant(self._seed + (turn << 32), tf.int64), step * _STREAMS])

    def _gamma(self, step: tf.Tensor) -> tf.Tensor:
        """Weight of the penalty: every so many steps as many times γ, which falls along a cosine; else 0."""
        recipe = self.recipe
        done = tf.cast(step, tf.float32) / recipe.steps
        gamma = recipe.gamma_end + (recipe.gamma - recipe.gamma_end) * 0.5 * (1.0 + tf.cos(math.pi * done))
        return tf.where(step % recipe.penalty_every == 0, gamma * recipe.penalty_every, 0.0)

    def _apply(self, optimizer: Any, tape: tf.GradientTape, loss: tf.Tensor, variables: Any) -> None:
        gradients = tape.gradient(loss, variables)
        if self._replicas > 1:
            # Keras clips the gradients of a replica and then sums those of all; here the loss is the mean over the
            # whole batch, and it is its gradient that the recipe clips.
            limit = self.recipe.clip_value
            if limit:
                gradients = [g if g is None else tf.clip_by_value(g, -limit, limit) for g in replicas.mean(gradients)]
            gradients = [g if g is None else g / self._replicas for g in gradients]
        optimizer.apply(gradients, variables)

    def _batch(self, step: tf.Tensor) -> Batch:
        """Real images, uint8, and their classes and clusters, (n, K·m) one-hot.

        Every epoch is another permutation of all images.
        """
        size, n = self.recipe.batch_size, len(self._images)
        position = step * size + tf.range(size, dtype=tf.int64)
        epoch = position // n
        seeds = tf.stack([tf.fill([size], tf.constant(self._seed, tf.int64)), epoch, tf.zeros_like(epoch)], axis=1)
        # The raw operation, because tf.random.experimental.index_shuffle takes one seed for the whole batch, and a
        # batch may straddle two epochs.
        index = tf.raw_ops.RandomIndexShuffle(
            index=position % n, seed=seeds, max_index=tf.constant(n - 1, tf.int64), rounds=4
        )
        if self.recipe.clusters > 1:
            index = tf.where(tf.range(size) % 4 != 0, index, self._any_cluster(index, step))
        class_weights = tf.one_hot(tf.gather(self._kinds, index), self._classes * self.recipe.clusters)
        return tf.gather(self._images, index), class_weights

    def _any_cluster(self, index: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Images of the same classes, each of any of its class's clusters, however rare that is."""
        each, counts = self.recipe.clusters, tf.constant(self._counts.ravel(), tf.int64)
        chances = tf.random.stateless_uniform((2, self.recipe.batch_size), self._seed_of(step, 0))
        label = tf.gather(self._kinds, index) // each
        there = tf.gather(tf.constant((self._counts > 0).sum(axis=1), tf.float32), label)
        kind = label * each + tf.cast(chances[0] * there, tf.int64)
        before = tf.gather(tf.cumsum(counts, exclusive=True), kind)
        size = tf.gather(counts, kind)
        within = tf.minimum(tf.cast(chances[1] * tf.cast(size, tf.float32), tf.int64), size - 1)
        return tf.gather(self._by_kind, before + within)

    def _latents(self, seed: tf.Tensor, class_weights: tf.Tensor) -> tf.Tensor:
        shape, distribution = (self.recipe.batch_size, self.recipe.latent_size), self.recipe.latent_distribution
        if distribution == "normal":
            latents = tf.random.stateless_normal(shape, seed + [0, 4])
        else:
            latents = tf.random.stateless_uniform(shape, seed + [0, 4], -1.0, 1.0)
        if self.recipe.clusters == 1:
            return latents
        return place_in_clusters(latents, class_weights, self._counts, distribution=distribution)

    def _average(self, step: tf.Tensor) -> None:
        """Exponential moving average of the generator; its half-life grows with the training at first."""
        if not self.recipe.ema_images:
            return
        images = tf.cast((step + 1) * self.recipe.images_per_step, tf.float32)
        half_life = tf.minimum(float(self.recipe.ema_images), 0.1 * images)
        keep = tf.pow(0.5, self.recipe.images_per_step / half_life)
        for average, weight in zip(self.averaged.weights, self._adversary.generator.weights, strict=True):
            if average.dtype == "int32":  # counts
                continue
            average.assign(keep * average + (1.0 - keep) * weight)

    def sample(self, labels: npt.NDArray[np.int64], latents: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Images of the averaged generator.

        Args:
            labels: (n,) int64.
            latents: (n, d) float32.

        Returns:
            (n, H, W, C) uint8.
        """
        weights = np.eye(self._classes, dtype=np.float32)[labels]
        return generated_pixels(self.averaged, [weights, latents] if self.recipe.conditional else [latents])

    def _variables(self) -> dict[str, Any]:
        groups = {
            "generator": self._adversary.generator.variables,
            "discriminator": self._adversary.discriminator.variables,
            "averaged": self.averaged.variables,
            "generator_optimizer": self._generator_optimizer.variables,
            "discriminator_optimizer": self._discriminator_optimizer.variables,
        }
        return {f"{group}/{i:03d}": v for group, variables in groups.items() for i, v in enumerate(variables)}

    def state(self) -> State:
        """Everything that a resumed training needs."""
        return {name: v.value.numpy() for name, v in self._variables().items()}

    def averaged_state(self) -> State:
        """The part of `state` that an export needs."""
        return {name: v.value.numpy() for name, v in self._variables().items() if name.startswith("averaged/")}

    def restore(self, state: State) -> None:
        """Go back to a state.

        Raises:
            DataError: the state belongs to other networks.
        """
        variables = self._variables()
        # Older checkpoints have the British spelling.
        state = {name.replace("optimiser/", "optimizer/"): value for name, value in state.items()}
        if {k: v.shape for k, v in state.items()} != {k: tuple(v.shape) for k, v in variables.items()}:
            raise DataError("the checkpoint belongs to other networks; train into another folder")
        for name, variable in variables.items():
            variable.assign(state[name])
        if self.recipe.clusters > 1 and not np.array_equal(_cluster_counts(self.averaged).numpy(), self._counts):
            raise DataError(
                "the checkpoint has other clusters than those found now, as another version of scikit-learn may find; "
                "go on where it was trained, or train into another folder"
            )
