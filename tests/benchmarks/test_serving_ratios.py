"""Compares the speed of serving with simpler alternatives: `make benchmark ARGS="-k serving_ratios"`.

Each measurement alternates between its two sides, so a busy machine slows both. Clients run in their own process and
use only grpc. Each line of the output has the median and the range of the ratios. No test depends on time. Wall times
depend on other work on the machine, so some lines compare the processor time of client and server per request.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from serving_toys import connect
from tensorflow_serving.apis import predict_pb2

from digitforge_serving import shipped_config, shipped_models
from digitforge_serving.config.options import read_batching_options
from digitforge_serving.models.batching import Batcher, Caller
from digitforge_serving.models.saved_model import SavedModel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

REPEATS = 5
#: 64 clients on one event loop. Arguments: target, method, file of the request, seconds, total number of requests,
#: requests per second; 0 means no limit. Latency is measured from the scheduled time of the request.
CROWD = """
import asyncio, json, sys, time
import grpc

CLIENTS = 64

async def main(target, method, file, seconds, total, rate):
    message = open(file, "rb").read()
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.unary_unary(method)
        await call(message)
        done, latencies, cpu, begin = 0, [], time.process_time(), time.perf_counter()
        async def client(number):
            nonlocal done
            due = begin + (number / rate if rate else 0)
            while not (total and done >= total):
                if rate:
                    await asyncio.sleep(due - time.perf_counter())
                else:
                    due = time.perf_counter()
                if seconds and time.perf_counter() - begin >= seconds:
                    break
                done += 1
                await call(message)
                latencies.append(time.perf_counter() - due)
                due += CLIENTS / rate if rate else 0
        await asyncio.gather(*(client(number) for number in range(CLIENTS)))
        took, latencies = time.perf_counter() - begin, sorted(latencies)
        print(json.dumps({
            "rate": done / took, "done": done, "cpu": time.process_time() - cpu,
            "p99": latencies[len(latencies) * 99 // 100],
        }))

asyncio.run(main(*sys.argv[1:4], *map(float, sys.argv[4:])))
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
    """Base path of the shipped generator, or DIGITFORGE_BENCHMARK_MODEL."""
    given = os.environ.get("DIGITFORGE_BENCHMARK_MODEL")
    return Path(given) if given else shipped_models() / "digits"


@dataclass
class Running:
    """A server in another process."""

    process: int  #: process id
    target: str

    def cpu(self) -> float:
        """Processor time so far, in seconds."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """Resident memory in MB."""
        pages = Path(f"/proc/{self.process}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def process(*arguments: str) -> Iterator[tuple[int, str]]:
    """Run Python with these arguments; yield the process id and the first line of output."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as popen:
        assert popen.stdout is not None
        try:
            yield popen.pid, popen.stdout.readline()
        finally:
            popen.kill()


@contextmanager
def served(base_path: Path, *flags: str) -> Iterator[Running]:
    command = (
        "-m",
        "digitforge",
        "serve",
        f"--model_base_path={base_path}",
        "--port=0",
        "--json",
    )
    # Raw bytes, so the comparison is about servers and not about encodings of images.
    with process(*command, "--enable_serialization_as_tensor_content", *flags) as (number, line):
        yield Running(number, json.loads(line)["grpc_target"])


def batching() -> tuple[str, str]:
    """The flags of the compose file."""
    return "--enable_batching", f"--batching_parameters_file={shipped_config() / 'batching.config'}"


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


@dataclass
class Crowd:
    """Measurements of 64 parallel clients."""

    rate: float  #: requests per second
    cpu: float  #: processor time per request, of client and server together, in seconds
    p99: float  #: 99th percentile of the latency, in seconds


def crowd(
    server: Running, file: Path, *, method: str = PREDICT, seconds: float = 4.0, total: int = 0, rate: float = 0.0
) -> Crowd:
    before = server.cpu()
    command = [sys.executable, "-c", CROWD, server.target, method, str(file), str(seconds), str(total), str(rate)]
    seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=1700).stdout)
    return Crowd(seen["rate"], (seen["cpu"] + server.cpu() - before) / seen["done"], seen["p99"])


class InProcess:
    """The signature `serving_default` of the newest version in a base path, called without a server."""

    def __init__(self, base_path: Path, rows: int) -> None:
        self.model = SavedModel(max(base_path.glob("[0-9]*"), key=lambda path: int(path.name)))
        signature = self.model.signatures["serving_default"]
        self.feeds: dict[str, Any] = {
            signature.inputs["labels"].name: np.arange(rows) % 10,
            signature.inputs["seeds"].name: np.arange(rows),
        }
        self.fetches = [signature.outputs[alias].name for alias in ("images", "valid")]

    def __call__(self) -> Any:
        return self.model.run(self.feeds, self.fetches)


def test_images_over_grpc_compared_with_the_same_model_in_process(base_path: Path) -> None:
    rows, calls = 512, 8
    in_process, message = InProcess(base_path, rows), request(rows)

    def rate(call: Any) -> float:
        with ThreadPoolExecutor(4) as pool:
            start = time.perf_counter()
            list(pool.map(lambda _: call(), range(calls)))
            return rows * calls / (time.perf_counter() - start)

    with served(base_path) as server:
        stubs = connect(server.target)

        def through_grpc() -> Any:
            return stubs.prediction.Predict(message, timeout=300)

        rate(through_grpc), rate(in_process)
        pairs = [(rate(through_grpc), rate(in_process)) for _ in range(REPEATS)]
    median = statistics.median(grpc_rate for grpc_rate, _ in pairs)
    report(
        "images/s, 512 rows, 4 in flight: gRPC ÷ in-process",
        [one / other for one, other in pairs],
        f"{median:,.0f} images/s",
    )


def test_single_images_with_and_without_batching_compared_with_an_echo(base_path: Path, tmp_path: Path) -> None:
    one, reply = tmp_path / "request", tmp_path / "reply"
    one.write_bytes(request(1).SerializeToString())
    with served(base_path) as alone, served(base_path, *batching()) as batched:
        with grpc.insecure_channel(alone.target) as channel:
            reply.write_bytes(channel.unary_unary(PREDICT)(one.read_bytes()))
        with process("-c", ECHO, str(reply)) as (number, port):
            echo = Running(number, f"127.0.0.1:{port.strip()}")
            crowd(batched, one)
            seen = [
                (crowd(alone, one), crowd(batched, one), crowd(echo, one, method="/echo.Echo/Echo"))
                for _ in range(REPEATS)
            ]
    rates = [statistics.median(one.rate for one in column) for column in zip(*seen, strict=True)]
    costs = [1e3 * statistics.median(one.cpu for one in column) for column in zip(*seen, strict=True)]
    graph = 1e3 * _graph_seconds(base_path)
    absolute = "{:,.0f} alone, {:,.0f} batched, {:,.0f} echo, requests/s".format(*rates)
    spent = "{:.2f} alone, {:.2f} batched, {:.2f} echo, ms of processor time per request".format(*costs)
    report("one image, 64 clients: batched ÷ echo", [b.rate / e.rate for _, b, e in seen], absolute)
    report("one image, 64 clients: batched ÷ alone", [b.rate / a.rate for a, b, _ in seen], absolute)
    report("the same in processor time: batched ÷ echo", [e.cpu / b.cpu for _, b, e in seen], spent)
    print(
        f"  the graph alone takes {graph:.2f} ms of processor time per image in batches of 32. Without any cost of "
        f"serving, batched ÷ echo would be {costs[2] / (costs[2] + graph):.2f}"
    )


def _graph_seconds(base_path: Path) -> float:
    """Processor time of the graph per image, in batches of 32, in seconds."""
    graph, calls = InProcess(base_path, 32), 20
    graph()
    start = time.process_time()
    for _ in range(calls):
        graph()
    return (time.process_time() - start) / (32 * calls)


def test_latency_at_half_the_maximum_rate(base_path: Path, tmp_path: Path) -> None:
    one = tmp_path / "request"
    one.write_bytes(request(1).SerializeToString())
    graph = InProcess(base_path, 1)
    batcher = Batcher(graph.model.run, read_batching_options(shipped_config() / "batching.config"))

    def in_process(rate: float, seconds: float) -> float:
        latencies: list[float] = []
        begin = time.perf_counter()

        def client(number: int) -> None:
            due = begin + number / rate
            while due < begin + seconds:
                time.sleep(max(0.0, due - time.perf_counter()))
                batcher(graph.feeds, graph.fetches, Caller())
                latencies.append(time.perf_counter() - due)
                due += 64 / rate

        with ThreadPoolExecutor(64) as pool:
            list(pool.map(client, range(64)))
        return sorted(latencies)[len(latencies) * 99 // 100]

    with served(base_path, *batching()) as server:
        crowd(server, one)
        rate = crowd(server, one).rate / 2
        in_process(rate, 2.0)
        pairs = [(crowd(server, one, rate=rate, seconds=6.0).p99, in_process(rate, 6.0)) for _ in range(REPEATS)]
    through, direct = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    absolute = f"{rate:,.0f} requests/s; {through:.0f} ms and {direct:.0f} ms"
    report("one image, half the maximum rate: p99, gRPC ÷ in-process", [a / b for a, b in pairs], absolute)


def test_memory_after_many_requests(base_path: Path, tmp_path: Path) -> None:
    one = tmp_path / "request"
    one.write_bytes(request(1).SerializeToString())
    with served(base_path, *batching()) as server:
        crowd(server, one, seconds=0, total=1_000)
        few = server.resident()
        crowd(server, one, seconds=0, total=99_000)
        many = server.resident()
    report("memory after 100 000 requests ÷ after 1 000", [many / few], f"{few:,.0f} MB, then {many:,.0f} MB")


def test_start_to_first_served_image(base_path: Path) -> None:
    times, costs = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        with served(base_path) as server:
            connect(server.target).predict(request(1))
            times.append(time.perf_counter() - start)
            costs.append(server.cpu())
    print(
        f"start to first served image: {statistics.median(times):.1f} s ({min(times):.1f} to {max(times):.1f}, "
        f"{REPEATS} repeats); {statistics.median(costs):.1f} s of processor time"
    )
