"""`digitforge serve --otel` sends spans to a real collector, and continues the traces of its clients."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from ports import free_port
from serve_process import serving
from serving_toys import connect, predict_request, wait_for

from digitforge_client import AsyncDigitClient, DigitClient
from digitforge_client.common.extras import install_command
from digitforge_client.errors import MissingExtraError
from digitforge_serving.cli.serve import serve


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Receives spans over OTLP."""

    target: str = ""
    spans: list[Any] = field(default_factory=list)
    services: set[str] = field(default_factory=set)

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        for resource in request.resource_spans:
            self.services |= {
                one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
            }
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    receiver = Collector()
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
    receiver.target = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.target)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield receiver
    server.stop(None)


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def sync_sample(target: str) -> None:
    with DigitClient(target) as client:
        client.sample(3, seed=1)


def async_sample(target: str) -> None:
    async def sample() -> None:
        async with AsyncDigitClient(target) as client:
            await client.sample(3, seed=1)

    asyncio.run(sample())


@pytest.mark.parametrize("sample", [sync_sample, async_sample])
def test_a_clients_trace_continues_in_the_server(
    sample: Callable[[str], None], collector: Collector, exported_model: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, f"--model_base_path={exported_model}", "--port=0", "--json", "--otel") as process:
        target = json.loads(process.line())["grpc_target"]
        with TracerProvider().get_tracer("test").start_as_current_span("client") as outer:
            sample(target)
        sample(target)  # outside of the span
        assert process.end(signal.SIGTERM) == 0  # sends the spans that it has not sent yet
    context = outer.get_span_context()
    inside = [span for span in collector.spans if span.trace_id == context.trace_id.to_bytes(16)]
    assert {span.parent_span_id for span in inside} == {context.span_id.to_bytes(8)}
    assert {span.name for span in inside} == {"GetModelMetadata", "Predict"}
    assert len(collector.spans) == 2 * len(inside)
    assert collector.services == {"digitforge-serve"}
    for span in collector.spans:
        assert span.kind == span.SPAN_KIND_SERVER
        found = attributes(span)
        assert found["rpc.method"] == f"tensorflow.serving.PredictionService/{span.name}"
        assert (found["rpc.system.name"], found["rpc.response.status_code"]) == ("grpc", "OK")
        assert found["digitforge.model"] == "digits"
        assert span.end_time_unix_nano > span.start_time_unix_nano


def test_rest_requests_and_errors_have_spans(collector: Collector, base_path: Path, tmp_path: Path) -> None:
    parent = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    flags = [
        f"--model_base_path={base_path}",
        "--model-name=toy",
        "--port=0",
        f"--rest_api_port={free_port()}",
        "--json",
    ]
    with serving(tmp_path, *flags, "--otel") as process:
        announced = json.loads(process.line())
        paths = ["/v1/models/toy", "/v1/models/toy/metadata", "/v1/models/none", "/nothing?here=1"]
        for path in paths:
            request = urllib.request.Request(
                f"http://{announced['rest_target']}{path}", headers={"traceparent": parent, "x-request-id": path}
            )
            opener = urllib.request.build_opener(_AnyStatus)
            with opener.open(request, timeout=60) as answer:
                assert answer.headers["x-request-id"] == path
        stubs = connect(announced["grpc_target"])
        with pytest.raises(grpc.RpcError):
            stubs.prediction.Predict(predict_request(signature="none"), metadata=[("traceparent", parent)])
        with pytest.raises(grpc.RpcError):
            stubs.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(b"\xff", metadata=[("x", "y")])
        wait_for(lambda: len(collector.spans) == 6)  # without a stop
    found = {attributes(span)["digitforge.request_id"]: span for span in collector.spans}
    rest = [found[path] for path in paths]
    assert [span.name for span in rest] == ["GET status", "GET metadata", "GET status", "GET"]
    assert [attributes(span)["http.response.status_code"] for span in rest] == [200, 200, 404, 404]
    assert [attributes(span)["url.path"] for span in rest] == [*paths[:3], "/nothing"]
    assert {span.trace_id for span in rest} == {bytes.fromhex("ab" * 16)}
    assert {span.parent_span_id for span in rest} == {bytes.fromhex("cd" * 8)}
    refused, broken = (span for span in collector.spans if span.name == "Predict")
    assert attributes(refused)["rpc.response.status_code"] == "FAILED_PRECONDITION"
    assert attributes(broken)["rpc.response.status_code"] == "INTERNAL"
    assert broken.parent_span_id == b""
    # The server's faults are errors, and the client's are not.
    assert [span.status.code for span in (*rest, refused, broken)] == [0, 0, 0, 0, 0, trace.StatusCode.ERROR.value]


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    def http_response(self, request: Any, response: Any) -> Any:
        return response


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://192.0.2.1:4317"], ids=["refuses", "is silent"])
def test_a_collector_that_cannot_be_reached_does_not_delay_the_exit(
    endpoint: str, base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")  # the first export is at the end
    flags = [f"--model_base_path={base_path}", "--model-name=toy", "--port=0", "--json", "--grace-seconds=0"]
    with serving(tmp_path, *flags, "--otel") as process:
        stubs = connect(json.loads(process.line())["grpc_target"])
        assert stubs.sums() == [4.0, 6.0]
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(timeout=60) == 0


def test_without_the_extra_the_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch, base_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(MissingExtraError, match="--otel needs opentelemetry.*" + re.escape(install_command("otel"))):
        CliRunner().invoke(serve, [f"--model_base_path={base_path}", "--port=0", "--otel"], catch_exceptions=False)


def test_a_client_does_not_import_opentelemetry() -> None:
    code = (
        "import sys; from digitforge_client.transport.channel import trace_context; assert trace_context() == (); "
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
