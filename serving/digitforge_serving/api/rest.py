"""TensorFlow Serving's REST API: predictions, model status, metadata, and metrics for Prometheus."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as ASGIMessage
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

from digitforge_client.common.archives import gunzip
from digitforge_client.errors import DataError
from digitforge_serving.api import json_tensors, metadata
from digitforge_serving.api.in_flight import InFlight
from digitforge_serving.api.request_log import HEADER, Entry, RequestLog
from digitforge_serving.metrics import Metrics
from digitforge_serving.models import refusal
from digitforge_serving.models.batching import Caller
from digitforge_serving.models.manager import Models
from digitforge_serving.models.predict import DEFAULT_SIGNATURE, predict
from digitforge_serving.models.refusal import RefusedError
from digitforge_serving.models.saved_model import Served

log = logging.getLogger("digitforge.serving")

_VERSION: Final = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICT: Final = re.compile(rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)", re.I)
_DESCRIBE: Final = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<metadata>metadata))?", re.I)
_STATUS: Final = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
_ENTRY: Final = "digitforge.entry"  # key of the request's log entry in the ASGI scope
_LARGE_BYTES: Final = 2**16
_LARGE_BODIES: Final = 4  # bodies above that size in memory at the same time
_PARSERS: Final = 2  # threads that parse them; Python's parsers keep other threads from running
_WORKERS: Final = 256  # threads; every request that is computed or waits for its computation holds one

T = TypeVar("T")


def create_app(
    models: Models,
    metrics: Metrics,
    in_flight: InFlight,
    requests: RequestLog,
    *,
    max_body_bytes: int,
    metrics_path: str | None = None,
    timeout_s: float | None = None,
    cors: bool = False,
    pages: Sequence[BaseRoute] = (),
) -> Starlette:
    """Create the application that answers HTTP requests.

    Args:
        models: the models to serve.
        metrics: where to record the requests, and what the metrics page shows.
        in_flight: counts the requests, and says when to reject them.
        requests: logs the requests.
        max_body_bytes: largest body of a request, after decompression.
        metrics_path: URL path of the metrics for Prometheus; None: no metrics.
        timeout_s: time limit of a prediction, in seconds; None: no limit.
        cors: let pages from other origins use the API.
        pages: what else the port serves.
    """
    api = Rest(models, metrics, max_body_bytes=max_body_bytes, timeout_s=timeout_s)
    routes = [*pages] if metrics_path is None else [Route(metrics_path, api.metrics_page), *pages]
    middleware = [Middleware(_Observe, in_flight=in_flight, requests=requests)]
    if cors:
        anything = ("*",)
        cross_origin = Middleware(
            CORSMiddleware,
            allow_origins=anything,
            allow_methods=anything,
            allow_headers=anything,
            expose_headers=(HEADER,),
        )
        middleware.insert(0, cross_origin)
    return Starlette(
        routes=[*routes, Route("/{path:path}", api)],
        middleware=middleware,
        exception_handlers={HTTPException: _http_error},
    )


class Rest:
    """Answers requests to TensorFlow Serving's paths. An ASGI application."""

    def __init__(
        self, models: Models, metrics: Metrics, *, max_body_bytes: int, timeout_s: float | None = None
    ) -> None:
        self._models = models
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s
        self._large = asyncio.Semaphore(_LARGE_BODIES)
        self._parsers = ThreadPoolExecutor(_PARSERS, thread_name_prefix="digitforge-parse")
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="digitforge-rest")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, always with JSON."""
        try:
            response = await self._answer(Request(scope, receive))
        except RefusedError as refused:
            response = _error(_STATUS.get(refused.code, 500), refused.text)
        except HTTPException as error:
            response = await _http_error(Request(scope), error)
        except ClientDisconnect:
            return
        except Exception as error:
            log.exception("unexpected error while answering a request")
            response = _error(500, f"{type(error).__name__}: {error}")
        await response(scope, receive, send)

    async def metrics_page(self, request: Request) -> Response:
        """The metrics in Prometheus's text format."""
        return Response(await self._run(self._workers, self._metrics.text), media_type="text/plain; version=0.0.4")

    async def _answer(self, request: Request) -> Response:
        method, path = request.method, request.scope["raw_path"].decode("latin-1")
        if not path.lower().startswith("/v1/"):
            raise refusal.not_found(f"There is nothing at {path}; the API is below /v1/models")
        predicted, described = _PREDICT.fullmatch(path), _DESCRIBE.fullmatch(path)
        if method == "OPTIONS" and (predicted or described):
            return Response(status_code=204, headers={"Allow": "OPTIONS, POST" if predicted else "GET, HEAD, OPTIONS"})
        if predicted and method == "POST":
            if predicted["method"].lower() != "predict":
                raise refusal.unimplemented(
                    f"{predicted['method']} is not supported by the embedded server; use predict"
                )
            return _json_response(await self._count(request, _logged(request, "predict", _spec(predicted))))
        if not described or method not in {"GET", "HEAD"}:
            raise refusal.invalid_argument(f"Malformed request: {method} {path}")
        spec = _spec(described)
        if not spec.name:
            raise refusal.invalid_argument("Missing model name in request.")
        describe = self._metadata if described["metadata"] else self._status
        _logged(request, "metadata" if described["metadata"] else "status", spec)
        return _json_response(await self._run(self._workers, functools.partial(describe, spec)))

    async def _count(self, request: Request, spec: model_pb2.ModelSpec) -> bytes:
        """Answer a prediction and record its outcome."""
        start = time.monotonic()
        status = "OK"
        try:
            answer = await self._predict(request, spec, start)
            self._metrics.observe_latency(spec.name, 1e6 * (time.monotonic() - start), entry="REST")
            return answer
        except RefusedError as refused:
            status = refused.code.name
            raise
        except ClientDisconnect:
            status = "CANCELLED"
            raise
        finally:
            self._metrics.count_request(spec.name, status)

    async def _predict(self, request: Request, spec: model_pb2.ModelSpec, start: float) -> bytes:
        served = self._models.find(spec)  # first, because parsing a body may cost much
        caller = Caller(None if self._timeout_s is None else start + self._timeout_s)
        try:
            async with asyncio.timeout(self._timeout_s), AsyncExitStack() as slot:
                body, large = await self._body(request, slot)
                parse = functools.partial(_parse, body, served, spec)
                del body  # otherwise it would stay in memory until the answer is sent
                parsed = await self._run(self._parsers if large else self._workers, parse)
                del parse
        except TimeoutError as error:
            raise refusal.RefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from error
        return await self._unless_disconnected(request, caller, functools.partial(_compute, served, *parsed, caller))

    async def _body(self, request: Request, slot: AsyncExitStack) -> tuple[bytes, bool]:
        """Read and decompress the body.

        Args:
            request: the request.
            slot: holds one of the slots for large bodies, if this body is large.

        Returns:
            The body, and whether it is large.

        Raises:
            HTTPException: the body is too large, or its content coding is not supported.
            ClientDisconnect: the client has disconnected.
        """
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding not in {"identity", "gzip", "x-gzip"}:
            raise HTTPException(415, f"Content-Encoding is {coding!r}; expected gzip, or no Content-Encoding")
        if int(request.headers.get("content-length", 0)) > self._max_body_bytes:
            raise self._too_large()
        body, large = bytearray(), coding != "identity"
        if large:
            await slot.enter_async_context(self._large)
        async for part in request.stream():
            body += part
            if len(body) > self._max_body_bytes:
                raise self._too_large()
            if not large and len(body) > _LARGE_BYTES:
                large = True
                await slot.enter_async_context(self._large)
        if coding != "identity":
            return await self._run(self._parsers, functools.partial(self._inflate, body)), large
        return bytes(body), large

    def _inflate(self, body: bytearray) -> bytes:
        try:
            inflated = gunzip(body, self._max_body_bytes)
        except DataError as error:
            raise refusal.invalid_argument(f"the body is not valid gzip: {error}") from error
        if len(inflated) > self._max_body_bytes:
            raise self._too_large()
        return inflated

    def _too_large(self) -> HTTPException:
        return HTTPException(
            413,
            f"the body has more than {self._max_body_bytes} bytes; send fewer rows in one request, or start the server "
            "with a larger --rest-api-max-body-mib",
        )

    async def _unless_disconnected(self, request: Request, caller: Caller, work: Callable[[], bytes]) -> bytes:
        """Compute an answer. If the client disconnects, cancel the computation and do not wait for it.

        Raises:
            ClientDisconnect: the client has disconnected.
        """
        computing = asyncio.ensure_future(self._run(self._workers, work))
        computing.add_done_callback(lambda done: done.cancelled() or done.exception())  # marks the error as seen
        disconnected = asyncio.ensure_future(request.receive())  # the body is read, so only this event can follow
        try:
            await asyncio.wait({computing, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            if computing.done():
                return computing.result()
            raise ClientDisconnect
        finally:
            caller.cancel()
            disconnected.cancel()

    async def _run(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, work)

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


def _parse(body: bytes, served: Served, spec: model_pb2.ModelSpec) -> tuple[predict_pb2.PredictRequest, bool]:
    """The request that a body contains, and whether it is in row form."""
    document = json_tensors.parse(body)
    name = document.get("signature_name") or DEFAULT_SIGNATURE
    if name not in served.model.signatures:
        raise refusal.invalid_argument(f'Serving signature name: "{name}" not found in signature def')
    if not served.model.signatures[name].inputs:
        raise refusal.invalid_argument(f"Failed to get input map for signature: {name}")
    request = predict_pb2.PredictRequest(model_spec=spec)
    request.model_spec.signature_name = name
    return request, json_tensors.fill(document, served.model.signatures[name].inputs, request)


def _compute(served: Served, request: predict_pb2.PredictRequest, rows: bool, caller: Caller) -> bytes:
    response = predict(lambda _: served, request, as_content=True, caller=caller)
    return json_tensors.render(response.outputs, rows=rows)


def _spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=unquote(match["name"] or ""))
    if match["version"]:
        if int(match["version"]) >= 2**63:
            raise refusal.invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(match["version"])
    elif match["label"]:
        spec.version_label = unquote(match["label"])
    return spec


def _logged(request: Request, action: str, spec: model_pb2.ModelSpec) -> model_pb2.ModelSpec:
    """Complete the request's log entry."""
    entry: Entry = request.scope[_ENTRY]
    entry.method, entry.model = f"{entry.method} {action}", spec.name
    return spec


def _json(message: Any) -> str:
    return json_format.MessageToJson(
        message, indent=1, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _json_response(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps({"error": text}), status, headers, "application/json")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, error.headers)


class _Observe:
    """Counts and logs requests, and rejects them when the server stops. ASGI middleware."""

    def __init__(self, app: ASGIApp, in_flight: InFlight, requests: RequestLog) -> None:
        self._app = app
        self._in_flight = in_flight
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(Headers(scope=scope))
        method, path = scope["method"], scope["raw_path"].decode("latin-1")
        attributes = {"http.request.method": method, "url.path": path, "url.scheme": "http"}
        with self._requests.request(method, headers, attributes) as entry:
            entry.status = _STATUS[grpc.StatusCode.CANCELLED]  # until the answer begins

            async def send_with_id(message: ASGIMessage) -> None:
                if message["type"] == "http.response.start":
                    entry.status = message["status"]
                    message["headers"] = [*message["headers"], (HEADER.encode(), entry.identity.encode())]
                await send(message)

            if not self._in_flight.begin():
                await _error(503, refusal.STOPPING, {"Connection": "close"})(scope, receive, send_with_id)
                return
            try:
                await self._app(_with_path({**scope, _ENTRY: entry}), receive, send_with_id)
            finally:
                self._in_flight.end()


def _with_path(scope: Scope) -> Scope:
    """Reduce an absolute URL, which a request may contain (RFC 9112, 3.2.2), to its path."""
    url = scope["raw_path"].decode("latin-1")
    if not url.lower().startswith(("http://", "https://")):
        return scope
    path = "/" + url.partition("://")[2].partition("/")[2]
    return {**scope, "path": unquote(path), "raw_path": path.encode("latin-1")}
