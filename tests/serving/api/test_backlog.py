"""Cancelled and expired requests are not computed, and a stopping server does not work off its queue.

The tests count computed requests with the server's metrics or by the replies.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from serve_process import serving
from serving_toys import connect, free_port, predict_request, wait_for
from tensorflow_serving.apis import predict_pb2

from digitforge_client import DigitClient, Timeout
from digitforge_client.contract import MAX_ROWS
from digitforge_serving import ModelSource, Server, ServerOptions, shipped_config
from digitforge_serving.config.options import PROMETHEUS_PATH
from digitforge_serving.models.batching import Caller, Unbatched

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc (Linux)")
#: Below the server's default limit of 512 requests.
CALLS = 400
#: A tensor that repeats its only value. The message is short, so all calls reach the server almost together.
_REPEATED = f"dtype: DT_INT64 tensor_shape {{ dim {{ size: {MAX_ROWS} }} }} int64_val: 7"
LARGEST = text_format.Parse(
    f"model_spec {{ name: 'digits' }} inputs {{ key: 'labels' value {{ {_REPEATED} }} }} "
    f"inputs {{ key: 'seeds' value {{ {_REPEATED} }} }}",
    predict_pb2.PredictRequest(),
)


def total(rest_target: str, series: str) -> int:
    """The sum of a metric over all matching labels."""
    with urllib.request.urlopen(f"http://{rest_target}{PROMETHEUS_PATH}", timeout=60) as page:
        return sum(int(number) for number in re.findall(rf"^{series} (\d+)$", page.read().decode(), re.MULTILINE))


def computed(rest_target: str) -> int:
    return total(rest_target, r":tensorflow:serving:runtime_latency_count\{.*\}")


def given_up(rest_target: str) -> int:
    return total(rest_target, r':tensorflow:serving:request_count\{.*status="CANCELLED"\}')


def busy_s(process: int) -> float:
    """Processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(params=["alone", "batched"])
def flags(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Flags to serve the shipped generator, one request or batch at a time, with metrics."""
    common = [
        "--port=0",
        "--json",
        f"--rest_api_port={free_port()}",
        f"--monitoring_config_file={shipped_config() / 'monitoring.config'}",
    ]
    if request.param == "alone":
        return [*common, "--grpc_max_threads=1"]
    file = tmp_path / "batching.config"
    file.write_text(
        f"max_batch_size {{ value: {MAX_ROWS} }} max_enqueued_batches {{ value: {CALLS} }} "
        "num_batch_threads { value: 1 }"
    )
    return [*common, "--enable_batching", f"--batching_parameters_file={file}"]


@pytest.mark.timeout(600)
def test_cancelled_calls_are_not_computed_and_do_not_delay_others(flags: list[str], tmp_path: Path) -> None:
    with serving(tmp_path, *flags) as process:
        announced = json.loads(process.line())
        rest, stubs = announced["rest_target"], connect(announced["grpc_target"])
        before = computed(rest)

        def open_and_cancel() -> int:
            calls = [stubs.prediction.Predict.future(LARGEST) for _ in range(CALLS)]
            wait_for(lambda: any(call.done() for call in calls))  # then the other calls wait at the server
            for call in calls:
                call.cancel()
            return given_up(rest)

        wait_for(lambda: open_and_cancel() >= CALLS)
        with DigitClient(announced["grpc_target"], timeout=Timeout(request_s=120)) as client:
            assert len(client.sample(64, seed=1)) == 64
        assert computed(rest) - before < given_up(rest) / 4


@pytest.mark.timeout(600)
def test_sigterm_stops_a_server_with_a_backlog_after_the_grace_period(flags: list[str], tmp_path: Path) -> None:
    with serving(tmp_path, *flags, "--grace-seconds=2") as process:
        stubs = connect(json.loads(process.line())["grpc_target"])
        start = time.monotonic()
        stubs.predict(LARGEST)
        alone_s = time.monotonic() - start
        calls = [stubs.prediction.Predict.future(LARGEST) for _ in range(CALLS)]
        wait_for(lambda: any(call.done() for call in calls))
        start = time.monotonic()
        assert process.end(signal.SIGTERM) == 0
        took_s = time.monotonic() - start
        unanswered = sum(call.exception() is not None for call in calls)
        assert unanswered > CALLS / 2
        assert took_s < 2 + 2 + unanswered * alone_s / 4  # much less time than computing them takes
        assert "Traceback" not in process.stderr.read_text()


@needs_proc
@pytest.mark.parametrize(
    ("signature", "size"),
    [("slow", 1e9), ("stubborn", 6000.0)],
    ids=["many operations", "a single operation, which cannot be cancelled"],
)
def test_sigterm_ends_a_computation_that_exceeds_the_grace_period(
    signature: str, size: float, base_path: Path, tmp_path: Path
) -> None:
    flags = [f"--model_base_path={base_path}", "--model-name=toy", "--port=0", "--json", "--grace-seconds=1"]
    with serving(tmp_path, *flags, f"--rest_api_port={free_port()}") as process:
        announced = json.loads(process.line())
        stubs = connect(announced["grpc_target"])
        minutes = predict_request(signature=signature, inputs={"x": [size]})
        call = stubs.prediction.Predict.future(minutes)
        host, _, port = announced["rest_target"].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(post({"signature_name": signature, "inputs": [size]}))
            before_s = busy_s(process.popen.pid)
            wait_for(lambda: busy_s(process.popen.pid) > before_s + 1)  # the computation runs
            assert process.end(signal.SIGTERM) == 0
        assert isinstance(call.exception(timeout=60), grpc.RpcError)


@needs_proc
def test_sigterm_delivered_to_any_thread_stops_the_server(base_path: Path, tmp_path: Path) -> None:
    """With many threads, the kernel does not always deliver a signal to the main thread."""
    with serving(tmp_path, f"--model_base_path={base_path}", "--model-name=toy", "--port=0") as process:
        process.line()
        threads = [int(path.name) for path in Path(f"/proc/{process.popen.pid}/task").iterdir()]
        os.kill(next(thread for thread in threads if thread != process.popen.pid), signal.SIGTERM)
        assert process.end() == 0


@pytest.fixture
def server(base_path: Path) -> Iterator[Server]:
    options = ServerOptions(port=0, rest_api_port=0, metrics_path=PROMETHEUS_PATH, grpc_max_threads=1)
    server = Server([ModelSource(name="toy", base_path=base_path)], options)
    assert server.start()
    yield server
    server.stop(0)


@pytest.fixture
def turns(server: Server) -> Unbatched:
    assert server._models is not None
    compute = server._models.find(predict_request().model_spec).compute
    assert isinstance(compute, Unbatched)
    return compute


def post(body: Any) -> bytes:
    content = json.dumps(body).encode()
    return f"POST /v1/models/toy:predict HTTP/1.1\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def test_a_request_of_a_disconnected_rest_client_is_not_computed(server: Server, turns: Unbatched) -> None:
    assert server.rest_target is not None
    host, _, port = server.rest_target.rpartition(":")
    before = computed(server.rest_target)
    assert turns._enter(Caller())  # takes the only slot
    with closing(socket.create_connection((host, int(port)))) as connection:
        connection.sendall(post({"inputs": {"a": [1], "b": [2]}}))
        wait_for(lambda: len(turns._waiting) == 1)
    turns._release()
    wait_for(lambda: given_up(str(server.rest_target)) == 1)
    assert computed(server.rest_target) == before


def test_a_rest_client_that_sends_its_next_request_is_not_taken_for_disconnected(
    server: Server, turns: Unbatched
) -> None:
    assert server.rest_target is not None
    host, _, port = server.rest_target.rpartition(":")
    assert turns._enter(Caller())
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(post({"inputs": {"a": [1], "b": [2]}}))
        wait_for(lambda: len(turns._waiting) == 1)
        connection.sendall(post({"inputs": {"a": [3], "b": [4]}}))
        turns._release()
        replies = b""
        while replies.count(b"product") < 2:
            replies += connection.recv(4096)
    assert replies.count(b"200 OK") == 2


def test_a_rest_request_that_waits_past_its_timeout_is_not_computed(base_path: Path) -> None:
    options = ServerOptions(port=0, rest_api_port=0, rest_api_timeout_in_ms=100, grpc_max_threads=1)
    server = Server([ModelSource(name="toy", base_path=base_path)], options)
    try:
        assert server.start()
        assert server._models is not None
        assert server.rest_target is not None
        turns = server._models.find(predict_request().model_spec).compute
        assert isinstance(turns, Unbatched)
        assert turns._enter(Caller())
        with closing(http.client.HTTPConnection(server.rest_target, timeout=60)) as connection:
            connection.request("POST", "/v1/models/toy:predict", json.dumps({"inputs": {"a": [1], "b": [2]}}))
            answer = json.load(connection.getresponse())  # while the slot is still taken
        assert answer == {"error": "Deadline Exceeded"}
        assert not turns._waiting
    finally:
        server.stop(0)
