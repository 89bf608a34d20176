"""Export: a trained generator as a SavedModel with the contract's signatures, published at once or not at all.

Every input and output has the number of rows as its first dimension, because TensorFlow Serving's batching requires
exactly that. Plain graph operations only: no XLA, no Python, no custom operation.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from digitforge_client.common import versions
from digitforge_client.contract import MAX_ROWS, MODEL_NAME, Field, Signature, image_hashes, row_seeds
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data import Dataset
from digitforge_training.export.card import make_card
from digitforge_training.export.expansion import NO_EXPANSION, Expansion, choose
from digitforge_training.export.warmup import write_warmup
from digitforge_training.gan.latents import latents_of
from digitforge_training.gan.networks import build_generator
from digitforge_training.gan.networks.parts import Clusters
from digitforge_training.gan.pixels import generated_pixels, to_pixels
from digitforge_training.gan.trainer import State
from digitforge_training.runs import checkpoints
from digitforge_training.runs.folder import Run, describe, read_run
from digitforge_training.runs.judging import JUDGED_SEED, find_judge, hold_out

Outputs = dict[str, tf.Tensor]


class ServedGenerator(tf.Module):
    """The graph of an exported generator; each public method is a signature.

    A generator without classes has no labels and no class weights anywhere: its card's `class_names` are empty.
    """

    def __init__(self, generator: Any, card: Mapping[str, Any], seen: npt.NDArray[np.int64]) -> None:
        """Wrap a generator.

        Args:
            generator: Keras model, class weights (n, K), if there are classes, and latents (n, d) => images
                (n, H, W, C).
            card: with its `generator_id`.
            seen: (m,) int64, hashes of the training images, in any order.
        """
        super().__init__(name="served_generator")
        # Held as plain variables: inside a Keras model SavedModel's writer would not find them, and a TF1 Session,
        # which is how TensorFlow Serving runs the graph, would leave them uninitialized.
        self.weights = [variable.value for variable in generator.variables]
        self._generate: Callable[..., tf.Tensor] = lambda *inputs: generator(
            list(inputs) if len(inputs) > 1 else inputs[0], training=False
        )
        self._classes = len(card["class_names"])
        self._size = card["latent_size"]
        self._distribution = card["latent_law"]
        self._scale = scale_of(card["expansion"]["factor"], generator)
        self._card = json.dumps(card)
        self._seen = np.unique(seen)

    def signatures(self) -> dict[str, Any]:
        """The concrete function of each signature."""
        rows = tf.TensorSpec([None], tf.int64)
        seeds = _named(rows, Field.SEEDS)
        labels = [_named(rows, Field.LABELS)] if self._classes else []
        weights = [tf.TensorSpec([None, self._classes], tf.float32, name=Field.CLASS_WEIGHTS)] if self._classes else []
        latents = tf.TensorSpec([None, self._size], tf.float32, name=Field.LATENTS)
        specs: dict[str, tuple[Callable[..., Outputs], list[tf.TensorSpec]]] = {
            Signature.SAMPLE: (self.sample, [*labels, seeds]),
            Signature.PNG: (self.png, [*labels, seeds]),
            Signature.LATENTS: (self.latents, [seeds]),
            Signature.FROM_LATENTS: (self.from_latents, [*weights, latents]),
            Signature.CARD: (self.card, [_named(rows, Field.ROWS)]),
            Signature.SEEN: (self.seen, [_named(rows, Field.HASHES)]),
        }
        # Kept on the object, because tf.saved_model.save needs them to outlive this call.
        self._functions = {
            name: tf.function(_limited(method), input_signature=spec) for name, (method, spec) in specs.items()
        }
        return {name: function.get_concrete_function() for name, function in self._functions.items()}

    def sample(self, *labels_and_seeds: tf.Tensor) -> Outputs:
        """A label outside the classes blanks its own row only: a batching server merges requests."""
        *labels, seeds = labels_and_seeds
        latents = latents_of(seeds, self._size, self._distribution)
        if not labels:
            return {**self.from_latents(latents), Field.VALID: tf.ones_like(seeds, tf.bool)}
        valid = (labels[0] >= 0) & (labels[0] < self._classes)
        weights = tf.one_hot(tf.where(valid, labels[0], 0), self._classes)
        images = self.from_latents(weights, latents)[Field.IMAGES]
        images = tf.where(valid[:, None, None, None], images, tf.zeros_like(images))
        return {Field.IMAGES: images, Field.VALID: valid}

    def png(self, *labels_and_seeds: tf.Tensor) -> Outputs:
        """The same images as PNG files."""
        sampled = self.sample(*labels_and_seeds)
        files = tf.map_fn(tf.io.encode_png, sampled[Field.IMAGES], fn_output_signature=tf.string)
        return {Field.IMAGE_BYTES: files, Field.VALID: sampled[Field.VALID]}

    def latents(self, seeds: tf.Tensor) -> Outputs:
        """The latents of rows."""
        return {Field.LATENTS: latents_of(seeds, self._size, self._distribution)}

    def from_latents(self, *class_weights_and_latents: tf.Tensor) -> Outputs:
        """Images of given latents and blends of classes; the latents are those before any expansion."""
        *class_weights, latents = class_weights_and_latents
        return {Field.IMAGES: to_pixels(self._generate(*class_weights, self._scale * latents))}

    def card(self, rows: tf.Tensor) -> Outputs:
        """The card, once a row."""
        return {Field.CARD: tf.fill(tf.shape(rows), self._card)}

    def seen(self, hashes: tf.Tensor) -> Outputs:
        """Whether an image with this hash was among the training images."""
        known = tf.constant(self._seen)
        place = tf.minimum(tf.searchsorted(known, hashes), len(self._seen) - 1)
        return {Field.SEEN: tf.gather(known, place) == hashes}


def _named(spec: tf.TensorSpec, name: str) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, spec.dtype, name=name)


def _limited(method: Callable[..., Outputs]) -> Callable[..., Outputs]:
    """Refuse more than MAX_ROWS rows, the only assertion in the graph."""

    def limited(*inputs: tf.Tensor) -> Outputs:
        rows = tf.shape(inputs[0])[0]
        message = f"a request has at most {MAX_ROWS} rows; split it"
        with tf.control_dependencies([tf.debugging.assert_less_equal(rows, MAX_ROWS, message=message)]):
            return method(*(tf.identity(value) for value in inputs))

    return limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Trained:
    """What a run has come to: the averaged generator of the judge's choice, or else the newest."""

    run: Run
    generator: Any
    images_seen: int
    judged: dict[str, dict[str, float]]  # the judge's figure, if one chose the checkpoint
    training: Dataset  # what it was trained on
    held_out: Dataset  # what was kept for the judge


def export(
    run_dir: Path,
    dataset: Dataset,
    *,
    to: Path,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
    expansion: Expansion = NO_EXPANSION,
    name: str = MODEL_NAME,
) -> Path:
    """Publish the averaged generator of a run as the next version below *to*: the judge's choice, or the newest.

    Args:
        run_dir: of `digitforge_training.runs.loop.train`.
        dataset: the one that was given to `train`; what was trained on goes into the `seen` signature.
        to: base folder of the model; versions are numbered folders in it.
        metrics: for the card, each with ``value`` and ``n``.
        expansion: of the latents; `choose_expansion` finds one.
        name: of the model, for the card and the warm-up requests.

    Returns:
        The folder of the new version.

    Raises:
        DataError: the run has no checkpoint, or the folder cannot be written.
        InvalidInputError: the data set is not the one the run was trained on.
    """
    trained = _restore(run_dir, dataset)
    card = make_card(
        trained.run,
        weights=[variable.numpy() for variable in trained.generator.variables],
        images_seen=trained.images_seen,
        metrics={**trained.judged, **(metrics or {})},
        expansion=expansion,
        name=name,
    )
    served = ServedGenerator(trained.generator, card, image_hashes(trained.training.images))
    return publish(served, to=to, card=card)


def scale_of(factor: float, generator: Any) -> npt.NDArray[np.float32]:
    """What each latent of a Keras generator is multiplied by, (d,).

    The first of one with clusters stays as it is: it chooses among them, and they shall stay as frequent as they are.
    """
    scale = np.full(generator.inputs[-1].shape[-1], factor, np.float32)
    if any(isinstance(layer, Clusters) for layer in generator.layers):
        scale[0] = 1
    return scale


def choose_expansion(run_dir: Path, dataset: Dataset, *, judge: str, n: int = 10_000) -> Expansion:
    """Let a judge choose how far the latents of a run's generator are spread.

    It judges by the images that were held out from the training; where none were, by *n* of the training images
    themselves, drawn at random, or by all, if there are fewer.

    Args:
        run_dir: of `digitforge_training.runs.loop.train`.
        dataset: the one that was given to `train`.
        judge: its name, see `judging.find_judge`.
        n: images.

    Raises:
        DataError: the run has no checkpoint.
        InvalidInputError: the data set is not the one the run was trained on, or there is no such judge.
    """
    make_judge = find_judge(judge)
    trained = _restore(run_dir, dataset)
    real = trained.held_out
    if not len(real):
        order = np.random.default_rng(trained.run.seed).permutation(len(trained.training))
        real = trained.training.subset(np.sort(order[:n]))
    recipe, classes = trained.run.recipe, len(trained.run.class_names)
    latents = latents_of(row_seeds(JUDGED_SEED, len(real)), recipe.latent_size, recipe.latent_distribution).numpy()
    weights = [np.eye(classes, dtype=np.float32)[real.labels]] if classes else []
    return choose(
        lambda factor: generated_pixels(trained.generator, [*weights, scale_of(factor, trained.generator) * latents]),
        labels=real.labels,
        judge=make_judge(real.images, real.labels),
        name=judge,
    )


def _restore(run_dir: Path, dataset: Dataset) -> _Trained:
    run = read_run(run_dir)
    if describe(run.recipe, dataset, seed=run.seed, held_out=run.held_out, judge=run.judge) != run:
        made_with = run.training_data
        raise InvalidInputError(
            f"{run_dir} was trained on {made_with['name']} {made_with['split']} ({made_with['images']} images, SHA-256 "
            f"{made_with['sha256']}), not on {dataset.name} {dataset.split} ({len(dataset)} images, SHA-256 "
            f"{dataset.sha256}); give the same --data"
        )
    state, images_seen, judged = _chosen(run, run_dir)
    recipe = dataclasses.replace(run.recipe, bfloat16=False)
    generator = build_generator(recipe, image_shape=run.image_shape, classes=len(run.class_names), seed=0)
    try:
        for i, variable in enumerate(generator.variables):
            variable.assign(state[f"averaged/{i:03d}"])
    except (KeyError, ValueError) as error:
        raise DataError(f"the checkpoint in {run_dir} does not fit its recipe: {error}; train again") from error
    training, held_out = hold_out(dataset, run.held_out, seed=run.seed)
    return _Trained(
        run=run, generator=generator, images_seen=images_seen, judged=judged, training=training, held_out=held_out
    )


def _chosen(run: Run, run_dir: Path) -> tuple[State, int, dict[str, dict[str, float]]]:
    """State, images seen and the judge's figure of the checkpoint to export."""
    best = checkpoints.best(run_dir)
    if best is not None:
        return best.state, best.images_seen, {f"judge {run.judge}": {"value": best.value, "n": best.n}}
    newest = checkpoints.newest(run_dir)
    if newest is None:
        raise DataError(f"{run_dir} has no checkpoint yet; let `digitforge train` go on to its first one")
    return checkpoints.load(newest), checkpoints.images_of(newest), {}


def publish(served: ServedGenerator, *, to: Path, card: Mapping[str, Any]) -> Path:
    """Write a SavedModel as the next version below *to*, visible only when it is whole.

    Raises:
        DataError: the folder cannot be written; nothing is left behind.
    """

    def write(folder: Path) -> None:
        tf.saved_model.save(served, str(folder), signatures=served.signatures())
        write_warmup(folder, card)

    try:
        return versions.publish(to, write)
    except (OSError, tf.errors.OpError) as error:
        raise DataError(f"cannot publish in {to}: {error}; choose another folder with --to") from error


def read_card(version_dir: Path) -> dict[str, Any]:
    """The card of an exported generator, as its `card` signature gives it.

    Raises:
        DataError: the folder holds no exported generator.
    """
    try:
        signatures = tf.saved_model.load(str(version_dir)).signatures
        reply = signatures[Signature.CARD](**{Field.ROWS: tf.zeros([1], tf.int64)})
    except (OSError, KeyError, tf.errors.OpError) as error:
        raise DataError(f"{version_dir} holds no generator that digitforge exported: {error}") from error
    card: dict[str, Any] = json.loads(reply[Field.CARD].numpy()[0])
    return card
