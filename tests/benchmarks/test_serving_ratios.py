"""What serving costs, as ratios within one run: `make benchmark ARGS="-k serving_ratios"`.

Each measurement alternates between the two things that it compares, so that a busy machine slows both. Clients are a
process of their own, written with grpc alone. Nothing is asserted about time; each line gives the median of the
ratios and their spread.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from serving_toys import connect
from tensorflow_serving.apis import predict_pb2

from digitforge_serving import shipped_models
from digitforge_serving.saved_model import SavedModel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

REPEATS = 5
#: Many clients on one loop, for a time: requests per second. Arguments: target, method, file with the request, seconds.
CROWD = """
import asyncio, sys, time
import grpc

async def main(target, method, file, seconds):
    message = open(file, "rb").read()
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.unary_unary(method)
        await call(message)
        done, end = 0, time.perf_counter() + seconds
        async def client():
            nonlocal done
            while time.perf_counter() < end:
                await call(message)
                done += 1
        await asyncio.gather(*(client() for _ in range(64)))
        print(done / seconds)

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
"""
ECHO = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc
reply = open(sys.argv[1], "rb").read()
server = grpc.server(ThreadPoolExecutor(512))
handler = grpc.unary_unary_rpc_method_handler(lambda message, context: reply)
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("echo.Echo", {"Echo": handler})])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"""
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def base_path() -> Path:
    """The shipped generator, or the one whose base path is in DIGITFORGE_BENCHMARK_MODEL."""
    given = os.environ.get("DIGITFORGE_BENCHMARK_MODEL")
    return Path(given) if given else shipped_models() / "digits"


@contextmanager
def process(*arguments: str) -> Iterator[str]:
    """A server in a process of its own, and its first line."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as popen:
        assert popen.stdout is not None
        try:
            yield popen.stdout.readline()
        finally:
            popen.kill()


@contextmanager
def served(base_path: Path, *flags: str) -> Iterator[str]:
    command = ("-m", "digitforge_client.command", "serve", f"--model_base_path={base_path}", "--port=0", "--json")
    with process(*command, *flags) as line:
        yield json.loads(line)["grpc_target"]


def request(rows: int) -> predict_pb2.PredictRequest:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "digits"
    message.inputs["labels"].CopyFrom(tf.make_tensor_proto(np.arange(rows) % 10, tf.int64))
    message.inputs["seeds"].CopyFrom(tf.make_tensor_proto(np.arange(rows), tf.int64))
    return message


def report(name: str, ratios: list[float], absolute: str) -> None:
    ratios.sort()
    print(
        f"{name:<58} {statistics.median(ratios):>6.2f}  ({ratios[0]:.2f} to {ratios[-1]:.2f}, {len(ratios)} repeats; "
        f"{absolute})"
    )
    assert ratios[0] > 0


def crowd(target: str, method: str, file: Path, seconds: float = 4.0) -> float:
    command = [sys.executable, "-c", CROWD, target, method, str(file), str(seconds)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


def test_images_through_grpc_beside_the_same_model_in_process(base_path: Path) -> None:
    rows, calls = 512, 8
    model = SavedModel(max(base_path.glob("[0-9]*"), key=lambda path: int(path.name)))
    signature = model.signatures["serving_default"]
    feeds: dict[str, Any] = {
        signature.inputs["labels"].name: np.arange(rows) % 10,
        signature.inputs["seeds"].name: np.arange(rows),
    }
    fetches = [signature.outputs[alias].name for alias in ("images", "valid")]
    message = request(rows)

    def rate(call: Any) -> float:
        with ThreadPoolExecutor(4) as pool:
            start = time.perf_counter()
            list(pool.map(lambda _: call(), range(calls)))
            return rows * calls / (time.perf_counter() - start)

    with served(base_path) as target:
        stubs = connect(target)

        def through_grpc() -> Any:
            return stubs.predict(message)

        def in_process() -> Any:
            return model.run(feeds, fetches)

        rate(through_grpc), rate(in_process)
        pairs = [(rate(through_grpc), rate(in_process)) for _ in range(REPEATS)]
    median = statistics.median(grpc_rate for grpc_rate, _ in pairs)
    report(
        "images/s, 512 rows, 4 in flight: gRPC ÷ in-process",
        [one / other for one, other in pairs],
        f"{median:,.0f} images/s",
    )


def test_single_images_with_and_without_batching_beside_an_echo(base_path: Path, tmp_path: Path) -> None:
    one, reply = tmp_path / "request", tmp_path / "reply"
    one.write_bytes(request(1).SerializeToString())
    with served(base_path) as alone, served(base_path, "--enable_batching") as batched:
        with grpc.insecure_channel(alone) as channel:
            reply.write_bytes(channel.unary_unary(PREDICT)(one.read_bytes()))
        with process("-c", ECHO, str(reply)) as port:
            echo = f"127.0.0.1:{port.strip()}"
            crowd(batched, PREDICT, one)
            rates = [
                (crowd(alone, PREDICT, one), crowd(batched, PREDICT, one), crowd(echo, "/echo.Echo/Echo", one))
                for _ in range(REPEATS)
            ]
    medians = [statistics.median(column) for column in zip(*rates, strict=True)]
    absolute = "{:,.0f} alone, {:,.0f} batched, {:,.0f} echo, requests/s".format(*medians)
    report("one image, 64 clients: batched ÷ echo", [b / e for _, b, e in rates], absolute)
    report("one image, 64 clients: batched ÷ alone", [b / a for a, b, _ in rates], absolute)


def test_start_to_first_served_image(base_path: Path) -> None:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        with served(base_path) as target:
            connect(target).predict(request(1))
            times.append(time.perf_counter() - start)
    print(f"start to first served image: {statistics.median(times):.1f} s ({min(times):.1f} to {max(times):.1f})")
