"""Our messages and the official messages have the same bytes, in both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digitforge_client.transport import wire
from digitforge_client.transport.wire import messages as ours
from digitforge_client.transport.wire.tensors import decode, encode

tensorflow = pytest.importorskip("tensorflow")
apis = pytest.importorskip("tensorflow_serving.apis")

from tensorflow.core.framework import tensor_pb2, types_pb2  # noqa: E402
from tensorflow.core.protobuf import meta_graph_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    status_pb2,
)

PAIRS = {
    ours.Tensor: tensor_pb2.TensorProto,
    ours.ModelSpec: model_pb2.ModelSpec,
    ours.PredictRequest: predict_pb2.PredictRequest,
    ours.PredictResponse: predict_pb2.PredictResponse,
    ours.GetModelMetadataRequest: get_model_metadata_pb2.GetModelMetadataRequest,
    ours.GetModelMetadataResponse: get_model_metadata_pb2.GetModelMetadataResponse,
    ours.SignatureDefMap: get_model_metadata_pb2.SignatureDefMap,
    ours.SignatureDef: meta_graph_pb2.SignatureDef,
    ours.TensorInfo: meta_graph_pb2.TensorInfo,
    ours.GetModelStatusRequest: get_model_status_pb2.GetModelStatusRequest,
    ours.GetModelStatusResponse: get_model_status_pb2.GetModelStatusResponse,
    ours.ModelVersionStatus: get_model_status_pb2.ModelVersionStatus,
    ours.Status: status_pb2.StatusProto,
}


def shape_of(field: Any) -> tuple[Any, ...]:
    """The properties that decide the encoding of a field."""
    kind = field.message_type
    is_map = kind is not None and kind.GetOptions().map_entry
    inner = (shape_of(kind.fields_by_name["key"]), shape_of(kind.fields_by_name["value"])) if is_map else ()
    return field.number, field.type, field.is_repeated, inner


@pytest.mark.parametrize("mine", PAIRS, ids=lambda message: message.DESCRIPTOR.name)
def test_every_field_has_the_official_number_and_type(mine: Any) -> None:
    official = PAIRS[mine].DESCRIPTOR.fields_by_name
    for field in mine.DESCRIPTOR.fields:
        assert shape_of(field) == shape_of(official[field.name]), field.full_name


def test_enumerations_have_the_official_numbers() -> None:
    assert dict(ours.DataType.items()).items() <= dict(types_pb2.DataType.items()).items()
    official = get_model_status_pb2.ModelVersionStatus.State
    assert dict(ours.ModelVersionStatus.State.items()) == dict(official.items())


names = st.text(max_size=12)
int64s = st.integers(-(2**63), 2**63 - 1)
dims = st.lists(st.integers(-1, 2**40), max_size=4)
tensors = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([1, 3, 4, 7, 9, 10]),
        "tensor_shape": dims.map(lambda sizes: {"dim": [{"size": size} for size in sizes]}),
        "tensor_content": st.binary(max_size=40),
        "float_val": st.lists(st.floats(width=32, allow_nan=False), max_size=5),
        "int_val": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5),
        "string_val": st.lists(st.binary(max_size=5), max_size=3),
        "int64_val": st.lists(int64s, max_size=5),
        "bool_val": st.lists(st.booleans(), max_size=5),
    }
)
specs = st.fixed_dictionaries(
    {"name": names, "version": st.fixed_dictionaries({"value": int64s}), "signature_name": names}
)


def same_bytes(mine: Any, official: Any, fields: dict[str, Any]) -> None:
    """Check that our messages and the official messages serialize and parse alike."""
    our_message, their_message = mine(**fields), official(**fields)
    our_bytes = our_message.SerializeToString(deterministic=True)
    assert our_bytes == their_message.SerializeToString(deterministic=True)
    assert mine.FromString(our_bytes) == our_message
    assert official.FromString(our_bytes) == their_message


@settings(max_examples=60, deadline=None)
@given(spec=specs, inputs=st.dictionaries(names, tensors, max_size=3), outputs=st.lists(names, max_size=2))
def test_predict_requests_have_the_same_bytes(spec: Any, inputs: Any, outputs: Any) -> None:
    fields = {"model_spec": spec, "inputs": inputs, "output_filter": outputs}
    same_bytes(ours.PredictRequest, predict_pb2.PredictRequest, fields)


@settings(max_examples=60, deadline=None)
@given(spec=specs, outputs=st.dictionaries(names, tensors, max_size=3))
def test_predict_responses_have_the_same_bytes(spec: Any, outputs: Any) -> None:
    same_bytes(ours.PredictResponse, predict_pb2.PredictResponse, {"model_spec": spec, "outputs": outputs})


@settings(max_examples=30, deadline=None)
@given(spec=specs, fields=st.lists(names, max_size=3), key=names, url=names, value=st.binary(max_size=30))
def test_metadata_messages_have_the_same_bytes(spec: Any, fields: Any, key: str, url: str, value: bytes) -> None:
    request = {"model_spec": spec, "metadata_field": fields}
    same_bytes(ours.GetModelMetadataRequest, get_model_metadata_pb2.GetModelMetadataRequest, request)
    reply = {"model_spec": spec, "metadata": {key: {"type_url": url, "value": value}}}
    same_bytes(ours.GetModelMetadataResponse, get_model_metadata_pb2.GetModelMetadataResponse, reply)


@settings(max_examples=30, deadline=None)
@given(
    spec=specs,
    version=int64s,
    state=st.sampled_from([0, 10, 20, 30, 40, 50]),
    message=names,
)
def test_status_messages_have_the_same_bytes(spec: Any, version: int, state: int, message: str) -> None:
    same_bytes(ours.GetModelStatusRequest, get_model_status_pb2.GetModelStatusRequest, {"model_spec": spec})
    status = {"version": version, "state": state, "status": {"error_message": message}}
    reply = {"model_version_status": [status]}
    same_bytes(ours.GetModelStatusResponse, get_model_status_pb2.GetModelStatusResponse, reply)


def test_fields_that_we_leave_out_survive_a_round_trip() -> None:
    official = predict_pb2.PredictRequest(client_id=b"x")
    assert (
        ours.PredictRequest.FromString(official.SerializeToString()).SerializeToString() == official.SerializeToString()
    )


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_tensorflow_reads_what_we_encode(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, size=shape).astype(dtype)
    proto = tensor_pb2.TensorProto.FromString(encode(np.asarray(array)).SerializeToString())
    read = tensorflow.make_ndarray(proto)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)
    np.testing.assert_array_equal(tensorflow.io.parse_tensor(proto.SerializeToString(), array.dtype).numpy(), array)


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "int64", "bool"])
@pytest.mark.parametrize("typed", [True, False], ids=["typed fields", "tensor_content"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_we_read_what_tensorflow_encodes(dtype: str, typed: bool, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 256, size=shape).astype(dtype)
    proto = (
        tensorflow.make_tensor_proto(array.ravel().tolist(), array.dtype, array.shape)
        if typed
        else tensorflow.make_tensor_proto(array)
    )
    read = decode(ours.Tensor.FromString(proto.SerializeToString()))
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_we_read_strings_and_compressed_tensors_as_tensorflow_writes_them() -> None:
    strings = tensorflow.make_tensor_proto([b"a", b"\xff\x00", b""])
    assert decode(ours.Tensor.FromString(strings.SerializeToString())).tolist() == [b"a", b"\xff\x00", b""]
    sevens = tensorflow.make_tensor_proto(7, np.uint8, (2, 3))  # one value for six elements
    np.testing.assert_array_equal(decode(ours.Tensor.FromString(sevens.SerializeToString())), np.full((2, 3), 7))


def test_method_paths_match_the_official_ones() -> None:
    paths = []

    class Recorder:
        def unary_unary(self, path: str, **_: Any) -> None:
            paths.append(path)

        def unary_stream(self, path: str, **_: Any) -> None:
            pass

    from tensorflow_serving.apis import model_service_pb2_grpc

    prediction_service_pb2_grpc.PredictionServiceStub(Recorder())
    model_service_pb2_grpc.ModelServiceStub(Recorder())
    for method in (wire.PREDICT, wire.GET_METADATA, wire.GET_STATUS):
        assert method.path in paths
