"""Training on several devices or machines: the strategy, and the rows of each replica.

Each replica takes its share of every batch. It draws random numbers for the whole batch and keeps those of its rows, so
a training uses the same random numbers per row on any number of devices.
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
_CLUSTER = "TF_CONFIG"  # environment variable that describes the machines


@functools.cache
def strategy() -> tf.distribute.Strategy:
    """The distribution strategy of this process.

    It is ``MultiWorkerMirroredStrategy`` if TF_CONFIG names more than one task, and ``MirroredStrategy`` if there are
    several GPUs, or several logical CPU devices and no GPU. Otherwise it is the default strategy. With several
    machines, call this before anything else from TensorFlow.

    Raises:
        InvalidInputError: TF_CONFIG is malformed.
    """
    try:
        cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
        if sum(map(len, cluster.values())) > 1:
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"{_CLUSTER} is {os.environ[_CLUSTER]!r}, which is malformed ({error}); unset it, or set it to "
            '{"cluster": {"worker": ["HOST:PORT", …]}, "task": {"type": "worker", "index": …}}'
        ) from error
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def only_chief_writes(train: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let only one of several machines (the chief) write to the folder ``run_dir``, a keyword argument of *train*.

    The other machines work in temporary copies of the folder. All machines thus start from the same state and run the
    same code.
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
    """Number of replicas in the current scope: 1 outside of the strategy's scope."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def share(batch: int) -> int:
    """Number of replicas that share a batch of *batch* images.

    Raises:
        InvalidInputError: *batch* is not a multiple of the number of replicas.
    """
    devices = strategy().num_replicas_in_sync
    if batch % devices:
        raise InvalidInputError(
            f"batch_size is {batch}, but {devices} devices share a batch; "
            f"set batch_size to a multiple of {devices}, or use another number of devices"
        )
    return int(devices)


def own_rows(whole: tf.Tensor, *, batch: int) -> tf.Tensor:
    """Select the rows of this replica.

    Args:
        whole: (k · batch, …), k batches in a row.
        batch: images of an update over all replicas.

    Returns:
        (k · batch / replicas, …), this replica's share of each of the k batches.
    """
    if count() == 1:
        return whole
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    shares = tf.reshape(whole, [-1, count(), batch // count(), *whole.shape[1:]])
    return tf.reshape(shares[:, replica], [-1, *whole.shape[1:]])


def draw(sample: Callable[..., tf.Tensor], shape: Sequence[Any], *arguments: Any, batch: int) -> tf.Tensor:
    """Draw random numbers for the rows of this replica. A single device would draw the same numbers for these rows.

    Args:
        sample: draws random numbers; called with a shape and *arguments*.
        shape: shape of the result. The first size is the number of this replica's rows.
        *arguments: passed on to *sample*.
        batch: see `own_rows`.
    """
    rows, *rest = shape
    return own_rows(sample((count() * rows, *rest), *arguments), batch=batch)


def mean(tensors: list[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """The mean of each tensor over the replicas. None stays None."""
    if count() == 1:
        return tensors
    # Copy the tensors, because TensorFlow cannot reduce arguments of a graph between machines: they have no device.
    present = [tf.identity(tensor) for tensor in tensors if tensor is not None]
    if present:
        present = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, present)
    means = iter(present)
    return [None if tensor is None else next(means) for tensor in tensors]


def everywhere(update: Callable[..., _R], *arguments: Any) -> _R:
    """Call *update* on every replica. All replicas must return the same value, which is returned."""
    if strategy().num_replicas_in_sync == 1:
        return update(*arguments)
    results = strategy().run(update, args=arguments)
    return tf.nest.map_structure(lambda result: strategy().experimental_local_results(result)[0], results)


def descend(optimizer: Any, tape: tf.GradientTape, loss: tf.Tensor, variables: Any) -> None:
    """Take one step of *optimizer* on the mean of *loss* over all replicas."""
    gradients = tape.gradient(loss, variables)
    if count() > 1:
        # Keras clips each replica's gradient and then sums them. The recipe clips the gradient of the loss over the
        # whole batch, which is the mean over the replicas, so clip that mean.
        limit = optimizer.clipvalue
        if limit:
            gradients = [g if g is None else tf.clip_by_value(g, -limit, limit) for g in mean(gradients)]
        gradients = [g if g is None else g / count() for g in gradients]
    optimizer.apply(gradients, variables)


def check_same(step: int) -> None:
    """Check that all machines resume after the same step.

    Raises:
        DataError: they resume after different steps.
    """
    (average,) = everywhere(tf.function(mean), [tf.constant(float(step))])
    if float(average) != step:
        raise DataError(
            f"this machine would resume after step {step}, but another machine would resume after a different step; "
            "give all machines the same --out on a shared disk"
        )


@contextlib.contextmanager
def machines_answer(*, after: int) -> Iterator[None]:
    """Turn TensorFlow's errors about a lost machine into a DataError.

    Args:
        after: the last completed step, for the message.

    Raises:
        DataError: another machine does not answer.
    """
    try:
        yield
    except _GONE as error:
        raise DataError(
            f"another machine of this training does not answer after step {after}: "
            f"{error.message.splitlines()[0]}; "
            "repeat the command on all machines to resume from the newest checkpoint"
        ) from error
