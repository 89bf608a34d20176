"""Good and bad REST requests, with the HTTP status and message that TensorFlow Serving returns.

As in `congruence`, all requests are for a model `digits` that follows the contract and has version 1 loaded. Some
statuses of the real server differ on purpose; `docs/reference/servers.md` lists these differences.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from congruence import ABSENT_VERSION, LABELS, MODEL, given, int64
from google.protobuf import json_format, text_format
from serving_toys import Stubs
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from digitforge_client.contract import MAX_ROWS, MODEL_NAME

BASE = f"/v1/models/{MODEL_NAME}"
ROW = {"labels": 7, "seeds": 5}


@dataclass(frozen=True, kw_only=True)
class RestCase:
    """A request and its expected reply."""

    name: str
    method: str = "POST"
    path: str = f"{BASE}:predict"
    body: Any = None  # bytes are sent unchanged, everything else as JSON
    status: int = 400
    text: str = ""  # the error
    begins: bool = False  # the error only starts with the text
    real: int | None = None  # the real server's status, where its answer differs on purpose
    check: Callable[[Any, Stubs], None] = field(default=lambda document, stubs: None)

    def send(self, target: str) -> tuple[int, Any]:
        """Send the request.

        Returns:
            The status, and the document of the reply. None without a document, as in 404 pages of the real server.
        """
        body = self.body if self.body is None or isinstance(self.body, bytes) else json.dumps(self.body).encode()
        with closing(http.client.HTTPConnection(target, timeout=60)) as connection:
            connection.request(self.method, self.path, body)
            answer = connection.getresponse()
            content = answer.read()
        is_json = content.lstrip().startswith(b"{")
        return answer.status, json.loads(content) if is_json else None


BAD_REST = [
    RestCase(name="an empty body", body=b"", text="JSON Parse error: The document is empty"),
    RestCase(name="a body that is not JSON", body=b"seven", text="JSON Parse error: Invalid value.", begins=True),
    RestCase(name="JSON cut short", body=b'{"instances": [', text="JSON Parse error: ", begins=True),
    RestCase(name="a list", body=[7], text="JSON Value: ", begins=True),
    RestCase(name="neither form", body={"rows": [ROW]}, text="Missing 'inputs' or 'instances' key"),
    RestCase(name="both forms", body={"instances": [ROW], "inputs": {}}, text="JSON Value: ", begins=True),
    RestCase(name="rows that are not a list", body={"instances": ROW}, text="JSON Value: ", begins=True),
    RestCase(name="no rows", body={"instances": []}, text="JSON Value: [] No values in 'instances' array"),
    RestCase(
        name="a plain list for two inputs",
        body={"instances": [7]},
        text="instances is a plain list, but expecting list of objects as multiple input tensors required as per "
        "tensorinfo_map",
    ),
    RestCase(
        name="a row without an input",
        body={"instances": [ROW, {"labels": 7}]},
        text="Failed to process element: 1 of 'instances' list. JSON object: ",
        begins=True,
    ),
    RestCase(
        name="a column without an input",
        body={"inputs": {"labels": [7]}},
        text="Missing named input: seeds in 'inputs' object.",
    ),
    RestCase(
        name="a string for a number, by row",
        body={"instances": [ROW, {"labels": "seven", "seeds": 5}]},
        text="Failed to process element: 1 key: labels of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: "
        '"seven" Type: String is not of expected type: int64',
    ),
    RestCase(
        name="a string for a number, by column",
        body={"inputs": {"labels": ["seven"], "seeds": [5]}},
        text='JSON Value: "seven" Type: String is not of expected type: int64',
    ),
    RestCase(
        name="a fraction for an integer",
        body={"inputs": {"labels": [7.5], "seeds": [5]}},
        text="JSON Value: 7.5 Type: Number is not of expected type: int64",
    ),
    RestCase(
        name="a ragged list",
        body={"inputs": {"labels": [[7, 7], [7]], "seeds": [5]}},
        text="Encountered list at unexpected size: 1 at level: 1 expected size: 2",
    ),
    RestCase(
        name="a signature that is not a string",
        body={"signature_name": 7, "instances": [ROW]},
        text="JSON Value: ",
        begins=True,
    ),
    RestCase(
        name="an unknown signature",
        body={"signature_name": "jpeg", "instances": [ROW]},
        text='Serving signature name: "jpeg" not found in signature def',
    ),
    RestCase(
        name="more rows than a request may have",
        body={"inputs": {"labels": [7] * (MAX_ROWS + 1), "seeds": [5] * (MAX_ROWS + 1)}},
        begins=True,  # with batching, the server's message; without, the model's
    ),
    RestCase(
        name="an unknown model",
        path="/v1/models/letters:predict",
        body={"instances": [ROW]},
        status=404,
        text="Servable not found for request: Latest(letters)",
    ),
    RestCase(
        name="an unknown version",
        path=f"{BASE}/versions/{ABSENT_VERSION}:predict",
        body={"instances": [ROW]},
        status=404,
        text=f"Servable not found for request: Specific({MODEL_NAME}, {ABSENT_VERSION})",
    ),
    RestCase(
        name="an unknown label",
        path=f"{BASE}/labels/newest:predict",
        body={"instances": [ROW]},
        text="Unrecognized servable version label: newest",
    ),
    RestCase(
        name="a version that is too large",
        path=f"{BASE}/versions/{2**64}:predict",
        body={"instances": [ROW]},
        text=f"Failed to convert version: {2**64} to numeric.",
        real=400,
    ),
    RestCase(
        name="status of an unknown model",
        method="GET",
        path="/v1/models/letters",
        status=404,
        text="Could not find any versions of model letters",
    ),
    RestCase(
        name="status of an unknown version",
        method="GET",
        path=f"{BASE}/versions/{ABSENT_VERSION}",
        status=404,
        text=f"Could not find version {ABSENT_VERSION} of model {MODEL_NAME}",
    ),
    RestCase(
        name="status without a model",
        method="GET",
        path="/v1/models",
        text="Missing model name in request.",
    ),
    RestCase(
        name="metadata of an unknown model",
        method="GET",
        path="/v1/models/letters/metadata",
        status=404,
        text="Servable not found for request: Latest(letters)",
    ),
    RestCase(
        name="metadata of an unknown version",
        method="GET",
        path=f"{BASE}/versions/{ABSENT_VERSION}/metadata",
        status=404,
        text=f"Servable not found for request: Specific({MODEL_NAME}, {ABSENT_VERSION})",
    ),
    RestCase(
        name="metadata of an unknown label",
        method="GET",
        path=f"{BASE}/labels/newest/metadata",
        text="Unrecognized servable version label: newest",
    ),
    *(
        RestCase(name=f"{method} for {path}", method=method, path=path, text=f"Malformed request: {method} {path}")
        for method, path in (
            ("GET", f"{BASE}:predict"),
            ("POST", BASE),
            ("PUT", BASE),
            ("DELETE", BASE),
            ("GET", f"{BASE}/meta"),
            ("GET", f"{BASE}/versions/one"),
            ("POST", f"{BASE}:generate"),
        )
    ),
    RestCase(
        name="a path outside the API",
        method="GET",
        path="/v2/digits",
        status=404,
        text="There is nothing at /v2/digits; the API is below /v1/models",
        real=404,
    ),
    RestCase(
        name="text after the document",
        body=json.dumps({"instances": [ROW]}).encode() + b" seven",
        text="JSON Parse error: ",
        begins=True,
        real=200,
    ),
]


def _digit(stubs: Stubs, signature: str = "") -> Any:
    """The answer to `ROW` over gRPC."""
    request = text_format.Parse(MODEL + LABELS + given("seeds", int64(1, 5)), predict_pb2.PredictRequest())
    request.inputs["labels"].int64_val[:] = [7]
    request.model_spec.signature_name = signature
    return stubs.prediction.Predict(request, timeout=60)


def _row(document: Any, stubs: Stubs) -> None:
    assert list(document) == ["predictions"]
    (row,) = document["predictions"]
    assert set(row) == {"images", "valid"}
    assert row["valid"] is True
    assert np.array_equal(row["images"], tf.make_ndarray(_digit(stubs).outputs["images"])[0])


def _column(document: Any, stubs: Stubs) -> None:
    assert list(document) == ["outputs"]
    assert set(document["outputs"]) == {"images", "valid"}
    assert document["outputs"]["valid"] == [True]
    assert np.array_equal(document["outputs"]["images"], tf.make_ndarray(_digit(stubs).outputs["images"]))


def _png(document: Any, stubs: Stubs) -> None:
    encoded = document["predictions"][0]["image_bytes"]
    assert list(encoded) == ["b64"]
    content = base64.b64decode(encoded["b64"], validate=True)
    assert content == _digit(stubs, "png").outputs["image_bytes"].string_val[0]


def _latents(key: str, seeds: list[int]) -> Callable[[Any, Stubs], None]:
    """A signature with one output: the reply has its values without its name."""

    def check(document: Any, stubs: Stubs) -> None:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = MODEL_NAME
        request.model_spec.signature_name = "latents"
        request.inputs["seeds"].CopyFrom(tf.make_tensor_proto(seeds, tf.int64))
        expected = tf.make_ndarray(stubs.prediction.Predict(request, timeout=60).outputs["latents"])
        assert list(document) == [key]
        assert np.array_equal(np.array(document[key], np.float32), expected)

    return check


def _card(document: Any, stubs: Stubs) -> None:
    (card,) = document["predictions"]
    assert json.loads(card)["contract_version"] >= 1


def _valid(*expected: bool) -> Callable[[Any, Stubs], None]:
    def check(document: Any, stubs: Stubs) -> None:
        assert [row["valid"] for row in document["predictions"]] == list(expected)

    return check


def _status(document: Any, stubs: Stubs) -> None:
    newest = document["model_version_status"][0]
    assert int(newest.pop("version")) >= 1
    assert newest == {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


def _metadata(document: Any, stubs: Stubs) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = MODEL_NAME
    reply = stubs.prediction.GetModelMetadata(request, timeout=60)
    assert set(document) == {"model_spec", "metadata"}
    assert document["model_spec"]["name"] == MODEL_NAME
    assert document["model_spec"]["version"] == str(reply.model_spec.version.value)  # 64-bit numbers are strings
    assert document["model_spec"]["signature_name"] == ""
    expected, sent = get_model_metadata_pb2.SignatureDefMap(), get_model_metadata_pb2.SignatureDefMap()
    reply.metadata["signature_def"].Unpack(expected)
    json_format.ParseDict(document["metadata"]["signature_def"], sent)
    assert sent == expected


GOOD_REST = [
    RestCase(name="by row", body={"instances": [ROW]}, status=200, check=_row),
    RestCase(name="by column", body={"inputs": {"labels": [7], "seeds": [5]}}, status=200, check=_column),
    RestCase(
        name="with a version", path=f"{BASE}/versions/1:predict", body={"instances": [ROW]}, status=200, check=_row
    ),
    RestCase(
        name="with the name of the default signature",
        body={"signature_name": "serving_default", "instances": [ROW]},
        status=200,
        check=_row,
    ),
    RestCase(name="an empty signature name", body={"signature_name": "", "instances": [ROW]}, status=200, check=_row),
    RestCase(name="PNG files", body={"signature_name": "png", "instances": [ROW]}, status=200, check=_png),
    RestCase(
        name="one input and one output, by row",
        body={"signature_name": "latents", "instances": [5, 2**53 - 1]},
        status=200,
        check=_latents("predictions", [5, 2**53 - 1]),
    ),
    RestCase(
        name="one input with its name, by row",
        body={"signature_name": "latents", "instances": [{"seeds": 5}]},
        status=200,
        check=_latents("predictions", [5]),
    ),
    RestCase(
        name="one input and one output, by column",
        body={"signature_name": "latents", "inputs": [5, 6]},
        status=200,
        check=_latents("outputs", [5, 6]),
    ),
    RestCase(
        name="one input with its name, by column",
        body={"signature_name": "latents", "inputs": {"seeds": [5, 6]}},
        status=200,
        check=_latents("outputs", [5, 6]),
    ),
    RestCase(
        name="a text, which is not base64",
        body={"signature_name": "card", "instances": [0]},
        status=200,
        check=_card,
    ),
    RestCase(
        name="a bad label beside a good one",
        body={"instances": [ROW, {"labels": 999, "seeds": 5}]},
        status=200,
        check=_valid(True, False),
    ),
    RestCase(
        name="an additional key, which is ignored", body={"instances": [ROW], "note": "x"}, status=200, check=_row
    ),
    RestCase(name="status", method="GET", path=BASE, status=200, check=_status),
    RestCase(name="status of a version", method="GET", path=f"{BASE}/versions/1", status=200, check=_status),
    RestCase(name="metadata", method="GET", path=f"{BASE}/metadata", status=200, check=_metadata),
    RestCase(
        name="metadata of a version", method="GET", path=f"{BASE}/versions/1/metadata", status=200, check=_metadata
    ),
    RestCase(name="a query", method="GET", path=f"{BASE}?x=1", status=200, check=_status, real=404),
    RestCase(name="HEAD", method="HEAD", path=BASE, status=200, real=400),
    RestCase(name="OPTIONS", method="OPTIONS", path=BASE, status=204, real=400),
]
