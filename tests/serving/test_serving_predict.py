"""Requests that must succeed, through the official stubs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from serving_toys import ECHOED, Stubs, connect, predict_request
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from digitforge_serving import EmbeddedServer, tensors


def test_the_default_signature_answers_with_all_its_outputs(stubs: Stubs) -> None:
    response = stubs.predict(predict_request())
    assert sorted(response.outputs) == ["product", "sum"]
    assert tf.make_ndarray(response.outputs["sum"]).tolist() == [4.0, 6.0]
    assert tf.make_ndarray(response.outputs["product"]).tolist() == [3.0, 8.0]


def test_a_reply_names_model_version_and_signature(stubs: Stubs) -> None:
    spec = stubs.predict(predict_request()).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("toy", 1, "serving_default")


def test_output_filter_leaves_the_others_out(stubs: Stubs) -> None:
    request = predict_request()
    request.output_filter.append("product")
    assert list(stubs.predict(request).outputs) == ["product"]


def test_an_input_that_is_left_out_takes_the_default_of_the_signature(stubs: Stubs) -> None:
    response = stubs.predict(predict_request(signature="with_default", inputs={"a": [1.0, 2.0]}))
    assert tf.make_ndarray(response.outputs["sum"]).tolist() == [11.0, 22.0]


def test_replies_use_tensor_content(stubs: Stubs) -> None:
    output = stubs.predict(predict_request()).outputs["sum"]
    assert output.tensor_content == np.array([4, 6], "<f4").tobytes()
    assert not output.float_val


def test_replies_use_typed_fields_when_asked_to(toy_version: Path) -> None:
    with EmbeddedServer(toy_version.parent, model_name="toy", enable_serialization_as_tensor_content=False) as target:
        output = connect(target).predict(predict_request()).outputs["sum"]
    assert list(output.float_val) == [4.0, 6.0]
    assert not output.tensor_content


def test_strings_come_back_as_lengths_and_bytes(stubs: Stubs) -> None:
    text = tf.make_tensor_proto(np.array([b"seven", b"", "é".encode() * 100], dtype=object))
    response = stubs.predict(predict_request(signature="shout", inputs={"text": text}))
    assert tf.make_ndarray(response.outputs["length"]).tolist() == [5, 0, 200]
    loud = response.outputs["loud_bytes"]
    assert loud.tensor_content.startswith(b"\x05\x00\xc8\x01SEVEN")  # 200 takes two bytes as a varint
    assert tensors.decode(loud).tolist() == [b"SEVEN", b"", "é".encode() * 100]


def _sample(dtype: tf.DType) -> Any:
    if dtype == tf.string:
        return np.array([[b"a", b"bc"], [b"", b"\xff\x00"]], dtype=object)
    if dtype == tf.bool:
        return np.array([[True, False], [False, True]])
    values = np.array([[1, 2], [3, 100]]).astype(dtype.as_numpy_dtype)
    return values * (1 + 2j) if dtype.is_complex else values


@pytest.mark.parametrize("as_content", [True, False], ids=["tensor_content", "typed fields"])
@pytest.mark.parametrize("dtype", ECHOED, ids=lambda dtype: dtype.name)
def test_every_dtype_goes_there_and_back(stubs: Stubs, dtype: tf.DType, as_content: bool) -> None:
    values = _sample(dtype)
    request = predict_request(signature=f"echo_{dtype.name}", inputs={})
    tensors.encode(values, dtype.as_datatype_enum, into=request.inputs["x"], as_content=as_content)
    output = stubs.predict(request).outputs["y"]
    assert output.dtype == dtype.as_datatype_enum
    assert np.array_equal(tensors.decode(output), values)


@pytest.mark.parametrize("dtype", ECHOED, ids=lambda dtype: dtype.name)
def test_our_typed_fields_are_those_of_tensorflow(dtype: tf.DType) -> None:
    values = _sample(dtype)
    ours = tf.make_tensor_proto(0.0).__class__()
    tensors.encode(values, dtype.as_datatype_enum, into=ours, as_content=False)
    assert np.array_equal(tf.make_ndarray(ours), values)
    parsed = tf.io.parse_tensor(ours.SerializeToString(), dtype)  # TensorFlow's own Tensor::FromProto
    assert np.array_equal(parsed.numpy(), values)


@pytest.mark.parametrize("dtype", ECHOED, ids=lambda dtype: dtype.name)
def test_our_tensor_content_is_that_of_tensorflow(dtype: tf.DType) -> None:
    values = _sample(dtype)
    ours = tf.make_tensor_proto(0.0).__class__()
    tensors.encode(values, dtype.as_datatype_enum, into=ours, as_content=True)
    assert np.array_equal(tf.io.parse_tensor(ours.SerializeToString(), dtype).numpy(), values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dtype: DT_FLOAT tensor_shape { dim { size: 3 } } float_val: 7", [7.0, 7.0, 7.0]),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 3 } } float_val: 1 float_val: 2", [1.0, 2.0, 2.0]),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 2 } }", [0.0, 0.0]),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: 1 float_val: 2", [1.0]),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 0 } }", []),
        ("dtype: DT_FLOAT float_val: 5", 5.0),
        ("dtype: DT_FLOAT", 0.0),
    ],
)
def test_typed_fields_of_another_length_are_read_as_tensorflow_reads_them(text: str, expected: Any) -> None:
    message = text_format.Parse(text, tf.make_tensor_proto(0.0).__class__())
    assert tensors.decode(message).tolist() == expected
    assert tf.io.parse_tensor(message.SerializeToString(), tf.float32).numpy().tolist() == expected


def test_an_empty_batch_is_answered(stubs: Stubs) -> None:
    response = stubs.predict(predict_request(inputs={"a": [], "b": []}))
    assert tf.make_ndarray(response.outputs["sum"]).shape == (0,)


def test_metadata_holds_every_signature_as_the_file_has_it(stubs: Stubs) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "toy"
    response = stubs.prediction.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert (response.model_spec.name, response.model_spec.version.value) == ("toy", 1)
    assert set(signatures.signature_def) >= {"serving_default", "shout", "echo_bool"}
    pair = signatures.signature_def["serving_default"]
    assert {alias: info.dtype for alias, info in pair.inputs.items()} == {"a": 1, "b": 1}


def test_status_says_that_the_version_is_available(stubs: Stubs) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "toy"
    (version,) = stubs.model.GetModelStatus(request).model_version_status
    assert (version.version, version.state, version.status.error_code) == (1, version.AVAILABLE, 0)


def test_a_large_message_goes_both_ways(stubs: Stubs) -> None:
    values = np.arange(3_000_000, dtype=np.float64)  # 24 MB, six times gRPC's own limit
    request = predict_request(signature="echo_float64", inputs={"x": tf.make_tensor_proto(values)})
    assert np.array_equal(tf.make_ndarray(stubs.predict(request).outputs["y"]), values)


def test_the_shared_generator_is_served(exported_model: Path) -> None:
    with EmbeddedServer(exported_model) as target:
        request = predict_request(model="digits", inputs={})
        request.inputs["labels"].CopyFrom(tf.make_tensor_proto([7, 7, 11], tf.int64))
        request.inputs["seeds"].CopyFrom(tf.make_tensor_proto([1, 1, 2], tf.int64))
        response = connect(target).predict(request)
    images = tf.make_ndarray(response.outputs["images"])
    assert images.shape == (3, 28, 28, 1)
    assert np.array_equal(images[0], images[1])
    assert tf.make_ndarray(response.outputs["valid"]).tolist() == [True, True, False]
