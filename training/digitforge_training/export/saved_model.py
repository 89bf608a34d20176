"""Exports a trained generator as a SavedModel with the signatures of the contract.

Every input and output has the number of rows as its first dimension, because TensorFlow Serving's batching requires
it. The graph uses standard operations only: no XLA, no Python functions, no custom operations.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from digitforge_client.common import versions
from digitforge_client.common.json_text import parse_json
from digitforge_client.contract import MAX_ROWS, MODEL_NAME, Field, Signature, image_hashes, row_seeds
from digitforge_client.errors import DataError, InvalidInputError, UnexpectedReplyError
from digitforge_client.protocol.description import describe_card
from digitforge_training.data import Dataset
from digitforge_training.export import model_card
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

#: Path in the version's folder of the weights of the discriminator.
DISCRIMINATOR_FILE: Final = Path("assets.extra", "discriminator.npz")

Outputs = dict[str, tf.Tensor]


class ServedGenerator(tf.Module):
    """The graph of an exported generator. Each public method except `signatures` is a signature.

    A generator without classes takes no labels and no class weights. The ``class_names`` of its card are empty.
    """

    def __init__(self, generator: Any, card: Mapping[str, Any], seen: npt.NDArray[np.int64]) -> None:
        """Wrap a generator.

        Args:
            generator: Keras model: [class weights (n, K),] latents (n, d) => images (n, H, W, C). It takes class
                weights if there are classes.
            card: the card, with its ``generator_id``.
            seen: (m,) int64, hashes of the training images, in any order.
        """
        super().__init__(name="served_generator")
        # Hold the weights as plain variables, because tf.saved_model.save does not find variables inside a Keras model.
        # TensorFlow Serving runs the graph in a TF1 session, which would leave such variables uninitialized.
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
        """Signature name => concrete function."""
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
        # Kept on the object, because the functions must still exist when tf.saved_model.save runs.
        self._functions = {
            name: tf.function(_limited(method), input_signature=spec) for name, (method, spec) in specs.items()
        }
        return {name: function.get_concrete_function() for name, function in self._functions.items()}

    def sample(self, *labels_and_seeds: tf.Tensor) -> Outputs:
        """Images of labels and row seeds.

        A label outside the classes gives a black image in its own row. An error would also fail the requests of other
        clients that a batching server has merged with this one.
        """
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
        """The images of `sample` as PNG files."""
        sampled = self.sample(*labels_and_seeds)
        files = tf.map_fn(tf.io.encode_png, sampled[Field.IMAGES], fn_output_signature=tf.string)
        return {Field.IMAGE_BYTES: files, Field.VALID: sampled[Field.VALID]}

    def latents(self, seeds: tf.Tensor) -> Outputs:
        """Latents of row seeds."""
        return {Field.LATENTS: latents_of(seeds, self._size, self._distribution)}

    def from_latents(self, *class_weights_and_latents: tf.Tensor) -> Outputs:
        """Images of latents and class weights. The expansion applies to these latents too."""
        *class_weights, latents = class_weights_and_latents
        return {Field.IMAGES: to_pixels(self._generate(*class_weights, self._scale * latents))}

    def card(self, rows: tf.Tensor) -> Outputs:
        """The card, repeated in every row."""
        return {Field.CARD: tf.fill(tf.shape(rows), self._card)}

    def seen(self, hashes: tf.Tensor) -> Outputs:
        """Whether an image with this hash was among the training images."""
        known = tf.constant(self._seen)
        index = tf.minimum(tf.searchsorted(known, hashes), len(self._seen) - 1)
        return {Field.SEEN: tf.gather(known, index) == hashes}


def _named(spec: tf.TensorSpec, name: str) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, spec.dtype, name=name)


def _limited(method: Callable[..., Outputs]) -> Callable[..., Outputs]:
    """Reject more than MAX_ROWS rows. This is the only assertion in the graph."""

    def limited(*inputs: tf.Tensor) -> Outputs:
        rows = tf.shape(inputs[0])[0]
        message = f"a request may have at most {MAX_ROWS} rows; split it into smaller requests"
        with tf.control_dependencies([tf.debugging.assert_less_equal(rows, MAX_ROWS, message=message)]):
            return method(*(tf.identity(value) for value in inputs))

    return limited


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Trained:
    """A run with its averaged generator, from the judge's best checkpoint, or from the newest without a judge."""

    run: Run
    generator: Any
    images_seen: int
    judged: dict[str, dict[str, Any]]  # the judge's score as a metric, if a judge chose the checkpoint
    training: Dataset
    held_out: Dataset


def export(
    run_dir: Path,
    dataset: Dataset,
    *,
    to: Path,
    metrics: Mapping[str, Mapping[str, Any]] | None = None,
    expansion: Expansion = NO_EXPANSION,
    name: str = MODEL_NAME,
) -> Path:
    """Publish the averaged generator of a run as the next version in *to*.

    Takes the judge's best checkpoint, or the newest without a judge.

    Args:
        run_dir: run folder of `digitforge_training.runs.loop.train`.
        dataset: the data set given to `train`. The hashes of its training images go into the signature ``seen``.
        to: folder of the model, which holds its numbered versions.
        metrics: metrics for the card: name => ``value`` and sample size ``n``, and optionally ``interval``,
            ``training_floor`` and ``unseen_floor``.
        expansion: expansion of the latents. `choose_expansion` finds one.
        name: name of the model, for the card and the warm-up requests.

    Returns:
        The folder of the new version.

    Raises:
        DataError: the run has no checkpoint, or the folder cannot be written.
        InvalidInputError: the run was trained on another data set.
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
    seen = image_hashes(trained.training.images)
    if trained.run.parent:
        seen = np.concatenate([seen, checkpoints.parent_seen(run_dir)])
    newest = checkpoints.newest(run_dir)
    state = checkpoints.load(newest) if newest else {}
    discriminator = {name: array for name, array in state.items() if name.startswith("discriminator/")}
    return publish(ServedGenerator(trained.generator, card, seen), to=to, card=card, discriminator=discriminator)


def scale_of(factor: float, generator: Any) -> npt.NDArray[np.float32]:
    """Factors (d,) for the numbers of a latent of a Keras generator.

    With clusters the first factor is 1: the first number chooses the cluster, and the clusters keep their frequencies.
    """
    scale = np.full(generator.inputs[-1].shape[-1], factor, np.float32)
    if any(isinstance(layer, Clusters) for layer in generator.layers):
        scale[0] = 1
    return scale


def choose_expansion(run_dir: Path, dataset: Dataset, *, judge: str, n: int = 10_000) -> Expansion:
    """Let a judge choose the expansion of a run's generator.

    The judge compares with the held-out images. If none were held out, it compares with *n* random training images.

    Args:
        run_dir: run folder of `digitforge_training.runs.loop.train`.
        dataset: the data set given to `train`.
        judge: name of the judge, see `judging.find_judge`.
        n: largest number of training images to compare with.

    Raises:
        DataError: the run has no checkpoint.
        InvalidInputError: the run was trained on another data set, or the judge does not exist.
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
    given = describe(run.recipe, dataset, seed=run.seed, held_out=run.held_out, judge=run.judge, parent=run.parent)
    if given.with_name_of(run) != run:
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
        raise DataError(
            f"the checkpoint in {run_dir} does not fit its recipe: {error!r}; train again into another folder"
        ) from error
    training, held_out = hold_out(dataset, run.held_out, seed=run.seed)
    return _Trained(
        run=run,
        generator=generator,
        images_seen=images_seen,
        judged=judged,
        training=training,
        held_out=held_out,
    )


def _chosen(run: Run, run_dir: Path) -> tuple[State, int, dict[str, dict[str, float]]]:
    """State, images seen and judge's score of the checkpoint to export."""
    best = checkpoints.best(run_dir)
    if best is not None:
        return best.state, best.images_seen, {f"judge {run.judge}": {"value": best.value, "n": best.n}}
    newest = checkpoints.newest(run_dir)
    if newest is None:
        raise DataError(f"{run_dir} has no checkpoint yet; repeat `digitforge train` until it writes one")
    return checkpoints.load(newest), checkpoints.images_of(newest), {}


def publish(served: ServedGenerator, *, to: Path, card: Mapping[str, Any], discriminator: State | None = None) -> Path:
    """Write a SavedModel as the next version in *to*. The version appears only when it is complete.

    The weights of the discriminator, ``discriminator/…`` of a checkpoint, go into an extra file. `digitforge adapt`
    reads it, and servers ignore it.

    Raises:
        DataError: the folder cannot be written. Nothing is left behind.
    """

    def write(folder: Path) -> None:
        tf.saved_model.save(served, str(folder), signatures=served.signatures())
        write_warmup(folder, card)
        (folder / model_card.NAME).write_text(model_card.model_card(card), encoding="utf-8")
        if discriminator:
            checkpoints.write_npz(folder / DISCRIMINATOR_FILE, discriminator)

    try:
        return versions.publish(to, write)
    except tf.errors.OpError as error:
        raise DataError(f"cannot publish in {to}: {error}; choose another folder with --to") from error


def read_card(version_dir: Path) -> dict[str, Any]:
    """Read the card of an exported generator from its signature ``card``.

    Raises:
        DataError: the folder does not hold an exported generator.
    """
    try:
        signatures = tf.saved_model.load(str(version_dir)).signatures
        reply = signatures[Signature.CARD](**{Field.ROWS: tf.zeros([1], tf.int64)})
        card: dict[str, Any] = parse_json(reply[Field.CARD].numpy()[0])
        describe_card(card)  # raises an error if it breaks the contract
    except (OSError, KeyError, TypeError, ValueError, AttributeError, UnexpectedReplyError, tf.errors.OpError) as error:
        raise DataError(
            f"{version_dir} is not a generator exported by digitforge ({error}); `digitforge export` makes one"
        ) from error
    return card
