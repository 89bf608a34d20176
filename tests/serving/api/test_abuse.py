"""Every request gets a status, whatever it contains, and the server keeps working."""

from __future__ import annotations

import json
import logging
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serve_process import busy_s, needs_proc, resident, serving
from serving_toys import ECHOED, Stubs, connect, predict_request, wait_for
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from digitforge_serving import EmbeddedServer
from digitforge_serving.config.options import BatchingOptions
from digitforge_serving.models import tensors

#: Number of generated requests, half of them to a server with batching. `make test-slow` sends the larger number.
REQUESTS = [500, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
CONNECTIONS = 1000
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.OUT_OF_RANGE,  # without batching, for the signature __saved_model_init_op
}

names = st.one_of(st.sampled_from(["a", "b", "x", "text", ""]), st.text(max_size=8))
sizes = st.one_of(st.integers(0, 5), st.sampled_from([-1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63)]))
floats = st.floats(width=32, allow_nan=True)
int32s = st.integers(-(2**31), 2**31 - 1)


@st.composite
def tensor_messages(draw: st.DrawFn) -> tensor_pb2.TensorProto:
    """A valid tensor, or one with an unrelated dtype, shape, values and content."""
    message = tensor_pb2.TensorProto()
    if draw(st.booleans()):
        values = draw(st.lists(floats, max_size=5))
        return tf.make_tensor_proto(np.array(values, np.float32))
    message.dtype = draw(st.one_of(st.sampled_from([dtype.as_datatype_enum for dtype in ECHOED]), st.integers(0, 150)))
    for size in draw(st.lists(sizes, max_size=4)):
        message.tensor_shape.dim.add(size=size, name=draw(st.text(max_size=2)))
    message.tensor_shape.unknown_rank = draw(st.sampled_from([False, False, False, True]))
    message.tensor_content = draw(st.one_of(st.just(b""), st.binary(max_size=40)))
    message.float_val.extend(draw(st.lists(floats, max_size=3)))
    message.int_val.extend(draw(st.lists(int32s, max_size=3)))
    message.int64_val.extend(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)))
    message.half_val.extend(draw(st.lists(int32s, max_size=3)))
    message.scomplex_val.extend(draw(st.lists(floats, max_size=3)))
    message.string_val.extend(draw(st.lists(st.binary(max_size=5), max_size=3)))
    message.bool_val.extend(draw(st.lists(st.booleans(), max_size=3)))
    return message


@st.composite
def requests(draw: st.DrawFn) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    if draw(st.integers(0, 20)):
        request.model_spec.name = draw(st.one_of(st.just("toy"), st.just("toy"), names))
        request.model_spec.signature_name = draw(
            st.one_of(
                st.sampled_from(["", "with_default", "guarded", "shout", "__saved_model_init_op"]),
                st.sampled_from([f"echo_{dtype.name}" for dtype in ECHOED]),
                names,
            )
        )
        version = draw(
            st.one_of(st.none(), st.none(), st.just(1), st.integers(-(2**63), 2**63 - 1), st.text(max_size=5))
        )
        if isinstance(version, int):
            request.model_spec.version.value = version
        elif version is not None:
            request.model_spec.version_label = version
    for name in draw(st.one_of(st.sampled_from([["a", "b"], ["x"], ["text"], ["a"]]), st.lists(names, max_size=3))):
        request.inputs[name].CopyFrom(draw(tensor_messages()))
    request.output_filter.extend(draw(st.one_of(st.just([]), st.just([]), st.lists(names, max_size=2))))
    return request


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "batched"])
def abused(request: pytest.FixtureRequest, toy_version: Path) -> Iterator[Stubs]:
    batching = BatchingOptions() if request.param else None
    with EmbeddedServer(toy_version.parent, model_name="toy", batching=batching) as target:
        yield connect(target)


def works(stubs: Stubs) -> bool:
    return tf.make_ndarray(stubs.predict(predict_request()).outputs["sum"]).tolist() == [4.0, 6.0]


@pytest.mark.parametrize("number", REQUESTS)
def test_any_request_gets_an_answer_or_an_error(abused: Stubs, number: int, caplog: pytest.LogCaptureFixture) -> None:
    @settings(max_examples=number // 2, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(requests())
    def send(request: predict_pb2.PredictRequest) -> None:
        try:
            response = abused.predict(request)
        except grpc.RpcError as error:
            assert error.code() in REFUSALS, (error.code(), error.details())  # noqa: PT017
            assert error.details()  # noqa: PT017
        else:
            for tensor in response.outputs.values():
                tensors.decode(tensor)

    with caplog.at_level(logging.WARNING):
        send()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert works(abused)


def test_bytes_that_are_not_a_request_are_rejected(abused: Stubs) -> None:
    @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=100))
    def send(message: bytes) -> None:
        call = abused.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as caught:  # none of these messages is a valid request
            call(message, timeout=30)
        assert caught.value.code() in {*REFUSALS, grpc.StatusCode.INTERNAL}

    send()
    whole = predict_request().SerializeToString()
    call = abused.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    for length in range(0, len(whole), 5):
        with pytest.raises(grpc.RpcError):
            call(whole[:length], timeout=30)
    assert works(abused)


@pytest.mark.parametrize(
    "path",
    [
        "/tensorflow.serving.PredictionService/Classify",
        "/tensorflow.serving.PredictionService/Regress",
        "/tensorflow.serving.PredictionService/MultiInference",
        "/tensorflow.serving.PredictionService/Guess",
        "/tensorflow.serving.SessionService/SessionRun",
    ],
)
def test_other_methods_are_unimplemented(abused: Stubs, path: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        abused.channel.unary_unary(path)(b"", timeout=30, metadata=[("x-request-id", "order-66")])
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    known = path.endswith(("Classify", "Regress", "MultiInference"))
    assert dict(caught.value.trailing_metadata()).get("x-request-id") == ("order-66" if known else None)


def test_noise_on_the_port_does_not_affect_other_clients(toy_target: str, stubs: Stubs) -> None:
    host, _, port = toy_target.rpartition(":")
    noise = np.random.default_rng(0)
    for _ in range(20):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(noise.bytes(500))
    assert works(stubs)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Raise the limit on open files: both ends of all connections are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * CONNECTIONS + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"needs {needed} open files, but the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_do_not_affect_other_clients(many_files: None, toy_target: str, stubs: Stubs) -> None:
    host, _, port = toy_target.rpartition(":")
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection((host, int(port))))
        assert works(stubs)
        fresh = connect(toy_target)
        stack.callback(fresh.channel.close)
        assert works(fresh)  # a new connection is accepted too
    assert works(stubs)


def test_requests_that_never_send_their_message_do_not_affect_other_clients(toy_target: str, stubs: Stubs) -> None:
    leave = threading.Event()

    def nothing() -> Iterator[bytes]:
        leave.wait(60)
        yield b""

    with grpc.insecure_channel(toy_target) as channel:
        call = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        waiting = [call.future(nothing()) for _ in range(64)]
        assert works(stubs)
        leave.set()
        for future in waiting:
            future.cancel()


def test_a_client_that_stops_reading_does_not_affect_other_clients(toy_target: str, stubs: Stubs) -> None:
    values = tf.make_tensor_proto(np.zeros(4_000_000, np.float32))
    request = predict_request(signature="echo_float32", inputs={"x": values})
    with grpc.insecure_channel(toy_target, options=[("grpc.max_receive_message_length", -1)]) as channel:
        call = channel.unary_stream(
            "/tensorflow.serving.PredictionService/Predict", predict_pb2.PredictRequest.SerializeToString
        )
        unread = [call(request) for _ in range(4)]  # replies of 16 MB that nobody reads
        assert works(stubs)
        for stream in unread:
            stream.cancel()
    assert works(stubs)


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message with *content*: bytes, a message, or packed numbers."""
    size, length = len(content), bytearray()
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


MIB = 2**20
SHAPE = field(2, field(2, b"\x08" + b"\x80" * 4 + b"\x04"))  # one dimension of 2³⁰
#: Tensors of up to 60 MiB that take many times as much memory, or minutes, when they are decoded carelessly.
LARGE: dict[str, Callable[[], bytes]] = {
    "DT_FLOAT, one value for 2³⁰ elements": lambda: SHAPE + field(5, bytes(4)),
    "DT_STRING, strings in tensor_content": lambda: (
        field(2, field(2, b"\x08" + b"\x80" * 3 + b"\x1c")) + field(4, bytes(56 * MIB))
    ),
    "DT_STRING, empty strings": lambda: SHAPE + field(8, b"") * (20 * MIB),
    "DT_INT64, integers of one byte": lambda: SHAPE + field(10, bytes(60 * MIB)),
    "DT_FLOAT, dimensions": lambda: field(2, field(2, b"") * (20 * MIB)),
}


@needs_proc
def test_large_claims_are_rejected_without_keeping_memory(base_path: Path, tmp_path: Path) -> None:
    flags = [f"--model_base_path={base_path}", "--model-name=toy", "--port=0", "--json"]
    with serving(tmp_path, *flags) as process:
        target = json.loads(process.line())["grpc_target"]
        stubs = connect(target)
        assert works(stubs)
        before = resident(process.popen.pid)
        for name, content in LARGE.items():
            request = predict_request(signature="echo_float32", inputs={})
            request.inputs["x"].dtype = getattr(types_pb2, name.partition(",")[0])
            request.inputs["x"].MergeFromString(content())
            with pytest.raises(grpc.RpcError) as caught:
                stubs.prediction.Predict(request, timeout=240)
            assert caught.value.details() == "tensor parsing error: x", name
        for number in range(300):  # names that would become labels of metrics
            with pytest.raises(grpc.RpcError):
                stubs.predict(predict_request(model=f"{number}" + "x" * 100_000))
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(target, options=options, compression=grpc.Compression.Gzip) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(bytes(300 * MIB), timeout=240)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert works(stubs)
        wait_for(lambda: resident(process.popen.pid) <= 1.2 * before)  # gRPC frees messages after the answer


@needs_proc
def test_exhausted_file_descriptors_cost_no_processor_time(base_path: Path, tmp_path: Path) -> None:
    flags = [f"--model_base_path={base_path}", "--model-name=toy", "--port=0", "--json"]
    with serving(tmp_path, *flags) as process, ExitStack() as stack:
        host, _, port = json.loads(process.line())["grpc_target"].rpartition(":")
        stubs = connect(f"{host}:{port}")
        assert works(stubs)
        opened = len(list(Path(f"/proc/{process.popen.pid}/fd").iterdir()))
        resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, (opened + 20, opened + 20))
        for _ in range(60):
            stack.enter_context(socket.create_connection((host, int(port))))
        begin, before_s = time.monotonic(), busy_s(process.popen.pid)
        wait_for(lambda: time.monotonic() > begin + 3)
        assert busy_s(process.popen.pid) - before_s < 1.5  # a loop without a pause takes 3 s or more
        assert works(stubs)
        stack.close()
        fresh = connect(f"{host}:{port}")
        assert fresh.prediction.Predict(predict_request(), timeout=60, wait_for_ready=True).outputs
