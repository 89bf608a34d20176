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
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from ports import free_port
from serve_process import busy_s, needs_proc, serving
from serving_toys import connect, predict_request, wait_for

from digitforge_serving import ModelSource, Server, ServerOptions
from digitforge_serving.config.options import PROMETHEUS_PATH, BatchingOptions
from digitforge_serving.models.batching import Caller, Unbatched

#: Below the server's default limit of 512 requests.
CALLS = 400
#: Takes a few hundredths of a second.
SLOW = predict_request(signature="slow", inputs={"x": [100.0]})


def total(rest_target: str, series: str) -> int:
    """The sum of a metric over all matching labels."""
    with urllib.request.urlopen(f"http://{rest_target}{PROMETHEUS_PATH}", timeout=60) as page:
        return sum(int(number) for number in re.findall(rf"^{series} (\d+)$", page.read().decode(), re.MULTILINE))


def computed(rest_target: str) -> int:
    return total(rest_target, r":tensorflow:serving:runtime_latency_count\{.*\}")


def given_up(rest_target: str) -> int:
    return total(rest_target, r':tensorflow:serving:request_count\{.*status="CANCELLED"\}')


#: Options of a server that computes one request or one batch at a time.
ONE_AT_A_TIME: dict[str, dict[str, Any]] = {
    "alone": {"grpc_max_threads": 1},
    "batched": {"batching": BatchingOptions(max_batch_size=1, max_enqueued_batches=CALLS, num_batch_threads=1)},
}


@pytest.fixture(params=ONE_AT_A_TIME)
def busy(request: pytest.FixtureRequest, base_path: Path) -> Iterator[Server]:
    options = ServerOptions(port=0, rest_api_port=0, metrics_path=PROMETHEUS_PATH, **ONE_AT_A_TIME[request.param])
    server = Server([ModelSource(name="toy", base_path=base_path)], options)
    assert server.start()
    yield server
    server.stop(0)


@pytest.fixture(params=ONE_AT_A_TIME)
def flags(request: pytest.FixtureRequest, base_path: Path, tmp_path: Path) -> list[str]:
    """Flags to serve the toy, one request or batch at a time."""
    common = ["--port=0", "--json", f"--model_base_path={base_path}", "--model-name=toy"]
    if request.param == "alone":
        return [*common, "--grpc_max_threads=1"]
    file = tmp_path / "batching.config"
    file.write_text(
        f"max_batch_size {{ value: 1 }} max_enqueued_batches {{ value: {CALLS} }} num_batch_threads {{ value: 1 }}"
    )
    return [*common, "--enable_batching", f"--batching_parameters_file={file}"]


def test_cancelled_calls_are_not_computed_and_do_not_delay_others(busy: Server) -> None:
    rest, stubs = str(busy.rest_target), connect(str(busy.target))
    before = computed(rest)

    def open_and_cancel() -> int:
        calls = [stubs.prediction.Predict.future(SLOW) for _ in range(CALLS)]
        wait_for(lambda: any(call.done() for call in calls))  # then the other calls wait at the server
        for call in calls:
            call.cancel()
        return given_up(rest)

    wait_for(lambda: open_and_cancel() >= CALLS)
    reply = stubs.prediction.Predict(predict_request(inputs={"a": [1.0], "b": [2.0]}))
    assert list(reply.outputs["sum"].float_val) == [3.0]
    assert computed(rest) - before < given_up(rest) / 4


def test_sigterm_stops_a_server_with_a_backlog_after_the_grace_period(flags: list[str], tmp_path: Path) -> None:
    folders = [tmp_path / f"call {number}" for number in range(CALLS)]
    for folder in folders:
        folder.mkdir()

    def begun() -> list[Path]:
        return [folder for folder in folders if (folder / "begun").exists()]

    with serving(tmp_path, *flags, "--grace-seconds=1") as process:
        stubs = connect(json.loads(process.line())["grpc_target"])
        calls = [
            stubs.prediction.Predict.future(
                predict_request(signature="gated", inputs={"folder": np.array([str(folder)], object)})
            )
            for folder in folders
        ]
        wait_for(lambda: bool(begun()))
        (begun()[0] / "open").touch()
        wait_for(lambda: any(call.done() for call in calls))  # then the other calls wait at the server
        assert process.end(signal.SIGTERM) == 0
        assert sum(call.exception() is not None for call in calls) > CALLS / 2
        assert len(begun()) < CALLS / 4
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
    return (
        f"POST /v1/models/toy:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        + content
    )


def test_a_request_of_a_disconnected_rest_client_is_not_computed(server: Server, turns: Unbatched) -> None:
    assert server.rest_target is not None
    host, _, port = server.rest_target.rpartition(":")
    before = computed(server.rest_target)
    assert turns._enter(Caller())  # takes the only slot
    with closing(socket.create_connection((host, int(port)))) as connection:
        connection.sendall(post({"inputs": {"a": [1], "b": [2]}}))
        wait_for(lambda: len(turns._waiting) == 1)
    wait_for(lambda: not turns._waiting)  # it leaves the queue although the slot is still taken
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
