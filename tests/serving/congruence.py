"""Good and bad requests, with the status code and message that TensorFlow Serving returns.

All requests are for a model `digits` that follows the contract and has version 1 loaded. The messages come from
TensorFlow Serving's sources and from observed servers. Set DIGITFORGE_TFS_TARGET to test a real server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from serving_toys import Stubs
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
)

from digitforge_client.contract import MAX_ROWS, MODEL_NAME

ABSENT_VERSION = 700_007
MODEL = f"model_spec {{ name: '{MODEL_NAME}' }}"
INT64 = "dtype: DT_INT64 tensor_shape { dim { size: 1 } } int64_val: 1"
LABELS = f"inputs {{ key: 'labels' value {{ {INT64} }} }}"
SEEDS = f"inputs {{ key: 'seeds' value {{ {INT64} }} }}"


def given(alias: str, tensor: str) -> str:
    """An input *alias* with the given tensor, in protobuf text."""
    return f" inputs {{ key: '{alias}' value {{ {tensor} }} }} "


def int64(rows: int, *values: int) -> str:
    """An int64 tensor in a typed field, in protobuf text. The last value is repeated for missing ones."""
    return f"dtype: DT_INT64 tensor_shape {{ dim {{ size: {rows} }} }} " + " ".join(f"int64_val: {v}" for v in values)


def named(more: str) -> str:
    """A model_spec with further fields, in protobuf text."""
    return f"model_spec {{ name: '{MODEL_NAME}' {more} }} "


@dataclass(frozen=True, kw_only=True)
class Case:
    """A request and its expected reply."""

    name: str
    method: str = "Predict"
    request: str  # protobuf text
    code: grpc.StatusCode | tuple[grpc.StatusCode, ...] = grpc.StatusCode.INVALID_ARGUMENT
    text: str | tuple[str, ...] = ""  # several: without and with batching
    begins: bool = False  # the message only starts with the text
    real: str | None = None  # how the real server's message begins, where it differs on purpose
    check: Callable[[Any], None] = field(default=lambda response: None)

    def send(self, stubs: Stubs) -> Any:
        """Send the request.

        Raises:
            grpc.RpcError: the server rejected it.
        """
        if self.method == "Predict":
            return stubs.prediction.Predict(text_format.Parse(self.request, predict_pb2.PredictRequest()), timeout=60)
        if self.method == "GetModelMetadata":
            metadata = text_format.Parse(self.request, get_model_metadata_pb2.GetModelMetadataRequest())
            return stubs.prediction.GetModelMetadata(metadata, timeout=60)
        if self.method == "HandleReloadConfigRequest":
            reload = text_format.Parse(self.request, model_management_pb2.ReloadConfigRequest())
            return stubs.model.HandleReloadConfigRequest(reload, timeout=60)
        status = text_format.Parse(self.request, get_model_status_pb2.GetModelStatusRequest())
        return stubs.model.GetModelStatus(status, timeout=60)


BAD = [
    Case(name="no model_spec", request=LABELS + SEEDS, text="Missing ModelSpec"),
    Case(
        name="an empty name",
        request=f"model_spec {{ signature_name: 'png' }} {LABELS} {SEEDS}",
        text="ModelSpec has no name specified.",
    ),
    Case(
        name="an unknown model",
        request=f"model_spec {{ name: 'letters' }} {LABELS} {SEEDS}",
        code=grpc.StatusCode.NOT_FOUND,
        text="Servable not found for request: Latest(letters)",
    ),
    Case(
        name="an unknown version of an unknown model",
        request="model_spec { name: 'letters' version { value: 7 } }",
        code=grpc.StatusCode.NOT_FOUND,
        text="Servable not found for request: Specific(letters, 7)",
    ),
    Case(
        name="an unknown version",
        request=f"{named(f'version {{ value: {ABSENT_VERSION} }}')} {LABELS} {SEEDS}",
        code=grpc.StatusCode.NOT_FOUND,
        text=f"Servable not found for request: Specific({MODEL_NAME}, {ABSENT_VERSION})",
    ),
    Case(
        name="an unknown label",
        request=named("version_label: 'newest'") + LABELS + SEEDS,
        text="Unrecognized servable version label: newest",
    ),
    Case(
        name="an unknown signature",
        request=named("signature_name: 'jpeg'") + LABELS + SEEDS,
        code=grpc.StatusCode.FAILED_PRECONDITION,
        text='Serving signature key "jpeg" not found.',
    ),
    Case(
        name="a missing input",
        request=MODEL + LABELS,
        text="input size does not match signature: 1!=2 len({labels}) != len({labels,seeds}). Sent extra: {}. "
        "Missing but required: {seeds}.",
    ),
    Case(
        name="no input",
        request=MODEL,
        text="input size does not match signature: 0!=2 len({}) != len({labels,seeds}). Sent extra: {}. "
        "Missing but required: {labels,seeds}.",
    ),
    Case(
        name="an extra input",
        request=MODEL + LABELS + SEEDS + given("size", INT64),
        text="input size does not match signature: 3!=2 len({labels,seeds,size}) != len({labels,seeds}). "
        "Sent extra: {size}. Missing but required: {}.",
    ),
    Case(
        name="the right number of inputs with a wrong name",
        request=MODEL + LABELS + given("seed", INT64),
        text="Signature input alias: seeds(feed name: serving_default_seeds:0) not found in request and no default "
        "value provided. Inputs expected to be in the request {labels,seed}",
        begins=True,
    ),
    *(
        Case(
            name=f"a tensor with {what}",
            request=MODEL + LABELS + given("seeds", tensor),
            text="tensor parsing error: seeds",
        )
        for what, tensor in {
            "content cut short": r"dtype: DT_INT64 tensor_shape { dim { size: 2 } } tensor_content: '\001\002\003'",
            "too much content": r"dtype: DT_UINT8 tensor_shape { dim { size: 1 } } tensor_content: '\001\002'",
            "no dtype": "tensor_shape { dim { size: 1 } } int64_val: 1",
            "a negative dimension": "dtype: DT_INT64 tensor_shape { dim { size: -1 } } int64_val: 1",
            "dimensions whose product overflows": "dtype: DT_INT64 tensor_shape { dim { size: 4611686018427387904 } "
            "dim { size: 4611686018427387904 } } int64_val: 1",
            "strings cut short": r"dtype: DT_STRING tensor_shape { dim { size: 2 } } tensor_content: '\003\001a'",
        }.items()
    ),
    Case(
        name="an output that does not exist",
        request=f"{MODEL} {LABELS} {SEEDS} output_filter: 'pictures'",
        text="output tensor alias not found in signature: pictures Outputs expected to be in the set {images,valid}.",
    ),
    Case(
        name="an output named twice",
        request=f"{MODEL} {LABELS} {SEEDS} output_filter: 'images' output_filter: 'images'",
        text="duplicate output tensor alias: images",
    ),
    Case(
        name="a string for a number",
        request=MODEL + LABELS + given("seeds", "dtype: DT_STRING tensor_shape { dim { size: 1 } } string_val: '7'"),
        text="Expects arg[1] to be int64 but string is provided",
    ),
    Case(
        name="floats for integers",
        request=MODEL + SEEDS + given("labels", "dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: 1"),
        text="Expects arg[0] to be int64 but float is provided",
    ),
    *(
        Case(
            name=f"a tensor of dtype {dtype}",
            request=MODEL + LABELS + given("seeds", f"dtype: {dtype} tensor_shape {{ dim {{ size: 1 }} }} {value}"),
            text=f"Expects arg[1] to be int64 but {name} is provided",
            real="",
        )
        for dtype, name, value in (
            ("DT_RESOURCE", "resource", "resource_handle_val { name: 'x' }"),
            ("DT_VARIANT", "variant", "variant_val { type_name: 'x' }"),
            ("DT_QINT8", "qint8", "int_val: 1"),
        )
    ),
    Case(
        name="no rank, which counts as a scalar",
        request=MODEL + LABELS + given("seeds", "dtype: DT_INT64 tensor_shape { unknown_rank: true } int64_val: 1"),
        text=("Attempting to slice scalar input", "Batching Run() input tensors must have at least one dimension"),
        begins=True,
    ),
    Case(
        name="a scalar",
        request=MODEL + LABELS + given("seeds", "dtype: DT_INT64 tensor_shape { } int64_val: 1"),
        text=("Attempting to slice scalar input", "Batching Run() input tensors must have at least one dimension"),
        begins=True,
    ),
    Case(
        name="unequal numbers of rows",
        request=MODEL + given("labels", int64(2, 7, 8)) + SEEDS,
        text=("", "Batching Run() input tensors must have equal 0th-dimension size"),  # without batching, the model's
        begins=True,
    ),
    Case(
        name="the initializer of the model",
        request=named("signature_name: '__saved_model_init_op'"),
        code=(grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INVALID_ARGUMENT),
        text=("", "Batching Run() must have at least one input tensor"),
        begins=True,
    ),
    Case(
        name="a reload without a configuration",
        method="HandleReloadConfigRequest",
        request="",
        text="ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
        "supported",
    ),
    Case(
        name="a reload with a relative path",
        method="HandleReloadConfigRequest",
        request=f"config {{ model_config_list {{ config {{ name: '{MODEL_NAME}' base_path: 'models' "
        "model_platform: 'tensorflow' } } }",
        text=f"Expected model {MODEL_NAME} to have an absolute path or URI; got base_path()=models",
        begins=True,
    ),
    Case(
        name="a reload without a platform",  # of a configured model: for others, the real server keeps the broken entry
        method="HandleReloadConfigRequest",
        request=f"config {{ model_config_list {{ config {{ name: '{MODEL_NAME}' base_path: '/nowhere' }} }} }}",
        text="Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::"
        f"model_platform, model name is {MODEL_NAME}",
        begins=True,
    ),
    Case(name="status without a model", method="GetModelStatus", request="", text="Missing ModelSpec"),
    Case(
        name="status of an unknown model",
        method="GetModelStatus",
        request="model_spec { name: 'letters' }",
        code=grpc.StatusCode.NOT_FOUND,
        text="Could not find any versions of model letters",
    ),
    Case(
        name="status of an unknown version",
        method="GetModelStatus",
        request=named(f"version {{ value: {ABSENT_VERSION} }}"),
        code=grpc.StatusCode.NOT_FOUND,
        text=f"Could not find version {ABSENT_VERSION} of model {MODEL_NAME}",
    ),
    Case(
        name="metadata without a model",
        method="GetModelMetadata",
        request="metadata_field: 'signature_def'",
        text="Missing ModelSpec",
    ),
    Case(
        name="metadata without a field",
        method="GetModelMetadata",
        request=MODEL,
        text="GetModelMetadataRequest must specify at least one metadata_field",
    ),
    Case(
        name="metadata with an unknown field",
        method="GetModelMetadata",
        request=f"{MODEL} metadata_field: 'weights'",
        text="Metadata field weights is not supported",
    ),
    Case(
        name="metadata of an unknown model",
        method="GetModelMetadata",
        request="model_spec { name: 'letters' } metadata_field: 'signature_def'",
        code=grpc.StatusCode.NOT_FOUND,
        text="Servable not found for request: Latest(letters)",
    ),
    Case(
        name="a text that is longer than 1024 characters",
        request=named(f"signature_name: '{'x' * 2000}'") + LABELS + SEEDS,
        code=grpc.StatusCode.FAILED_PRECONDITION,
        text='Serving signature key "' + "x" * (1024 - 23) + "...TRUNCATED",
    ),
]


def _images(shape: tuple[int, ...], *, valid: list[bool]) -> Callable[[Any], None]:
    def check(response: predict_pb2.PredictResponse) -> None:
        images = tf.make_ndarray(response.outputs["images"])
        assert images.shape[:1] == shape
        assert images.dtype == np.uint8
        assert tf.make_ndarray(response.outputs["valid"]).tolist() == valid
        assert images.reshape(len(images), -1).any(axis=1).tolist() == valid

    return check


def _spec(expected: str) -> Callable[[Any], None]:
    def check(response: predict_pb2.PredictResponse) -> None:
        spec = model_pb2.ModelSpec()
        spec.CopyFrom(response.model_spec)
        assert spec.version.value >= 1
        spec.ClearField("version")
        assert spec == text_format.Parse(expected, model_pb2.ModelSpec())

    return check


def _only(alias: str) -> Callable[[Any], None]:
    def check(response: predict_pb2.PredictResponse) -> None:
        assert list(response.outputs) == [alias]

    return check


def _available(response: get_model_status_pb2.GetModelStatusResponse) -> None:
    newest = response.model_version_status[0]
    assert newest.state == newest.AVAILABLE
    assert (newest.status.error_code, newest.status.error_message) == (0, "")


OK = grpc.StatusCode.OK
GOOD = [
    Case(name="one digit", request=MODEL + LABELS + SEEDS, code=OK, check=_images((1,), valid=[True])),
    Case(
        name="a bad label beside a good one",
        request=MODEL + given("labels", int64(2, 7, 999)) + given("seeds", int64(2, 5)),
        code=OK,
        check=_images((2,), valid=[True, False]),
    ),
    Case(
        name="the most rows that a request may have",
        request=MODEL + given("labels", int64(MAX_ROWS, 7)) + given("seeds", int64(MAX_ROWS, 5)),
        code=OK,
        check=_images((MAX_ROWS,), valid=[True] * MAX_ROWS),
    ),
    Case(
        name="the default signature, named in the reply",
        request=MODEL + LABELS + SEEDS,
        code=OK,
        check=_spec(f"name: '{MODEL_NAME}' signature_name: 'serving_default'"),
    ),
    Case(
        name="another signature",
        request=named("signature_name: 'latents'") + SEEDS,
        code=OK,
        check=_spec(f"name: '{MODEL_NAME}' signature_name: 'latents'"),
    ),
    Case(
        name="one output only",
        request=f"{MODEL} {LABELS} {SEEDS} output_filter: 'valid'",
        code=OK,
        check=_only("valid"),
    ),
    Case(name="status", method="GetModelStatus", request=MODEL, code=OK, check=_available),
    Case(
        name="status with a label, which is ignored",
        method="GetModelStatus",
        request=named("version_label: 'newest'"),
        code=OK,
        check=_available,
    ),
]
