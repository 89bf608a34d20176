"""Replay a SavedModel's warm-up requests, so that the first client's request is not slow."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from digitforge_serving.models import predict, refusal
from digitforge_serving.models.batching import Caller
from digitforge_serving.models.saved_model import Served

_FILE: Final = Path("assets.extra", "tf_serving_warmup_requests")
_MAX_RECORDS: Final = 1000


def warm_up(served: Served, path: Path) -> int:
    """Replay the requests in a version's warm-up file.

    Args:
        served: the loaded version.
        path: the version's folder.

    Returns:
        Number of records read; 0 if the folder has no warm-up file.

    Raises:
        RefusedError: a record cannot be read, or its request fails. The version must not serve then.
    """
    file = path / _FILE
    if not file.exists():
        return 0
    count = 0
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            count += 1
            if count > _MAX_RECORDS:
                raise refusal.invalid_argument(
                    f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {file}"
                )
            entry = prediction_log_pb2.PredictionLog.FromString(record)
            if entry.WhichOneof("log_type") == "predict_log":
                predict.run(served, entry.predict_log.request, as_content=True, caller=Caller())
    except tf.errors.DataLossError as error:
        raise refusal.from_number(
            tf.errors.DATA_LOSS, f"{error.message}. Please verify your warmup data is in TFRecord format."
        ) from error
    return count
