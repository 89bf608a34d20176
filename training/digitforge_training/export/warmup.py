"""Warm-up requests of an export. A server replays them before it reports the version as available."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from digitforge_client.contract import Field, Signature, balanced_labels, row_seeds

#: Path in the version's folder where TensorFlow Serving looks.
WARMUP_FILE: Final = Path("assets.extra", "tf_serving_warmup_requests")

_ROWS = (1, 32, 256)  # batch sizes to warm up for `serving_default`


def write_warmup(version_dir: Path, card: Mapping[str, Any]) -> None:
    """Write the warm-up file of an exported generator, a TFRecord file of PredictionLog messages."""
    path = version_dir / WARMUP_FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in _requests(card):
            writer.write(_log(card["name"], signature, inputs).SerializeToString())


def _requests(card: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    classes, size = len(card["class_names"]), card["latent_size"]

    def rows(n: int) -> dict[str, Any]:
        labels = {Field.LABELS: balanced_labels(n, classes)} if classes else {}
        return {**labels, Field.SEEDS: row_seeds(0, n)}

    weights = {Field.CLASS_WEIGHTS: np.eye(1, classes, dtype=np.float32)} if classes else {}

    return [
        *((Signature.SAMPLE, rows(n)) for n in _ROWS),
        (Signature.PNG, rows(1)),
        (Signature.LATENTS, {Field.SEEDS: row_seeds(0, 1)}),
        (Signature.FROM_LATENTS, {**weights, Field.LATENTS: np.zeros((1, size), np.float32)}),
        (Signature.CARD, {Field.ROWS: np.zeros(1, np.int64)}),
        (Signature.SEEN, {Field.HASHES: np.zeros(1, np.int64)}),
    ]


def _log(model: str, signature: str, inputs: Mapping[str, Any]) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return log
