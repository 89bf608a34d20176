"""Several devices or machines: the strategy that the environment asks for, and the rows that one replica works on.

A replica takes its share of every batch. Random numbers are drawn for the whole batch by every replica, which keeps
those of its rows: a training sees the same numbers, row by row, on any number of devices.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import tensorflow as tf

from digitforge_client.errors import DataError, InvalidInputError

_P = ParamSpec("_P")
_R = TypeVar("_R")

_GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
_CLUSTER = "TF_CONFIG"  # where TensorFlow, and whoever starts it on several machines, describes them


@functools.cache
def strategy() -> tf.distribute.Strategy:
    """How this process trains: with other machines, on several devices of this one, or on one.

    TF_CONFIG, if it names more than one task, asks for `MultiWorkerMirroredStrategy`; several GPUs that TensorFlow sees
    (or, without a GPU, several logical CPU devices) for `MirroredStrategy`. With other machines this must be the first
    thing that the process asks of TensorFlow.

    Raises:
        InvalidInputError: TF_CONFIG cannot be used.
    """
    try:
        cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
        if sum(map(len, cluster.values())) > 1:
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"{_CLUSTER} is {os.environ[_CLUSTER]!r}, which is no use: {error}; "
            'expected {"cluster": {"worker": ["HOST:PORT", …]}, "task": {"type": "worker", "index": …}}, or nothing'
        ) from error
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def only_chief_writes(train: Callable[_P, _R]) -> Callable[_P, _R]:
    """Of several machines, let one work in *train*'s keyword argument ``run_dir``, and the others in copies of it.

    The copies are thrown away. So all machines do the same, from the same state, and one leaves something behind.
    """

    @functools.wraps(train)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if strategy().extended.should_checkpoint:
            return train(*args, **kwargs)
        run_dir = kwargs["run_dir"]
        with tempfile.TemporaryDirectory(prefix="digitforge-") as scratch:
            copy = Path(scratch, "run")
            if isinstance(run_dir, Path) and run_dir.is_dir():
                shutil.copytree(run_dir, copy, ignore=shutil.ignore_patterns(".*", "best.npz", "*.png", "tensorboard"))
            kwargs["run_dir"] = copy
            return train(*args, **kwargs)

    return wrapped


def count() -> int:
    """How many replicas share the batch, where this is called: 1 outside of the strategy's scope."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def share(batch: int) -> int:
    """How many replicas share a batch of so many images.

    Raises:
        InvalidInputError: they cannot share it equally.
    """
    devices = strategy().num_replicas_in_sync
    if batch % devices:
        raise InvalidInputError(
            f"batch_size is {batch}, which {devices} devices cannot share equally; "
            f"use --set batch_size=N with a multiple of {devices}, or another number of devices"
        )
    return int(devices)


def own_rows(whole: tf.Tensor, *, batch: int) -> tf.Tensor:
    """The rows of this replica.

    Args:
        whole: (k · batch, …), rows of k whole batches, one batch after the other.
        batch: images of an update over all replicas.

    Returns:
        (k · batch / replicas, …), its share of each batch, one after the other.
    """
    if count() == 1:
        return whole
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    shares = tf.reshape(whole, [-1, count(), batch // count(), *whole.shape[1:]])
    return tf.reshape(shares[:, replica], [-1, *whole.shape[1:]])


def draw(sample: Callable[..., tf.Tensor], shape: Sequence[Any], *arguments: Any, batch: int) -> tf.Tensor:
    """Draw random numbers of *shape* for the rows of this replica: those that one device would draw for them.

    Args:
        sample: draws, called with a shape and *arguments*.
        batch: as in `own_rows`.
    """
    rows, *rest = shape
    return own_rows(sample((count() * rows, *rest), *arguments), batch=batch)


def mean(tensors: list[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """The mean of each tensor over the replicas; None stays None."""
    if count() == 1:
        return tensors
    # Copies, because they have a device; an argument of a graph has none, and cannot be reduced between machines.
    present = [tf.identity(tensor) for tensor in tensors if tensor is not None]
    if present:
        present = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, present)
    means = iter(present)
    return [None if tensor is None else next(means) for tensor in tensors]


def everywhere(update: Callable[..., _R], *arguments: Any) -> _R:
    """Let every replica call *update*, which returns the same on all of them, and return that."""
    if strategy().num_replicas_in_sync == 1:
        return update(*arguments)
    results = strategy().run(update, args=arguments)
    return tf.nest.map_structure(lambda result: strategy().experimental_local_results(result)[0], results)


def descend(optimizer: Any, tape: tf.GradientTape, loss: tf.Tensor, variables: Any) -> None:
    """Take one step of *optimizer* down the gradient of *loss*, which is the mean over all replicas."""
    gradients = tape.gradient(loss, variables)
    if count() > 1:
        # Keras clips the gradients of a replica and then sums those of all; here the loss is the mean over the
        # whole batch, and it is its gradient that the recipe clips.
        limit = optimizer.clipvalue
        if limit:
            gradients = [g if g is None else tf.clip_by_value(g, -limit, limit) for g in mean(gradients)]
        gradients = [g if g is None else g / count() for g in gradients]
    optimizer.apply(gradients, variables)


def check_same(step: int) -> None:
    """Be sure that all machines go on after the same step.

    Raises:
        DataError: they do not.
    """
    (average,) = everywhere(tf.function(mean), [tf.constant(float(step))])
    if float(average) != step:
        raise DataError(
            f"this machine would go on after step {step}, and others elsewhere; "
            "give all of them the same --out, on a disk that they share"
        )


@contextlib.contextmanager
def machines_answer(*, after: int) -> Iterator[None]:
    """Say what to do where another machine goes in the middle of a training, whose last whole step was *after*.

    Raises:
        DataError: one has gone.
    """
    try:
        yield
    except _GONE as error:
        raise DataError(
            f"another machine of this training does not answer after step {after}: "
            f"{error.message.splitlines()[0]}; "
            "start the same command on all of them again, and it goes on from the newest checkpoint"
        ) from error
