"""TensorFlow Serving's gRPC services: ``PredictionService`` and ``ModelService``."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from digitforge_serving.api import management, metadata
from digitforge_serving.api.in_flight import InFlight
from digitforge_serving.api.request_log import HEADER, RequestLog
from digitforge_serving.config.options import ServerOptions
from digitforge_serving.metrics import Metrics
from digitforge_serving.models import refusal
from digitforge_serving.models.batching import Caller
from digitforge_serving.models.manager import Models
from digitforge_serving.models.predict import predict
from digitforge_serving.models.refusal import RefusedError

log = logging.getLogger("digitforge.serving")

PREDICTION_SERVICE: Final = "tensorflow.serving.PredictionService"
MODEL_SERVICE: Final = "tensorflow.serving.ModelService"
_MAX_DEADLINE_S: Final = 24 * 3600.0
_UNSUPPORTED: Final = {
    "Classify": classification_pb2.ClassificationRequest,
    "Regress": regression_pb2.RegressionRequest,
    "MultiInference": inference_pb2.MultiInferenceRequest,
}


def handlers(
    models: Models, metrics: Metrics, in_flight: InFlight, requests: RequestLog, options: ServerOptions
) -> list[Any]:
    """Create the handlers for a ``grpc.server``.

    Args:
        models: the models to serve.
        metrics: where to record the requests.
        in_flight: counts the requests, and says when to reject them.
        requests: logs the requests.
        options: the server's options.
    """
    as_content = options.enable_serialization_as_tensor_content

    def answer(request: predict_pb2.PredictRequest, context: grpc.ServicerContext) -> Message:
        start = time.monotonic()
        remaining = context.time_remaining()
        # For a call without a deadline, gRPC reports 292 years.
        caller = Caller(None if remaining is None or remaining > _MAX_DEADLINE_S else start + remaining)
        if not context.add_callback(caller.cancel):  # the call has ended already
            caller.cancel()
        try:
            response = predict(models.find, request, as_content=as_content, caller=caller)
        except RefusedError as refused:
            metrics.count_request(request.model_spec.name, refused.code.name)
            raise
        metrics.count_request(request.model_spec.name, "OK")
        metrics.observe_latency(request.model_spec.name, 1e6 * (time.monotonic() - start), entry="GRPC")
        return response

    method = functools.partial(_method, in_flight, requests)
    prediction = {
        "Predict": method(f"{PREDICTION_SERVICE}/Predict", predict_pb2.PredictRequest, answer),
        "GetModelMetadata": method(
            f"{PREDICTION_SERVICE}/GetModelMetadata",
            get_model_metadata_pb2.GetModelMetadataRequest,
            lambda request, _: metadata.metadata(models, request),
        ),
    }
    model = {
        "GetModelStatus": method(
            f"{MODEL_SERVICE}/GetModelStatus",
            get_model_status_pb2.GetModelStatusRequest,
            lambda request, _: metadata.status(models, request),
        ),
        "HandleReloadConfigRequest": method(
            f"{MODEL_SERVICE}/HandleReloadConfigRequest",
            model_management_pb2.ReloadConfigRequest,
            lambda request, _: management.reload(models, request, root=options.model_root),
        ),
    }
    for name, request_type in _UNSUPPORTED.items():
        prediction[name] = method(f"{PREDICTION_SERVICE}/{name}", request_type, _unsupported(name))
    return [
        grpc.method_handlers_generic_handler(PREDICTION_SERVICE, prediction),
        grpc.method_handlers_generic_handler(MODEL_SERVICE, model),
    ]


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, text: str) -> NoReturn:
    """End the call with an error. ``context.abort`` always raises, but its type does not say so."""
    context.abort(code, text)
    raise AssertionError("unreachable")


def _method(
    in_flight: InFlight,
    requests: RequestLog,
    path: str,
    request_type: type[Message],
    answer: Callable[[Any, grpc.ServicerContext], Message],
) -> Any:
    """A gRPC method on bytes. It parses the message itself, to choose the error for an invalid message."""
    attributes = {"rpc.system.name": "grpc", "rpc.method": path}
    name = path.rpartition("/")[2]

    def handle(message: bytes, context: grpc.ServicerContext) -> bytes:
        with requests.request(name, dict(context.invocation_metadata()), attributes) as entry:
            context.set_trailing_metadata(((HEADER, entry.identity),))
            try:
                if not in_flight.begin():
                    raise RefusedError(grpc.StatusCode.UNAVAILABLE, refusal.STOPPING)
                if not context.add_callback(in_flight.end):  # the call has ended already
                    in_flight.end()
                request = _parsed(message, request_type)
                entry.model = request.model_spec.name if hasattr(request, "model_spec") else ""
                reply = answer(request, context).SerializeToString()
                entry.status = grpc.StatusCode.OK.name
                return reply
            except RefusedError as refused:
                code, text = refused.code, refused.text
            except Exception as error:
                log.exception("unexpected error while answering request %s", entry.identity)
                code, text = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
            entry.status = code.name
            _abort(context, code, text)

    return grpc.unary_unary_rpc_method_handler(handle)


def _parsed(message: bytes, request_type: type[Message]) -> Any:
    try:
        return request_type.FromString(message)
    except DecodeError as error:
        text = f"the request is not a valid {request_type.DESCRIPTOR.full_name}"
        raise RefusedError(grpc.StatusCode.INTERNAL, text) from error


def _unsupported(name: str) -> Callable[[Any, grpc.ServicerContext], NoReturn]:
    def answer(_: Any, __: grpc.ServicerContext) -> NoReturn:
        text = f"{name} is not supported by the embedded server; use Predict"
        raise RefusedError(grpc.StatusCode.UNIMPLEMENTED, text)

    return answer
