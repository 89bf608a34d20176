"""The REST API, over real sockets."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_toys import connect, predict_request

from digitforge_client.errors import DigitforgeError
from digitforge_serving import ModelSource, Server, ServerOptions, shipped_config
from digitforge_serving.config.options import PROMETHEUS_PATH, read_metrics_path


@pytest.fixture(scope="module")
def server(toy_version: Path, exported_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("rest") / "toy"
    shutil.copytree(toy_version, base / "1")
    sources = [
        ModelSource(name="toy", base_path=base, labels={"stable": 1}),
        ModelSource(name="digits", base_path=exported_model),
    ]
    options = ServerOptions(
        port=0, rest_api_port=0, metrics_path=PROMETHEUS_PATH, allow_version_labels_for_unavailable_models=True
    )
    server = Server(sources, options)
    assert server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def connection(server: Server) -> Iterator[http.client.HTTPConnection]:
    assert server.rest_target is not None
    connection = http.client.HTTPConnection(server.rest_target, timeout=60)
    yield connection
    connection.close()


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Send a request and return (status, JSON of the reply). Bytes as *body* are sent unchanged."""
    connection.request(method, path, body if body is None or isinstance(body, bytes) else json.dumps(body))
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def predict(connection: http.client.HTTPConnection, body: Any, path: str = "/v1/models/toy:predict") -> Any:
    status, document = ask(connection, "POST", path, body)
    assert status == 200, document
    return document


ROWS = [{"a": 1, "b": 3}, {"a": 2.5, "b": 4}]


@pytest.mark.parametrize(
    "path", ["/v1/models/toy:predict", "/v1/models/toy/versions/1:predict", "/v1/models/toy/labels/stable:predict"]
)
def test_row_form_is_answered_in_row_form(connection: http.client.HTTPConnection, path: str) -> None:
    answer = predict(connection, {"instances": ROWS}, path)
    assert answer == {"predictions": [{"product": 3.0, "sum": 4.0}, {"product": 10.0, "sum": 6.5}]}


def test_column_form_is_answered_in_column_form(connection: http.client.HTTPConnection) -> None:
    answer = predict(connection, {"inputs": {"a": [1, 2.5], "b": [3, 4]}})
    assert answer == {"outputs": {"product": [3.0, 10.0], "sum": [4.0, 6.5]}}


def test_one_input_and_one_output_need_no_names(connection: http.client.HTTPConnection) -> None:
    rows = {"signature_name": "echo_int64", "instances": [[1, 2], [3, -(2**62)]]}
    assert predict(connection, rows) == {"predictions": [[1, 2], [3, -(2**62)]]}
    columns = {"signature_name": "echo_float32", "inputs": [0.2, 1e-5, 9e6]}
    assert predict(connection, columns) == {"outputs": [0.2, 1e-5, 9e6]}
    assert predict(connection, {"signature_name": "echo_bool", "inputs": True}) == {"outputs": True}
    assert predict(connection, {"signature_name": "echo_string", "inputs": "seven"}) == {"outputs": "seven"}


def test_a_float_is_written_as_the_shortest_decimal(connection: http.client.HTTPConnection) -> None:
    connection.request(
        "POST", "/v1/models/toy:predict", json.dumps({"signature_name": "echo_float32", "inputs": [0.2, 16777215]})
    )
    assert connection.getresponse().read() == b'{"outputs":[0.2,16777215.0]}'


def test_nan_and_infinity_survive_a_round_trip(connection: http.client.HTTPConnection) -> None:
    body = b'{"signature_name": "echo_float32", "inputs": [NaN, Infinity, -Infinity]}'
    connection.request("POST", "/v1/models/toy:predict", body)
    assert connection.getresponse().read() == b'{"outputs":[NaN,Infinity,-Infinity]}'


def test_bytes_are_base64_in_inputs_and_in_outputs_named_bytes(connection: http.client.HTTPConnection) -> None:
    rows = {"signature_name": "shout", "instances": ["seven", {"b64": base64.b64encode(b"\xffx").decode()}]}
    assert predict(connection, rows) == {
        "predictions": [
            {"length": 5, "loud_bytes": {"b64": base64.b64encode(b"SEVEN").decode()}},
            {"length": 2, "loud_bytes": {"b64": base64.b64encode(b"\xffX").decode()}},
        ]
    }
    assert predict(connection, {"signature_name": "echo_string", "inputs": ["sieben é"]}) == {"outputs": ["sieben é"]}


def test_png_files_over_rest_equal_the_images_over_grpc(connection: http.client.HTTPConnection, server: Server) -> None:
    rows = [{"labels": 7, "seeds": 2**53 - 1}, {"labels": 3, "seeds": 5}]
    body = {"signature_name": "png", "instances": rows}
    predictions = predict(connection, body, "/v1/models/digits:predict")["predictions"]
    request = predict_request(model="digits", inputs={})
    request.inputs["labels"].CopyFrom(tf.make_tensor_proto([7, 3], tf.int64))
    request.inputs["seeds"].CopyFrom(tf.make_tensor_proto([2**53 - 1, 5], tf.int64))
    images = tf.make_ndarray(connect(server.target).predict(request).outputs["images"])
    for prediction, image in zip(predictions, images, strict=True):
        png = tf.io.decode_png(base64.b64decode(prediction["image_bytes"]["b64"])).numpy()
        assert np.array_equal(png, image)


def test_status_has_the_text_that_the_health_check_looks_for(
    connection: http.client.HTTPConnection,
) -> None:
    connection.request("GET", "/v1/models/toy")
    text = connection.getresponse().read().decode()
    assert '"state": "AVAILABLE"' in text
    assert json.loads(text) == {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }


def test_metadata_describes_the_signatures(connection: http.client.HTTPConnection) -> None:
    status, document = ask(connection, "GET", "/v1/models/toy/metadata")
    assert status == 200
    assert document["model_spec"]["name"] == "toy"
    assert document["model_spec"]["version"] == "1"
    pair = document["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert pair["inputs"]["a"]["dtype"] == "DT_FLOAT"
    assert pair["method_name"] == "tensorflow/serving/predict"


PREDICT = "/v1/models/toy:predict"
BAD = {
    "an empty body": ("POST", PREDICT, b"", 400, "JSON Parse error: The document is empty"),
    "invalid JSON": ("POST", PREDICT, b"{seven", 400, "JSON Parse error: "),
    "not an object": ("POST", PREDICT, [1], 400, "JSON Value: [1] Is not object"),
    "deep nesting": ("POST", PREDICT, b"[" * 100_000, 400, "JSON Parse error: "),
    "neither form": ("POST", PREDICT, {"rows": []}, 400, "Missing 'inputs' or 'instances' key"),
    "both forms": ("POST", PREDICT, {"inputs": [], "instances": []}, 400, "JSON Value: "),
    "no rows": ("POST", PREDICT, {"instances": []}, 400, "JSON Value: "),
    "a plain list for two inputs": (
        "POST",
        PREDICT,
        {"instances": [1]},
        400,
        "instances is a plain list, but expecting",
    ),
    "a missing input": ("POST", PREDICT, {"inputs": {"a": [1]}}, 400, "Missing named input: b in 'inputs' object."),
    "a row without an input": ("POST", PREDICT, {"instances": [{"a": 1}]}, 400, "Failed to process element: 0 of"),
    "a string for a number": (
        "POST",
        PREDICT,
        {"inputs": {"a": ["x"], "b": [1]}},
        400,
        'JSON Value: "x" Type: String is not of expected type: float',
    ),
    "a number beyond the range of a float": (
        "POST",
        PREDICT,
        {"inputs": {"a": [1e39], "b": [1]}},
        400,
        "JSON Value: 1e+39 Type: Number is not of expected type: float",
    ),
    "a boolean for a number": (
        "POST",
        PREDICT,
        {"instances": [{"a": 1, "b": 2}, {"a": True, "b": 2}]},
        400,
        "Failed to process element: 1 key: a of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: true Type: True "
        "is not of expected type: float",
    ),
    "a ragged list": (
        "POST",
        PREDICT,
        {"signature_name": "echo_int64", "inputs": [[1, 2], [3]]},
        400,
        "Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    "too many dimensions": (
        "POST",
        PREDICT,
        b'{"signature_name": "echo_int64", "inputs": ' + b"[" * 400 + b"]" * 400 + b"}",
        400,
        "tensor parsing error: x",
    ),
    "invalid base64": (
        "POST",
        PREDICT,
        {"signature_name": "shout", "instances": [{"b64": "?"}]},
        400,
        "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: Unable to base64 decode",
    ),
    "an unknown signature": (
        "POST",
        PREDICT,
        {"signature_name": "jpeg", "instances": [1]},
        400,
        'Serving signature name: "jpeg" not found in signature def',
    ),
    "a signature without inputs": (
        "POST",
        PREDICT,
        {"signature_name": "__saved_model_init_op", "instances": [1]},
        400,
        "Failed to get input map for signature: __saved_model_init_op",
    ),
    "a dtype that JSON cannot represent": (
        "POST",
        PREDICT,
        {"signature_name": "echo_complex64", "inputs": [1]},
        501,
        "Conversion of JSON Value: 1 to type: complex64",
    ),
    "an unknown model": (
        "POST",
        "/v1/models/letters:predict",
        {"instances": [1]},
        404,
        "Servable not found for request: Latest(letters)",
    ),
    "an unknown version": (
        "POST",
        "/v1/models/toy/versions/7:predict",
        {"instances": [1]},
        404,
        "Servable not found for request: Specific(toy, 7)",
    ),
    "a number that is too large for a version": (
        "POST",
        f"/v1/models/toy/versions/{2**64}:predict",
        {"instances": [1]},
        400,
        f"Failed to convert version: {2**64} to numeric.",
    ),
    "an unknown label": (
        "POST",
        "/v1/models/toy/labels/canary:predict",
        {"instances": [1]},
        400,
        "Unrecognized servable version label: canary",
    ),
    "status of an unknown model": (
        "GET",
        "/v1/models/letters",
        None,
        404,
        "Could not find any versions of model letters",
    ),
    "status without a model": ("GET", "/v1/models", None, 400, "Missing model name in request."),
    "an unknown path": ("GET", "/v2/digits", None, 404, "There is nothing at /v2/digits; the API is below /v1/models"),
    "an unknown path of the API": ("GET", "/v1/digits", None, 400, "Malformed request: GET /v1/digits"),
    "predict with GET": ("GET", PREDICT, None, 400, f"Malformed request: GET {PREDICT}"),
    "classify": ("POST", "/v1/models/toy:classify", {"examples": []}, 501, "classify is not supported"),
    "too many rows": (
        "POST",
        PREDICT,
        {"signature_name": "guarded", "instances": [1, 2, 3, 4, 5]},
        400,
        "assertion failed: [at most 4 rows]",
    ),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_request_gets_the_right_status_and_message(
    connection: http.client.HTTPConnection, bad: tuple[str, str, Any, int, str]
) -> None:
    method, path, body, status, begins = bad
    answered, document = ask(connection, method, path, body)
    assert answered == status, document
    assert list(document) == ["error"]
    assert document["error"].startswith(begins), document["error"]


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "x", "b64", "inputs", "instances"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_any_document_gets_an_answer_or_an_error(
    connection: http.client.HTTPConnection, caplog: pytest.LogCaptureFixture
) -> None:
    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(["instances", "inputs"]),
        st.sampled_from(["", "shout", "echo_int64", "echo_uint8", "echo_bool", "echo_float64", "echo_string"]),
        documents,
    )
    def send(form: str, signature: str, value: Any) -> None:
        status, document = ask(connection, "POST", PREDICT, {form: value, "signature_name": signature})
        assert status in {200, 400, 404, 501}, document

    send()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert predict(connection, {"instances": ROWS})


def test_metrics_count_requests_under_tensorflow_servings_names(
    connection: http.client.HTTPConnection, server: Server
) -> None:
    def page() -> str:
        connection.request("GET", PROMETHEUS_PATH)
        return connection.getresponse().read().decode()

    def value(series: str) -> float:
        return sum(float(line.rpartition(" ")[2]) for line in page().splitlines() if line.startswith(series))

    before = value(':tensorflow:serving:request_count{model_name="toy",status="OK"}')
    predict(connection, {"instances": ROWS})
    connect(server.target).predict(predict_request())
    ask(connection, "POST", PREDICT, {"signature_name": "jpeg", "instances": [1]})
    assert value(':tensorflow:serving:request_count{model_name="toy",status="OK"}') == before + 2
    assert value(':tensorflow:serving:request_count{model_name="toy",status="INVALID_ARGUMENT"}') >= 1
    for entry, method in (("GRPC", "Predict"), ("REST", "predict")):
        labels = f'model_name="toy",API="{method}",entrypoint="{entry}"'
        count = value(f":tensorflow:serving:request_latency_count{{{labels}}}")
        assert count >= 1
        assert value(f':tensorflow:serving:request_latency_bucket{{{labels},le="+Inf"}}') == count
        assert value(f":tensorflow:serving:request_latency_sum{{{labels}}}") > 0
    assert value(':tensorflow:serving:runtime_latency_count{model_name="toy"') >= 2
    assert value(":tensorflow:cc:saved_model:load_attempt_count{model_path=") >= 1


def test_the_shipped_monitoring_file_uses_the_default_path() -> None:
    assert read_metrics_path(shipped_config() / "monitoring.config") == PROMETHEUS_PATH


@pytest.mark.parametrize(
    "noise",
    [
        b"\x00" * 100,
        b"GET\r\n\r\n",
        b"POST /v1/models/toy:predict HTTP/1.1\r\nContent-Length: seven\r\n\r\n",
        b"POST /v1/models/toy:predict HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/models/toy:predict HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /v1/models/toy:predict HTTP/1.1\r\nContent-Length: 100\r\n\r\ncut short",
        b"DELETE /v1/models/toy HTTP/1.1\r\n\r\n",
    ],
)
def test_noise_on_the_port_does_not_affect_other_clients(
    server: Server, connection: http.client.HTTPConnection, noise: bytes
) -> None:
    assert server.rest_target is not None
    host, _, port = server.rest_target.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(noise)
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(4096):
            pass
    assert predict(connection, {"instances": ROWS})


def test_the_same_port_for_grpc_and_rest_is_a_clear_error_and_leaves_no_port_open(base_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = Server([ModelSource(name="toy", base_path=base_path)], ServerOptions(port=port, rest_api_port=port))
    with pytest.raises(DigitforgeError, match=f"gRPC cannot listen on 127.0.0.1:{port}: it is in use"):
        server.start()
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_the_error_for_a_rest_port_in_use_names_its_option(base_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = ServerOptions(port=0, rest_api_port=taken.getsockname()[1])
        with pytest.raises(DigitforgeError, match="already in use; choose another --rest-api-port"):
            Server([ModelSource(name="toy", base_path=base_path)], options).start()
