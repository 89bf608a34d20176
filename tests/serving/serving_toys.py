"""Small SavedModels for tests, and TensorFlow Serving's official client."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

T = TypeVar("T")
#: (folder of a SavedModel, version) => None: publishes the version.
Publish = Callable[[Path, int], None]
#: dtypes with an identity signature `echo_NAME`.
ECHOED = (
    tf.float32,
    tf.float64,
    tf.float16,
    tf.bfloat16,
    tf.int8,
    tf.int16,
    tf.int32,
    tf.int64,
    tf.uint8,
    tf.uint16,
    tf.uint32,
    tf.uint64,
    tf.bool,
    tf.complex64,
    tf.complex128,
    tf.string,
)


def _vector(name: str) -> tf.TensorSpec:
    return tf.TensorSpec([None], tf.float32, name=name)


def write_toy(path: Path, *, offset: float = 0.0, warm_up: bool = False) -> None:
    """Write a SavedModel with a signature for each feature to test."""

    class Toy(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset = tf.Variable(offset)

        @tf.function(input_signature=[_vector("a"), _vector("b")])
        def pair(self, a: Any, b: Any) -> Any:
            return {"product": a * b, "sum": a + b + self.offset}

        @tf.function(input_signature=[_vector("x")])
        def guarded(self, x: Any) -> Any:
            with tf.control_dependencies([tf.debugging.assert_less_equal(tf.shape(x)[0], 4, "at most 4 rows")]):
                return {"y": tf.identity(x)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def shout(self, text: Any) -> Any:
            return {"length": tf.strings.length(text), "loud_bytes": tf.strings.upper(text)}

        @tf.function(input_signature=[_vector("x")])
        def slow(self, x: Any) -> Any:
            rounds = tf.cast(x[0], tf.int32)
            total = tf.while_loop(lambda i, _: i < rounds, lambda i, t: (i + 1, tf.sin(t)), (0, tf.ones([200_000])))[1]
            return {"y": x + 0 * total[0]}

        @tf.function(input_signature=[_vector("x")])
        def stubborn(self, x: Any) -> Any:
            size = tf.cast(x[0], tf.int32)
            values = tf.linalg.svd(tf.random.stateless_uniform([size, size], [1, 2]), full_matrices=True)[0]
            return {"y": x + values[0]}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="folder")])
        def gated(self, folder: Any) -> Any:
            """Write the file `begun` into a folder, and answer when the folder has a file `open`."""
            begun = tf.io.write_file(folder[0] + "/begun", "")

            def shut(_: Any) -> Any:
                return tf.size(tf.io.matching_files(folder[0] + "/open")) == 0

            with tf.control_dependencies([begun]):
                rounds = tf.while_loop(shut, lambda i: [i + 1], [tf.constant(0)])[0]
            with tf.control_dependencies([rounds]):
                return {"y": tf.identity(folder)}

    toy = Toy()
    signatures = {
        "serving_default": toy.pair,
        "with_default": toy.pair,
        "guarded": toy.guarded,
        "shout": toy.shout,
        "slow": toy.slow,
        "stubborn": toy.stubborn,
        "gated": toy.gated,
    }
    for dtype in ECHOED:
        spec = tf.TensorSpec(None, dtype, name="x")
        signatures[f"echo_{dtype.name}"] = tf.function(lambda x: {"y": tf.identity(x)}, input_signature=[spec])
    tf.saved_model.save(toy, str(path), signatures=signatures)
    _give_default(path)
    if warm_up:
        write_warm_up(path, "serving_default", {"a": [1.0], "b": [2.0]})


def _give_default(path: Path) -> None:
    """Give input b of the signature `with_default` a default value."""
    file = path / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    signature = saved_model.meta_graphs[0].signature_def["with_default"]
    signature.defaults["b"].CopyFrom(tf.make_tensor_proto([10.0, 20.0]))
    file.write_bytes(saved_model.SerializeToString())


def write_warm_up(path: Path, signature: str, inputs: dict[str, Any]) -> None:
    """Add one warm-up request to a SavedModel."""
    entry = prediction_log_pb2.PredictionLog()
    entry.predict_log.request.CopyFrom(predict_request(signature=signature, inputs=inputs))
    (path / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(path / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(entry.SerializeToString())


def predict_request(
    *, model: str = "toy", signature: str = "", inputs: dict[str, Any] | None = None, version: int | None = None
) -> predict_pb2.PredictRequest:
    """Build a request."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for alias, value in ({"a": [1.0, 2.0], "b": [3.0, 4.0]} if inputs is None else inputs).items():
        array = np.asarray(value, np.float32) if isinstance(value, list) else value
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(array))  # a TensorProto is copied unchanged
    return request


@dataclass(frozen=True)
class Stubs:
    """The official stubs on one channel."""

    channel: grpc.Channel
    prediction: prediction_service_pb2_grpc.PredictionServiceStub
    model: model_service_pb2_grpc.ModelServiceStub

    @classmethod
    def on(cls, channel: grpc.Channel) -> Self:
        return cls(
            channel,
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
        )

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        return self.prediction.Predict(request, timeout=30)

    def sums(self, **model_spec: Any) -> list[float]:
        """The toy's answer to [1, 2] and [3, 4]: [4.0, 6.0], or [104.0, 106.0] from the second version."""
        return tf.make_ndarray(self.predict(predict_request(**model_spec)).outputs["sum"]).tolist()

    def states(self, model: str = "toy") -> dict[int, int]:
        """Version => state, for each version that the server ever tried to load."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        reply = self.model.GetModelStatus(request, timeout=30)
        return {entry.version: entry.state for entry in reply.model_version_status}


class Gate:
    """A request that the server starts at once and finishes when the test calls `open`."""

    def __init__(self, stubs: Stubs, folder: Path) -> None:
        self._folder = folder
        inputs = {"folder": tf.constant([str(folder)])}
        self.answer = stubs.prediction.Predict.future(predict_request(signature="gated", inputs=inputs), timeout=120)
        wait_for((folder / "begun").exists)

    def open(self) -> None:
        """Let the server answer."""
        (self._folder / "open").touch()


def connect(target: str) -> Stubs:
    """Create stubs for a server. The first call connects."""
    return Stubs.on(grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)]))


def wait_for(condition: Callable[[], T]) -> T:
    """Wait until a condition is true, and return its value. pytest's timeout ends a test that waits too long."""
    while not (value := condition()):
        time.sleep(0.05)
    return value
