"""Busy servers: both clients retry with fewer requests, and succeed."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from digitforge_client import (
    AsyncDigitClient,
    DigitClient,
    Limits,
    RequestRejectedError,
    Retry,
    ServerBusyError,
    ServerTimeoutError,
    ServerUnavailableError,
    Timeout,
)
from digitforge_client.protocol import connection
from digitforge_client.testing import FakeTransport

Code = grpc.StatusCode
ONCE = Retry(attempts=1)
BUSY = [
    (Code.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted"),  # TensorFlow Serving
    (Code.RESOURCE_EXHAUSTED, ""),  # TensorFlow Serving too
    (Code.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"),  # `digitforge serve`
    (Code.UNAVAILABLE, "The batch scheduling queue to which this task was submitted is full; currently 1 batches …"),
]


@pytest.mark.parametrize(("code", "text"), BUSY)
def test_requests_to_a_busy_server_are_repeated(server: Any, formula: Any, code: Any, text: str) -> None:
    with DigitClient(server.target, retry=ONCE, limits=Limits(rows_per_request=10)) as client:
        server.failures = [(code, text)] * 3
        batch = client.sample(100, seed=5)
        np.testing.assert_array_equal(batch.images, formula(batch.labels, batch.seeds)[..., 0])
        server.failures = [(code, text)] * 3
        np.testing.assert_array_equal(client.fetch(batch).images, batch.images)
        assert server.failures == []


@pytest.mark.parametrize(("code", "text"), BUSY)
def test_a_server_that_stays_busy_is_finally_an_error(server: Any, code: Any, text: str) -> None:
    server.failures = [(code, text)] * 1000
    with DigitClient(server.target, retry=ONCE, timeout=Timeout(outage_s=0.5)) as client:
        with pytest.raises(ServerBusyError, match=r"too busy .*Limits\(requests_in_flight=…\)") as caught:
            list(client.stream(10))
        asked = len(server.requests)
    assert asked > 1
    assert isinstance(caught.value, ServerUnavailableError)
    assert caught.value.retryable
    assert (caught.value.code, caught.value.details, caught.value.exit_status) == (code.name, text, 3)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (ServerBusyError, str(caught.value))


def test_a_sample_retries_a_busy_server_until_request_s(server: Any) -> None:
    with DigitClient(server.target, retry=ONCE, timeout=Timeout(request_s=2, outage_s=None)) as client:
        client.card()
        server.failures = [BUSY[0]] * 1000
        with pytest.raises(ServerBusyError):
            client.sample(10)
    assert len(server.requests) > 1


@pytest.mark.parametrize(
    "text",
    [
        "Received message larger than max (5242880 vs. 4194304)",
        "gRPC message exceeds maximum size 4194304: 5242880",
        "OOM when allocating tensor with shape[1024,64,28,28] and type float",
    ],
)
def test_errors_that_a_retry_cannot_solve_are_final(server: Any, text: str) -> None:
    server.failures = [(Code.RESOURCE_EXHAUSTED, text)] * 2
    with DigitClient(server.target) as client, pytest.raises(RequestRejectedError):
        list(client.stream(10))
    assert len(server.requests) == 1


def test_an_answer_that_is_too_large_is_final(server: Any) -> None:
    server.image_shape = (56, 56, 1)
    client = DigitClient(server.target, limits=Limits(message_mib=1, rows_per_request=1024))
    with client, pytest.raises(RequestRejectedError, match=r"Limits\(message_mib=…\)"):
        list(client.stream(1024))
    assert len(server.requests) == 1


# --- real busy servers


def rows_of_streams(target: str, n: int, *, streams: int, asynchronous: bool, **options: Any) -> list[list[int]]:
    """Return the row seeds of concurrent streams. Each stream has its own client."""
    if asynchronous:

        async def rows(seed: int) -> list[int]:
            async with AsyncDigitClient(target, **options) as client:
                return [row async for batch in client.stream(n, seed=seed) for row in batch.seeds.tolist()]

        async def together() -> list[list[int]]:
            return await asyncio.gather(*map(rows, range(streams)))

        return asyncio.run(together())

    def rows_(seed: int) -> list[int]:
        with DigitClient(target, **options) as client:
            return [row for batch in client.stream(n, seed=seed) for row in batch.seeds.tolist()]

    with ThreadPoolExecutor(streams) as pool:
        return list(pool.map(rows_, range(streams)))


def expected(n: int, streams: int) -> list[list[int]]:
    return [[seed * 2**32 + row for row in range(n)] for seed in range(streams)]


@pytest.fixture(scope="module")
def embedded(exported_model: Path) -> Iterator[str]:
    """An embedded server that accepts two requests at once."""
    from digitforge_serving import EmbeddedServer

    with EmbeddedServer(exported_model, max_requests=2) as target:
        yield target


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_delivers_every_row_from_a_server_that_accepts_two_requests(embedded: str, asynchronous: bool) -> None:
    assert rows_of_streams(embedded, 6000, streams=1, asynchronous=asynchronous) == expected(6000, 1)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("at_once", [1, 2])
def test_many_streams_share_a_busy_server(start_server: Any, at_once: int, asynchronous: bool) -> None:
    server = start_server(at_once=at_once)
    assert rows_of_streams(server.target, 3000, streams=6, asynchronous=asynchronous) == expected(3000, 6)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_server_with_a_full_batch_queue_counts_as_busy(exported_model: Path, asynchronous: bool) -> None:
    from digitforge_serving import EmbeddedServer
    from digitforge_serving.config.options import BatchingOptions

    batching = BatchingOptions(max_batch_size=256, max_enqueued_batches=1, num_batch_threads=1)
    with EmbeddedServer(exported_model, batching=batching) as target:
        # the client waits for a busy server, but not for one that is away
        options = {"retry": ONCE, "timeout": Timeout(outage_s=0)}
        rows = rows_of_streams(target, 1000, streams=4, asynchronous=asynchronous, **options)
    assert rows == expected(1000, 4)


CALLS: dict[str, Callable[[DigitClient], Any]] = {
    "sample": lambda client: client.sample(1000, seed=1),
    "truncated": lambda client: client.sample(1000, seed=1, truncation=0.5),
    "fetch": lambda client: client.fetch([(7, row) for row in range(1000)]),
    "latents": lambda client: client.latents(np.arange(5000)),
    "interpolate": lambda client: client.interpolate((1, 2), (3, 4), steps=1000),
    "seen": lambda client: client.seen(np.arange(5000)),
    "card": lambda client: client.card(),
    "metadata": lambda client: client.metadata(),
    "wait_ready": lambda client: client.wait_ready(60),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_method_succeeds_with_a_busy_server(embedded: str, call: str) -> None:
    def ask(_: int) -> None:
        with DigitClient(embedded) as client:
            CALLS[call](client)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(6)))


# --- number of requests in flight


class Crowded(FakeTransport):
    """A fake that counts the pending requests for digits."""

    def __init__(self) -> None:
        super().__init__()
        self.in_flight: list[int] = []  # number of pending requests, recorded at each request, including it
        self._pending = 0
        self._lock = threading.Lock()

    def send(self, method: Any, request: Any, **options: Any) -> Any:
        pending = super().send(method, request, **options)
        if "seeds" in getattr(request, "inputs", ()):
            self._pending += 1
            self.in_flight.append(self._pending)
            result = pending.result

            def received() -> Any:
                self._pending -= 1
                return result()

            pending.result = received  # type: ignore[method-assign]
        return pending


def test_fewer_requests_are_in_flight_while_the_server_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, limits = Crowded(), Limits(rows_per_request=10, requests_in_flight=8)
    client = DigitClient(transports=[fake], limits=limits)
    monkeypatch.setattr(connection, "_CALM_S", float("inf"))
    client.sample(300)
    assert max(fake.in_flight) == 8
    fake.failures, fake.in_flight = [ServerBusyError("busy")], []
    client.sample(300)
    assert max(fake.in_flight) == 8
    fake.in_flight = []
    client.sample(300)
    assert max(fake.in_flight) == 4
    for most in (2, 1, 1):
        fake.failures, fake.in_flight = [ServerBusyError("busy")], []
        client.sample(5)
        client.sample(300)
        assert max(fake.in_flight) == most
    monkeypatch.setattr(connection, "_CALM_S", -1.0)
    fake.in_flight = []
    client.sample(300)
    assert max(fake.in_flight) == 8


def test_a_burst_of_busy_answers_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CALM_S", float("inf"))
    fake, limits = Crowded(), Limits(rows_per_request=10, requests_in_flight=8)
    client = DigitClient(transports=[fake], limits=limits)
    client.card()
    fake.failures = [ServerBusyError("busy")] * 8
    client.sample(80)
    fake.in_flight = []
    client.sample(300)
    assert max(fake.in_flight) == 4


def test_another_target_is_tried_at_once_if_one_is_busy(start_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    busy, idle = start_server(), start_server()
    busy.failures = [BUSY[0]] * 1000
    monkeypatch.setattr(connection, "_FIRST_PAUSE_S", 1000.0)  # the test would hang in a pause
    with DigitClient([busy.target, idle.target], limits=Limits(rows_per_request=10)) as client:
        assert len(client.sample(100)) == 100


def test_wait_ready_says_that_the_server_is_busy() -> None:
    class Busy(FakeTransport):
        def _answer(self, method: Any, request: Any) -> Any:
            raise ServerBusyError("the server at fake is too busy")

    with pytest.raises(ServerTimeoutError, match=r"not ready after 0\.3 s: the server at fake is too busy"):
        DigitClient(transports=[Busy()]).wait_ready(0.3)
