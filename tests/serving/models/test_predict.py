"""Requests that must succeed, sent with the official stubs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from google.protobuf import text_format
from serving_toys import ECHOED, Stubs, connect, predict_request
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from digitforge_client import DigitClient
from digitforge_client.contract import row_seeds
from digitforge_serving import EmbeddedServer
from digitforge_serving.models import tensors


def test_the_default_signature_answers_with_all_its_outputs(stubs: Stubs) -> None:
    response = stubs.predict(predict_request())
    assert sorted(response.outputs) == ["product", "sum"]
    assert tf.make_ndarray(response.outputs["sum"]).tolist() == [4.0, 6.0]
    assert tf.make_ndarray(response.outputs["product"]).tolist() == [3.0, 8.0]


def test_a_reply_names_model_version_and_signature(stubs: Stubs) -> None:
    spec = stubs.predict(predict_request()).model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("toy", 1, "serving_default")


def test_output_filter_selects_outputs(stubs: Stubs) -> None:
    request = predict_request()
    request.output_filter.append("product")
    assert list(stubs.predict(request).outputs) == ["product"]


def test_a_missing_input_gets_the_signatures_default(stubs: Stubs) -> None:
    response = stubs.predict(predict_request(signature="with_default", inputs={"a": [1.0, 2.0]}))
    assert tf.make_ndarray(response.outputs["sum"]).tolist() == [11.0, 22.0]


TEXTS = [b"seven", b"", "é".encode() * 100]


def shout(stubs: Stubs) -> predict_pb2.PredictResponse:
    text = tf.make_tensor_proto(np.array(TEXTS, dtype=object))
    return stubs.predict(predict_request(signature="shout", inputs={"text": text}))


def test_replies_use_typed_fields(stubs: Stubs) -> None:
    output = stubs.predict(predict_request()).outputs["sum"]
    assert list(output.float_val) == [4.0, 6.0]
    assert not output.tensor_content
    assert list(shout(stubs).outputs["loud_bytes"].string_val) == [text.upper() for text in TEXTS]


def test_replies_use_tensor_content_if_the_option_is_on(toy_version: Path) -> None:
    with EmbeddedServer(toy_version.parent, model_name="toy", enable_serialization_as_tensor_content=True) as target:
        stubs = connect(target)
        output = stubs.predict(predict_request()).outputs["sum"]
        response = shout(stubs)
    assert output.tensor_content == np.array([4, 6], "<f4").tobytes()
    assert not output.float_val
    assert tf.make_ndarray(response.outputs["length"]).tolist() == [5, 0, 200]
    loud = response.outputs["loud_bytes"]
    assert loud.tensor_content.startswith(b"\x05\x00\xc8\x01SEVEN")  # as a varint, 200 has two bytes
    assert tensors.decode(loud).tolist() == [text.upper() for text in TEXTS]


def test_tensorflow_and_our_client_read_the_same_values_from_every_reply(exported_model: Path) -> None:
    with EmbeddedServer(exported_model) as target, DigitClient(target) as client:
        stubs, batch = connect(target), client.sample(3, labels=[7, 3, 7], seed=5)
        addresses = {"labels": np.array([7, 3, 7]), "seeds": row_seeds(5, 3)}

        def outputs(signature: str, inputs: dict[str, npt.NDArray[np.int64]]) -> dict[str, Any]:
            response = stubs.predict(predict_request(model="digits", signature=signature, inputs=inputs))
            return {alias: tf.make_ndarray(tensor) for alias, tensor in response.outputs.items()}

        sampled = outputs("serving_default", addresses)
        assert np.array_equal(sampled["images"].reshape(batch.images.shape), batch.images)
        assert sampled["valid"].tolist() == [True] * 3
        files = outputs("png", addresses)["image_bytes"]
        decoded = np.stack([tf.io.decode_png(file).numpy() for file in files])
        assert np.array_equal(decoded, sampled["images"])
        (card,) = outputs("card", {"rows": np.array([0])})["card"]
        assert json.loads(card) == client.card()


def _sample(dtype: tf.DType) -> Any:
    if dtype == tf.string:
        return np.array([[b"a", b"bc"], [b"", b"\xff\x00"]], dtype=object)
    if dtype == tf.bool:
        return np.array([[True, False], [False, True]])
    values = np.array([[1, 127], [128, 200] if dtype.is_unsigned else [3, 100]]).astype(dtype.as_numpy_dtype)
    return values * (1 + 2j) if dtype.is_complex else values


@pytest.mark.parametrize("as_content", [True, False], ids=["tensor_content", "typed fields"])
@pytest.mark.parametrize("dtype", ECHOED, ids=lambda dtype: dtype.name)
def test_every_dtype_survives_a_round_trip(stubs: Stubs, dtype: tf.DType, as_content: bool) -> None:
    values = _sample(dtype)
    request = predict_request(signature=f"echo_{dtype.name}", inputs={})
    tensors.encode(values, dtype.as_datatype_enum, into=request.inputs["x"], as_content=as_content)
    output = stubs.predict(request).outputs["y"]
    assert output.dtype == dtype.as_datatype_enum
    assert np.array_equal(tensors.decode(output), values)


@pytest.mark.parametrize("dtype", ECHOED, ids=lambda dtype: dtype.name)
def test_tensorflow_reads_our_typed_fields(dtype: tf.DType) -> None:
    values = _sample(dtype)
    ours = tf.make_tensor_proto(0.0).__class__()
    tensors.encode(values, dtype.as_datatype_enum, into=ours, as_content=False)
    assert np.array_equal(tf.make_ndarray(ours), values)
    parsed = tf.io.parse_tensor(ours.SerializeToString(), dtype)  # TensorFlow's own Tensor::FromProto
    assert np.array_equal(parsed.numpy(), values)


@pytest.mark.parametrize("dtype", ECHOED, ids=lambda dtype: dtype.name)
def test_tensorflow_reads_our_tensor_content(dtype: tf.DType) -> None:
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
def test_typed_fields_of_the_wrong_length_are_read_like_in_tensorflow(text: str, expected: Any) -> None:
    message = text_format.Parse(text, tf.make_tensor_proto(0.0).__class__())
    assert tensors.decode(message).tolist() == expected
    assert tf.io.parse_tensor(message.SerializeToString(), tf.float32).numpy().tolist() == expected


def test_an_empty_batch_is_answered(stubs: Stubs) -> None:
    response = stubs.predict(predict_request(inputs={"a": [], "b": []}))
    assert tf.make_ndarray(response.outputs["sum"]).shape == (0,)


def test_metadata_contains_the_files_signatures(stubs: Stubs) -> None:
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


def test_a_large_message_can_be_sent_and_received(stubs: Stubs) -> None:
    values = np.arange(3_000_000, dtype=np.float64)  # 24 MB, six times gRPC's default limit
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
