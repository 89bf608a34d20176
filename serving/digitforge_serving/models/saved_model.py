"""Load and run a SavedModel like TensorFlow Serving: in its own session, by tensor name."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from digitforge_serving.models.batching import Compute

Array = npt.NDArray[Any]

#: Limit on cached callables, one per set of inputs and outputs. More sets are not cached.
_MAX_PREPARED: Final = 256
_load_lock = threading.Lock()  # the level of TensorFlow's logger is shared by all threads


class SavedModel:
    """A loaded SavedModel.

    Its session closes when nothing refers to this object any more, so requests in flight can finish while their version
    is unloaded.

    Attributes:
        signatures: name => SignatureDef, for all signatures in the file.
    """

    def __init__(
        self, path: Path, *, tags: Sequence[str] = ("serve",), intra_op_threads: int = 0, inter_op_threads: int = 0
    ) -> None:
        """Load the SavedModel in the folder *path*.

        Raises:
            Exception: TensorFlow raises many types of error for a damaged folder or missing tags.
        """
        config = tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=intra_op_threads,
            inter_op_parallelism_threads=inter_op_threads,
            use_per_session_threads=bool(inter_op_threads),
        )
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph, config=config)
        try:
            meta_graph = self._load(path, tags)
        except BaseException:
            self._session.close()
            raise
        self.signatures: dict[str, meta_graph_pb2.SignatureDef] = dict(meta_graph.signature_def)
        self._prepared: dict[tuple[tuple[str, ...], tuple[str, ...]], Any] = {}
        self._prepare_lock = threading.Lock()
        weakref.finalize(self, self._session.close)

    def _load(self, path: Path, tags: Sequence[str]) -> meta_graph_pb2.MetaGraphDef:
        logger = tf.get_logger()
        with _load_lock, self._graph.as_default():
            level = logger.level
            logger.setLevel(logging.ERROR)  # hides TensorFlow's deprecation warning for this loader
            try:
                return tf.compat.v1.saved_model.load(self._session, list(tags), str(path))
            finally:
                logger.setLevel(level)

    def run(self, feeds: dict[str, Array], fetches: Sequence[str]) -> list[Array]:
        """Compute tensors.

        Args:
            feeds: tensor name => value, with the tensor's dtype.
            fetches: names of the tensors to compute.

        Returns:
            The values, in the order of *fetches*.

        Raises:
            tf.errors.OpError: an operation failed.
        """
        distinct = tuple(dict.fromkeys(fetches))
        computed = self._call(tuple(feeds), distinct)(*feeds.values())
        values = {name: _as_array(value) for name, value in zip(distinct, computed, strict=True)}
        return [values[name] for name in fetches]

    def close(self) -> None:
        """Close the session. Running computations soon raise ``tf.errors.CancelledError``."""
        self._session.close()

    def _call(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> Any:
        prepared = self._prepared.get((feeds, fetches))
        if prepared is None:
            with self._prepare_lock:
                options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
                # Private API, because Session.run looks up all names each time and makes a one-row request take twice
                # as long.
                prepared = self._session._make_callable_from_options(options)
                if len(self._prepared) < _MAX_PREPARED:
                    self._prepared[feeds, fetches] = prepared
        return prepared


def _as_array(value: Any) -> Array:
    """Convert a session's result, which is plain ``bytes`` for a scalar string."""
    return np.array(value, dtype=object) if isinstance(value, bytes) else np.asarray(value)


@dataclass(frozen=True, kw_only=True)
class Served:
    """One version of a model, ready to answer."""

    name: str  #: name of the model
    version: int  #: number of the version
    model: SavedModel  #: the loaded model
    compute: Compute  #: computes tensors of the model, alone or merged with other requests
