"""Measures the speed of the client and the embedded server with the shipped generator: `make benchmark`.

Each line of the output has the median and the range of the repeats. No test depends on time.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata

import pytest

from digitforge_client import DigitClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

REPEATS = 5


@pytest.fixture(scope="module", autouse=True)
def machine() -> None:
    versions = " ".join(f"{name} {metadata.version(name)}" for name in ("digitforge", "tensorflow", "grpcio", "numpy"))
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}")


@pytest.fixture(scope="module")
def client() -> Iterator[DigitClient]:
    """A client of the embedded server, which runs in another process with the shipped generator."""
    command = [sys.executable, "-m", "digitforge", "serve", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            with DigitClient(json.loads(server.stdout.readline())["grpc_target"]) as client:
                client.wait_ready()
                yield client
        finally:
            server.terminate()


def report(name: str, unit: str, measure: Callable[[], float], *, repeats: int = REPEATS) -> None:
    measure()  # warm-up: caches, connections
    values = sorted(measure() for _ in range(repeats))
    print(
        f"{name:<52} {statistics.median(values):>10,.1f} {unit:<9} "
        f"({values[0]:,.1f} to {values[-1]:,.1f}, {repeats} repeats)"
    )
    assert values[0] > 0


def seconds(action: Callable[[], object]) -> float:
    before = time.perf_counter()
    action()
    return time.perf_counter() - before


def import_time(module: str) -> float:
    script = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return 1000 * float(done.stdout)


def test_import_time_of_the_client() -> None:
    report("import digitforge_client, fresh process", "ms", lambda: import_time("digitforge_client"))
    official = "tensorflow_serving.apis.prediction_service_pb2_grpc"
    report("import the official stubs, fresh process", "ms", lambda: import_time(official))


def test_one_digit(client: DigitClient) -> None:
    report("one digit, request to image", "ms", lambda: 1000 * seconds(lambda: client.sample(1, seed=1)), repeats=50)


@pytest.mark.parametrize("n", [64, 1024, 10_000])
def test_many_digits(client: DigitClient, n: int) -> None:
    report(f"{n:,} digits in one call", "images/s", lambda: n / seconds(lambda: client.sample(n, seed=1)))


def test_a_stream(client: DigitClient) -> None:
    n = 20_000
    report(
        f"a stream of {n:,} digits",
        "images/s",
        lambda: n / seconds(lambda: [len(batch) for batch in client.stream(n, seed=1)]),
        repeats=3,
    )
