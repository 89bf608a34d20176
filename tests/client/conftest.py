"""A server made with the official stubs. It makes digits with a formula, and it can simulate faults."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest

IMAGE_SHAPE = (28, 28, 1)
TEN = tuple("0123456789")


def digits(labels: np.ndarray | None, seeds: np.ndarray, *, shape: tuple[int, ...] = IMAGE_SHAPE) -> np.ndarray:
    """Make images that depend on label and row seed alone: (n, *shape) uint8."""
    labels = np.zeros(len(seeds), dtype=np.int64) if labels is None else labels
    mixed = (seeds.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ (labels.astype(np.uint64) << np.uint64(40))
    pixels = np.arange(np.prod(shape), dtype=np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
    return ((mixed[:, None] + pixels[None]) >> np.uint64(37)).astype(np.uint8).reshape(-1, *shape)


class OfficialServer:
    """Serves one generator with TensorFlow Serving's own messages; tests may change its attributes while it runs."""

    def __init__(self, port: int = 0, options: Sequence[tuple[str, int]] = (), at_once: int | None = None) -> None:
        self.class_names: tuple[str, ...] = TEN
        self.image_shape = IMAGE_SHAPE
        self.generator_id = "0123456789abcdef"
        self.max_rows = 1024
        self.version = 1
        self.tensor_content = True
        self.card_changes: dict[str, Any] = {}  # replace fields of the card
        self.delay_s = 0.0
        self.failures: list[tuple[grpc.StatusCode, str]] = []  # each request for digits takes one
        self.mend: Any = lambda reply: reply  # applied to every answer to a request for digits
        self.before_answer: Any = lambda request: None  # called with every request for digits
        self.requests: list[Any] = []  # requests for digits
        self.calls = 0  # requests of any method
        self._lock = threading.Lock()
        self._port = port
        self._options = [("grpc.so_reuseport", 0), *options]
        self._at_once = at_once  # number of requests; the server rejects more
        self.start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        self._server = grpc.server(
            futures.ThreadPoolExecutor(8), options=self._options, maximum_concurrent_rpcs=self._at_once
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def hold_from(self, seed: int) -> threading.Event:
        """Delay the digits from row seed *seed* on until the returned event is set."""
        let_go = threading.Event()
        self.before_answer = lambda request: self.first_seed(request) < seed or let_go.wait(60)
        return let_go

    @staticmethod
    def first_seed(request: Any) -> int:
        """The row seed of the first requested digit."""
        return int(np.frombuffer(request.inputs["seeds"].tensor_content, dtype=np.int64)[0])

    def card(self) -> dict[str, Any]:
        card = {
            "contract_version": 1,
            "name": "formula",
            "generator_id": self.generator_id,
            "image_shape": list(self.image_shape),
            "class_names": list(self.class_names),
            "latent_size": 16,
            "latent_law": "normal",
            "max_rows": self.max_rows,
        }
        return card | self.card_changes

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        from tensorflow import make_ndarray, make_tensor_proto
        from tensorflow_serving.apis import predict_pb2

        with self._lock:
            self.calls += 1
        if request.model_spec.name != "digits":
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({request.model_spec.name})"
            )
        reply = predict_pb2.PredictResponse()
        reply.model_spec.CopyFrom(request.model_spec)
        reply.model_spec.version.value = self.version
        inputs = {name: make_ndarray(tensor) for name, tensor in request.inputs.items()}
        if request.model_spec.signature_name == "card":
            reply.outputs["card"].CopyFrom(make_tensor_proto([json.dumps(self.card())] * len(inputs["rows"])))
            return reply
        if request.model_spec.signature_name != "serving_default":
            text = f'Serving signature key "{request.model_spec.signature_name}" not found.'
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
        self._sometimes_fail(request, context)
        labels, seeds = inputs.get("labels"), inputs["seeds"]
        outputs = {"images": digits(labels, seeds, shape=self.image_shape)}
        if labels is not None:
            outputs["valid"] = (labels >= 0) & (labels < len(self.class_names))
            outputs["images"][~outputs["valid"]] = 0
        for name, array in outputs.items():
            if self.tensor_content:
                reply.outputs[name].CopyFrom(make_tensor_proto(array))
            else:
                reply.outputs[name].CopyFrom(make_tensor_proto(array.ravel().tolist(), array.dtype, array.shape))
        return self.mend(reply)

    def _sometimes_fail(self, request: Any, context: grpc.ServicerContext) -> None:
        with self._lock:
            self.requests.append(request)
            failure = self.failures.pop(0) if self.failures else None
        self.before_answer(request)
        time.sleep(self.delay_s)
        if failure is not None:
            context.abort(*failure)

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        from tensorflow.core.framework import types_pb2
        from tensorflow.core.protobuf import meta_graph_pb2
        from tensorflow_serving.apis import get_model_metadata_pb2

        with self._lock:
            self.calls += 1
        if request.model_spec.name != "digits":
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({request.model_spec.name})"
            )

        def info(dtype: int, *sizes: int) -> meta_graph_pb2.TensorInfo:
            tensor = meta_graph_pb2.TensorInfo(name="x:0", dtype=dtype)
            for size in sizes:
                tensor.tensor_shape.dim.add(size=size)
            return tensor

        signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
        signature.inputs["seeds"].CopyFrom(info(types_pb2.DT_INT64, -1))
        signature.outputs["images"].CopyFrom(info(types_pb2.DT_UINT8, -1, *self.image_shape))
        if self.class_names:
            signature.inputs["labels"].CopyFrom(info(types_pb2.DT_INT64, -1))
            signature.outputs["valid"].CopyFrom(info(types_pb2.DT_BOOL, -1))
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def={"serving_default": signature})
        reply = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)
        reply.model_spec.version.value = self.version
        reply.metadata["signature_def"].Pack(signatures)
        return reply

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        from tensorflow_serving.apis import get_model_status_pb2

        with self._lock:
            self.calls += 1
        if request.model_spec.name != "digits":
            text = f"Could not find any versions of model {request.model_spec.name}"
            context.abort(grpc.StatusCode.NOT_FOUND, text)
        reply = get_model_status_pb2.GetModelStatusResponse()
        reply.model_version_status.add(version=self.version, state=30)
        return reply

    def _unimplemented(self, request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "not served here")

    Classify = Regress = MultiInference = PredictStreamed = HandleReloadConfigRequest = _unimplemented


@pytest.fixture
def formula() -> Any:
    """The formula of the server's digits: (labels, row seeds) => (n, 28, 28, 1) uint8."""
    return digits


@pytest.fixture
def server() -> Iterator[OfficialServer]:
    """A running server that makes digits with a formula."""
    running = OfficialServer()
    yield running
    running.stop()


@pytest.fixture
def start_server() -> Iterator[Any]:
    """A function that starts more servers. All are stopped at the end."""
    running: list[OfficialServer] = []

    def start(port: int = 0, options: Sequence[tuple[str, int]] = (), at_once: int | None = None) -> OfficialServer:
        running.append(OfficialServer(port, options, at_once))
        return running[-1]

    yield start
    for one in running:
        one.stop()
