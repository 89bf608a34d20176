"""TensorFlow Serving's REST API: predictions, model status, metadata, and metrics for Prometheus."""

from __future__ import annotations

import json
import logging
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import unquote

import grpc
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

from digitforge_serving.api import json_tensors, metadata
from digitforge_serving.api.in_flight import InFlight
from digitforge_serving.metrics import Metrics
from digitforge_serving.models import refusal
from digitforge_serving.models.batching import Caller
from digitforge_serving.models.manager import Models
from digitforge_serving.models.predict import DEFAULT_SIGNATURE, predict
from digitforge_serving.models.refusal import RefusedError

log = logging.getLogger("digitforge.serving")

_VERSION: Final = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICT: Final = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)", re.I)
_DESCRIBE: Final = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<metadata>metadata))?", re.I)
_STATUS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
}
_MAX_BODY_BYTES: Final = 2**28  # parsed JSON takes several times as much memory
_MAX_CONNECTIONS: Final = 256
_IDLE_TIMEOUT_S: Final = 30.0  # closes connections that neither send nor receive for this long


class Rest:
    """Answers REST requests. Opens no sockets itself."""

    def __init__(
        self, models: Models, metrics: Metrics, *, metrics_path: str | None, timeout_s: float | None = None
    ) -> None:
        self._models = models
        self._metrics = metrics
        self._metrics_path = metrics_path
        self._timeout_s = timeout_s

    def answer(
        self, method: str, path: str, body: bytes, *, disconnected: Callable[[], bool] = lambda: False
    ) -> tuple[int, str, bytes]:
        """Answer a request.

        Args:
            method: the HTTP method, such as ``GET``.
            path: the URL path, without a query.
            body: the request's body.
            disconnected: returns whether the client has closed the connection.

        Returns:
            The HTTP status, the content type and the body of the reply.
        """
        if method == "GET" and self._metrics_path is not None and path == self._metrics_path:
            return 200, "text/plain; version=0.0.4", self._metrics.text().encode()
        try:
            return 200, "application/json", self._answer(method, path, body, disconnected)
        except RefusedError as refused:
            return _error(_STATUS.get(refused.code, 500), refused.text)
        except Exception as error:
            log.exception("unexpected error while answering a request")
            return _error(500, f"{type(error).__name__}: {error}")

    def _answer(self, method: str, path: str, body: bytes, disconnected: Callable[[], bool]) -> bytes:
        match = (_PREDICT if method == "POST" else _DESCRIBE).fullmatch(path)
        if match is None:
            raise refusal.invalid_argument(f"Malformed request: {method} {path}")
        spec = _spec(match)
        if method == "GET":
            if not spec.name:
                raise refusal.invalid_argument("Missing model name in request.")
            return self._metadata(spec) if match["metadata"] else self._status(spec)
        if match["method"].lower() != "predict":
            raise refusal.unimplemented(f"{match['method']} is not supported by the embedded server; use predict")
        return self._predict(spec, body, disconnected)

    def _predict(self, spec: model_pb2.ModelSpec, body: bytes, disconnected: Callable[[], bool]) -> bytes:
        start = time.monotonic()
        status = "OK"
        try:
            document = json_tensors.parse(body)
            served = self._models.find(spec)
            name = document.get("signature_name") or DEFAULT_SIGNATURE
            if name not in served.model.signatures:
                raise refusal.invalid_argument(f'Serving signature name: "{name}" not found in signature def')
            if not served.model.signatures[name].inputs:
                raise refusal.invalid_argument(f"Failed to get input map for signature: {name}")
            request = predict_pb2.PredictRequest(model_spec=spec)
            request.model_spec.signature_name = name
            rows = json_tensors.fill(document, served.model.signatures[name].inputs, request)
            caller = Caller(None if self._timeout_s is None else start + self._timeout_s, disconnected=disconnected)
            response = predict(lambda _: served, request, as_content=True, caller=caller)
            answer = json_tensors.render(response.outputs, rows=rows)
            self._metrics.observe_latency(spec.name, 1e6 * (time.monotonic() - start), entry="REST")
            return answer
        except RefusedError as refused:
            status = refused.code.name
            raise
        finally:
            self._metrics.count_request(spec.name, status)

    def _status(self, spec: model_pb2.ModelSpec) -> bytes:
        response = metadata.status(self._models, get_model_status_pb2.GetModelStatusRequest(model_spec=spec))
        return _json(response).encode()

    def _metadata(self, spec: model_pb2.ModelSpec) -> bytes:
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        response = metadata.metadata(self._models, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        described = f'"model_spec":{_json(response.model_spec)},\n"metadata": {{"signature_def": {_json(signatures)}}}'
        return f"{{\n{described}\n}}\n".encode()


def _spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=unquote(match["name"] or ""))
    if match["version"]:
        if int(match["version"]) >= 2**63:
            raise refusal.invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(match["version"])
    elif match["label"]:
        spec.version_label = unquote(match["label"])
    return spec


def _json(message: Any) -> str:
    return json_format.MessageToJson(
        message, indent=1, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _error(status: int, text: str) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps({"error": text}).encode()


class RestServer:
    """An HTTP server that runs one thread per connection."""

    def __init__(self, rest: Rest, in_flight: InFlight, *, host: str, port: int) -> None:
        """Open the port. Requests wait until `start`.

        Raises:
            OSError: the port cannot be opened.
        """
        self._server = _Server(
            (host, port), _handler(rest, in_flight), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="digitforge-rest", daemon=True)

    def start(self) -> None:
        """Start answering requests."""
        self._thread.start()

    def stop(self) -> None:
        """Reject new connections."""
        if self._thread.ident is not None:  # the thread was started
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], *, family: int) -> None:
        self.address_family = family
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of a connection, such as a client that disconnects."""


def _handler(rest: Rest, in_flight: InFlight) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _IDLE_TIMEOUT_S
        server: _Server

        def _respond(self) -> None:
            if not in_flight.begin():
                self.close_connection = True
                self._send(*_error(503, refusal.STOPPING))
                return
            try:
                try:
                    length = int(self.headers.get("Content-Length") or 0)
                except ValueError:
                    length = -1
                if not 0 <= length <= _MAX_BODY_BYTES:
                    self.close_connection = True
                    message = (
                        f"Content-Length is {self.headers['Content-Length']!r}; expected 0 to {_MAX_BODY_BYTES} bytes"
                    )
                    self._send(*_error(413 if length > 0 else 400, message))
                    return
                body = self.rfile.read(length)
                if len(body) == length:  # otherwise the client has disconnected
                    path = self.path.partition("?")[0]
                    self._send(*rest.answer(self.command, path, body, disconnected=self._disconnected))
            finally:
                in_flight.end()

        do_GET = do_POST = _respond  # noqa: N815 - http.server's names

        def _disconnected(self) -> bool:
            """Whether the client has closed the connection. Does not consume data of the next request."""
            with selectors.DefaultSelector() as selector:
                selector.register(self.connection, selectors.EVENT_READ)
                try:
                    return bool(selector.select(0)) and not self.connection.recv(1, socket.MSG_PEEK)
                except OSError:
                    return True

        def _send(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log no requests, like TensorFlow Serving."""

    return Handler
