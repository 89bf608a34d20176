"""Measures how the embedded server bears attacks and a stop under load: `make benchmark ARGS="-k serving_reach"`.

Each test prints its value, and fails only beyond a generous bound. The server is `digitforge serve` with the shipped
generator, in its own process.
"""

from __future__ import annotations

import gzip
import http.client
import json
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from ports import free_port
from serve_process import needs_proc, resident, serving
from serving_toys import connect, predict_request, wait_for

from digitforge_client import DigitClient
from digitforge_serving import shipped_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROWS = 1024
STREAMS = 3000
BACKLOG = 400  # below the server's limit of requests in flight
MIB = 2**20
PREDICT = "/tensorflow.serving.PredictionService/Predict"
FLAGS: dict[str, tuple[str, ...]] = {
    "alone": (),
    "batched": ("--enable_batching", f"--batching_parameters_file={shipped_config() / 'batching.config'}"),
}
either = pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)


def digits(rows: int, model: str = "digits") -> Any:
    """A request for digits."""
    inputs = {"labels": np.arange(rows) % 10, "seeds": np.arange(rows)}
    return predict_request(model=model, inputs={name: tf.constant(value, tf.int64) for name, value in inputs.items()})


@either
def test_the_next_answer_after_many_canceled_streams(flags: tuple[str, ...], tmp_path: Path) -> None:
    with serving(tmp_path, "--port=0", "--json", *flags) as process:
        target = json.loads(process.line())["grpc_target"]
        with DigitClient(target) as client:
            client.sample(1, seed=0)
            begin = time.monotonic()
            with grpc.insecure_channel(target) as channel:
                call, message = channel.unary_stream(PREDICT), digits(ROWS).SerializeToString()
                for _ in range(STREAMS // 100):
                    opened = [call(message) for _ in range(100)]
                    time.sleep(0.02)  # the server receives them
                    for stream in opened:
                        stream.cancel()
                attacked = time.monotonic()
                client.sample(1, seed=1)
                took = time.monotonic() - attacked
    print(f"{STREAMS} streams of {ROWS} rows, canceled within {attacked - begin:.1f} s; next answer after {took:.2f} s")
    assert took < 20


@either
def test_the_exit_of_a_server_with_a_backlog(flags: tuple[str, ...], tmp_path: Path) -> None:
    with serving(tmp_path, "--port=0", "--json", "--grace-seconds=5", *flags) as process:
        stubs = connect(json.loads(process.line())["grpc_target"])
        calls = [stubs.prediction.Predict.future(digits(ROWS)) for _ in range(BACKLOG)]
        wait_for(lambda: any(call.done() for call in calls))
        begin = time.monotonic()
        assert process.end(signal.SIGTERM) == 0
        took = time.monotonic() - begin
        answered = sum(call.exception() is None for call in calls)
    print(f"SIGTERM with {BACKLOG} requests, --grace-seconds=5: exit after {took:.2f} s ({answered} answered)")
    assert 0 < answered < BACKLOG
    assert took < 20


def post(target: str, body: bytes, path: str = "/v1/models/digits:predict", **headers: str) -> int:
    with closing(http.client.HTTPConnection(target, timeout=120)) as connection, suppress(BrokenPipeError):
        connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse().status
    return 0  # the server has closed the connection: the body is too large


def labels(target: str, rest: str) -> None:
    """Names of models and labels that nobody configured."""
    stubs = connect(target)
    with ThreadPoolExecutor(8) as pool:
        for number in range(2000):
            name = f"{number}" + "x" * 20_000
            future = stubs.prediction.Predict.future(digits(1, model=name))
            assert future.code() == grpc.StatusCode.NOT_FOUND
        paths = [f"/v1/models/digits/labels/{number}{'y' * 20_000}:predict" for number in range(2000)]
        assert set(pool.map(lambda path: post(rest, b"{}", path), paths)) == {400}


def inflation(target: str, rest: str) -> None:
    """Small messages that inflate to 1 GiB."""
    bomb = gzip.compress(bytes(MIB), 9) * 1024
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: post(rest, bomb, Content_Encoding="gzip"), range(32))) == {413}
    options = [("grpc.max_send_message_length", -1)]
    for _ in range(3):
        with grpc.insecure_channel(target, options=options, compression=grpc.Compression.Gzip) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(PREDICT)(bytes(1024 * MIB), timeout=240)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def documents(target: str, rest: str) -> None:
    """Documents of many small values, deeply nested ones, and too large ones."""
    size = 8 * MIB - 100
    bodies = [
        b'{"instances": [' + b"7," * (size // 2) + b"7]}",
        b'{"inputs": ' + b"[" * (size // 2) + b"]" * (size // 2) + b"}",
        b'{"instances": [' + b"{}," * (size // 3) + b"{}]}",
        b'{"instances": [' + b'"",' * (size // 3) + b'""]}',
        b'{"inputs": {"labels": [' + b"7," * (size // 4) + b'7], "seeds": [' + b"5," * (size // 4) + b"5]}}",
        b'{"instances": [' + b"7," * (25 * MIB) + b"7]}",
    ]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert set(pool.map(lambda body: post(rest, body), bodies * 2)) <= {400, 413, 0}


@needs_proc
@pytest.mark.parametrize("attack", [labels, inflation, documents])
def test_memory_after_an_attack(attack: Callable[[str, str], None], tmp_path: Path) -> None:
    file = tmp_path / "monitoring.config"
    file.write_text("prometheus_config { enable: true }")
    flags = (f"--rest_api_port={free_port()}", f"--monitoring_config_file={file}")
    with serving(tmp_path, "--port=0", "--json", *flags) as process:
        announced = json.loads(process.line())
        stubs, rest = connect(announced["grpc_target"]), announced["rest_target"]
        body = json.dumps({"instances": [{"labels": 7, "seeds": 5}] * 64}).encode()

        def honest() -> None:
            for _ in range(20):
                stubs.predict(digits(64))
                assert post(rest, body) == 200

        honest()
        before = resident(process.popen.pid)
        attack(announced["grpc_target"], rest)
        honest()
        ended = time.monotonic()
        while (after := resident(process.popen.pid)) > before and time.monotonic() < ended + 30:
            time.sleep(0.5)
        with closing(http.client.HTTPConnection(rest, timeout=60)) as connection:
            connection.request("GET", "/monitoring/prometheus/metrics")
            page = len(connection.getresponse().read())
    print(
        f"memory after {attack.__name__} ÷ before: {after / before:.2f} ({before:.0f} MB; metrics page: {page} bytes)"
    )
    assert after < 2 * before
