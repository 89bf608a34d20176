"""One SavedModel in memory, run as TensorFlow Serving runs it: a session of its own, fed and fetched by tensor name."""

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

#: Each set of outputs that clients ask for gets a prepared call; beyond this many it is made anew each time.
_MOST_PREPARED: Final = 256
_load_lock = threading.Lock()  # the loader's notice is silenced through a logger that all threads share


class SavedModel:
    """A loaded SavedModel.

    It stays in memory for as long as somebody refers to it: a request that runs while its version is unloaded
    finishes undisturbed.

    Attributes:
        signatures: name => SignatureDef, all that the file contains.
    """

    def __init__(
        self, path: Path, *, tags: Sequence[str] = ("serve",), intra_op_threads: int = 0, inter_op_threads: int = 0
    ) -> None:
        """Load the SavedModel in the folder *path*.

        Raises:
            Exception: of many kinds, whatever TensorFlow makes of a folder that is damaged or has no such tags.
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
            logger.setLevel(logging.ERROR)  # TensorFlow advises users of this loader, for good, to use the other one
            try:
                return tf.compat.v1.saved_model.load(self._session, list(tags), str(path))
            finally:
                logger.setLevel(level)

    def run(self, feeds: dict[str, Array], fetches: Sequence[str]) -> list[Array]:
        """Compute tensors.

        Args:
            feeds: tensor name => its value, of the tensor's dtype.
            fetches: names of the tensors wanted.

        Returns:
            Their values, in the order of *fetches*.

        Raises:
            tf.errors.OpError: an operation refused its input.
        """
        distinct = tuple(dict.fromkeys(fetches))
        computed = self._call(tuple(feeds), distinct)(*feeds.values())
        values = {name: _as_array(value) for name, value in zip(distinct, computed, strict=True)}
        return [values[name] for name in fetches]

    def close(self) -> None:
        """Compute nothing from now on: what is being computed ends with a ``tf.errors.CancelledError``, soon."""
        self._session.close()

    def _call(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> Any:
        prepared = self._prepared.get((feeds, fetches))
        if prepared is None:
            with self._prepare_lock:
                options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
                # The public Session.run looks every name up again, which doubles the time of a one-row request.
                prepared = self._session._make_callable_from_options(options)
                if len(self._prepared) < _MOST_PREPARED:
                    self._prepared[feeds, fetches] = prepared
        return prepared


def _as_array(value: Any) -> Array:
    """A scalar string comes out of a session as plain bytes."""
    return np.array(value, dtype=object) if isinstance(value, bytes) else np.asarray(value)


@dataclass(frozen=True, kw_only=True)
class Served:
    """One version of a model, ready to answer."""

    name: str
    version: int
    model: SavedModel
    compute: Compute  # of the model's tensors; the way there may merge requests
