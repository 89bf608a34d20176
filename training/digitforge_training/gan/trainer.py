"""`Trainer`: builds the networks, takes compiled steps, saves and restores its state.

All random numbers depend on (seed, step), so a resumed training equals an uninterrupted one.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from digitforge_client.errors import DataError
from digitforge_training.data import Dataset
from digitforge_training.gan import replicas
from digitforge_training.gan.adversary import Adversary, Statistics
from digitforge_training.gan.batches import Batch, Batches
from digitforge_training.gan.networks import build_discriminator, build_generator
from digitforge_training.gan.networks.parts import Clusters
from digitforge_training.gan.optimizers import build_optimizer
from digitforge_training.gan.parent import Parent, Weights
from digitforge_training.gan.pixels import generated_pixels
from digitforge_training.gan.steps import learned_by_generator, step_of
from digitforge_training.recipes import Recipe

State = dict[str, npt.NDArray[Any]]  # name of a variable => its value


def on_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


def _cluster_counts(generator: keras.Model) -> Any:
    return next(layer for layer in generator.layers if isinstance(layer, Clusters)).counts


def _counts_of(parent: Parent | None, recipe: Recipe, classes: int) -> npt.NDArray[np.int32] | None:
    """Images in each cluster of the parent. None if there are no clusters."""
    if parent is None or recipe.clusters == 1:
        return None
    shape = (classes, recipe.clusters)
    counts = [weights for weights in parent.generator if weights.dtype == np.int32 and weights.shape == shape]
    if len(counts) != 1:
        raise DataError(f"generator {parent.card['generator_id']} has no clusters of shape {shape}, unlike its recipe")
    return counts[0]


def _fix(network: keras.Model, layers: int) -> None:
    """Exclude the first layers with weights from training."""
    for layer in [layer for layer in network.layers if layer.variables][:layers]:
        layer.trainable = False


def _set_weights(network: keras.Model, weights: Weights) -> None:
    if [tuple(variable.shape) for variable in network.variables] != [array.shape for array in weights]:
        raise DataError(f"the weights of the {network.name} do not fit its recipe; export the generator again")
    for variable, array in zip(network.variables, weights, strict=True):
        variable.assign(array)


class Trainer:
    """Trains a recipe's generator on a data set, from new weights or from those of a parent.

    Several devices (see ``gan/replicas.py``) share each batch, so a recipe means the same on any number of devices.

    Raises:
        InvalidInputError: the batch size is not a multiple of the number of devices.
        DataError: the parent's weights do not fit the recipe.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, *, seed: int, parent: Parent | None = None) -> None:
        strategy = replicas.strategy()
        self.recipe = recipe = recipe.computed(on_gpu=on_gpu())
        self._single_device = replicas.share(recipe.batch_size) == 1
        self._checked_same = self._single_device  # whether it was checked that all machines start from the same step
        self._classes = len(dataset.class_names)
        self._batches = Batches(dataset, recipe, seed=seed, counts=_counts_of(parent, recipe, self._classes))
        with strategy.scope():
            self._adversary = self._build(dataset.images.shape[1:], seed)
        if parent is not None:
            self._start_from(parent)
        self._step_of_recipe = step_of(recipe)
        # XLA only with one device: several devices exchange gradients within an update.
        self._jit = bool(recipe.jit and self._single_device)

    def _build(self, image_shape: tuple[int, int, int], seed: int) -> Adversary:
        recipe = self.recipe
        draw = None if self._single_device else functools.partial(replicas.draw, batch=recipe.batch_size)

        def new_generator() -> keras.Model:
            classes = self._classes if recipe.conditional else 0
            built = build_generator(recipe, image_shape=image_shape, classes=classes, seed=1000 * seed, draw=draw)
            if recipe.clusters > 1:
                _cluster_counts(built).assign(self._batches.counts)
            return built

        generator = new_generator()
        discriminator = build_discriminator(
            recipe, image_shape=image_shape, classes=self._classes, seed=1000 * seed + 500, draw=draw
        )
        _fix(generator, recipe.generator_fixed)
        _fix(discriminator, recipe.discriminator_fixed)
        return Adversary(
            recipe=recipe,
            generator=generator,
            discriminator=discriminator,
            averaged=new_generator() if recipe.ema_images else generator,
            generator_optimizer=build_optimizer(
                recipe,
                learned_by_generator(generator, discriminator, recipe),
                rate=recipe.learning_rate,
                decay=recipe.decay,
                updates=recipe.generator_steps,
            ),
            discriminator_optimizer=build_optimizer(
                recipe,
                discriminator.trainable_variables,
                rate=recipe.discriminator_learning_rate or recipe.learning_rate,
                decay=recipe.discriminator_decay,
                updates=recipe.discriminator_steps * (1 + recipe.separate_batches),
            ),
        )

    def _start_from(self, parent: Parent) -> None:
        """Start from the weights of a trained generator, and of its discriminator if there is one."""
        networks = self._adversary
        _set_weights(networks.generator, parent.generator)
        _set_weights(networks.averaged, parent.generator)
        if parent.discriminator is not None:
            _set_weights(networks.discriminator, parent.discriminator)

    @property
    def averaged(self) -> keras.Model:
        """The generator with averaged weights, which is the result of the training."""
        return self._adversary.averaged

    @property
    def steps_done(self) -> int:
        """Steps taken so far, including those before a resumption."""
        return int(self._adversary.generator_optimizer.iterations.numpy()) // self.recipe.generator_steps

    @property
    def images_seen(self) -> int:
        """Real images shown to the discriminator so far."""
        return self.steps_done * self.recipe.images_per_step

    def run(self, steps: int) -> dict[str, float]:
        """Take *steps* steps. Returns the mean of each statistic.

        Raises:
            DataError: the machines of a training resume after different steps, or a machine does not answer.
        """
        first, most = self.steps_done, self.recipe.steps_at_once
        with replicas.machines_answer(after=first):
            if not self._checked_same:
                replicas.check_same(first)
                self._checked_same = True
            if self._jit:
                begins = range(first, first + steps, most)
                sums = [self._compiled_steps(begin, min(most, first + steps - begin)) for begin in begins]
            else:
                sums = [self._one_step(tf.constant(step, tf.int64)) for step in range(first, first + steps)]
            return {name: float(tf.add_n([each[name] for each in sums])) / steps for name in self._adversary.statistics}

    # One step per call. If a graph loops over steps, TensorFlow's memory optimizer may put temporary variables into the
    # loop that outlive it, and the next call with as many steps fails: "Resource … tmp_var … AlreadyExists".
    @tf.function(reduce_retracing=True)
    def _one_step(self, step: tf.Tensor) -> Statistics:
        """Draw the batches of a step and take it."""
        return replicas.everywhere(self._step, step, self._batches.draw(step))

    def _compiled_steps(self, first: int, steps: int) -> Statistics:
        """Take *steps* steps in one loop that XLA compiled. Returns the sum of their statistics."""
        begin = tf.constant(first, tf.int64)
        return self._loop(begin, tf.constant(steps, tf.int64), self._draw_many(begin))

    @tf.function(reduce_retracing=True)
    def _draw_many(self, first: tf.Tensor) -> list[Batch]:
        """Draw batches outside of XLA, which lacks RandomIndexShuffle and has other normal random numbers.

        Draws as many in every call, because XLA compiles again for every new shape.
        """
        steps = first + tf.range(self.recipe.steps_at_once, dtype=tf.int64)
        return tf.map_fn(self._batches.draw, steps, fn_output_signature=self._batches.dtypes)

    @tf.function(jit_compile=True)
    def _loop(self, first: tf.Tensor, steps: tf.Tensor, batches: list[Batch]) -> Statistics:
        """Take *steps* steps, each with its slice of *batches*. Returns the sum of their statistics."""
        sums = dict.fromkeys(self._adversary.statistics, 0.0)
        for i in tf.range(steps):
            statistics = self._step(first + i, tf.nest.map_structure(operator.itemgetter(i), batches))
            sums = {name: sums[name] + statistics[name] for name in sums}
        return sums

    @tf.autograph.experimental.do_not_convert
    def _step(self, step: tf.Tensor, batches: Sequence[Batch]) -> Statistics:
        """Take one step on this replica's rows. Returns the mean statistics of all replicas."""
        watched = self._step_of_recipe(self._adversary, [batch.own_rows() for batch in batches], step)
        names = self._adversary.statistics
        return dict(zip(names, replicas.mean([watched[name] for name in names]), strict=True))

    def sample(self, labels: npt.NDArray[np.int64], latents: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Generate images with the averaged generator.

        Args:
            labels: (n,) int64.
            latents: (n, d) float32.

        Returns:
            (n, H, W, C) uint8.
        """
        weights = np.eye(self._classes, dtype=np.float32)[labels]
        return generated_pixels(self.averaged, [weights, latents] if self.recipe.conditional else [latents])

    def _variables(self) -> dict[str, Any]:
        groups = ("generator", "discriminator", "averaged", "generator_optimizer", "discriminator_optimizer")
        return {
            f"{group}/{i:03d}": variable
            for group in groups
            for i, variable in enumerate(getattr(self._adversary, group).variables)
        }

    def state(self) -> State:
        """Everything that a resumed training needs."""
        return {name: v.value.numpy() for name, v in self._variables().items()}

    def averaged_state(self) -> State:
        """The averaged generator's part of `state`, which an export needs."""
        return {name: v.value.numpy() for name, v in self._variables().items() if name.startswith("averaged/")}

    def restore(self, state: State) -> None:
        """Restore a state.

        Raises:
            DataError: the state belongs to other networks, or has other clusters.
        """
        variables = self._variables()
        # Older checkpoints use the spelling "optimiser".
        state = {name.replace("optimiser/", "optimizer/"): value for name, value in state.items()}
        if {k: v.shape for k, v in state.items()} != {k: tuple(v.shape) for k, v in variables.items()}:
            raise DataError("the checkpoint does not fit the recipe's networks; train into another folder")
        for name, variable in variables.items():
            variable.assign(state[name])
        if self.recipe.clusters > 1 and not np.array_equal(_cluster_counts(self.averaged), self._batches.counts):
            raise DataError(
                "the checkpoint has other clusters than those found now, perhaps because the version of scikit-learn "
                "differs; resume with the former version, or train into another folder"
            )
