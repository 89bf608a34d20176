"""A bad network between client and server: every digit still arrives exactly once, in order, unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digitforge_client import (
    AsyncDigitClient,
    Compression,
    DigitClient,
    Keepalive,
    Limits,
    Retry,
    ServerTimeoutError,
    ServerUnavailableError,
    Timeout,
)

FAULTS = ("cut", "reset", "half-close", "black hole", "throttle", "delay")


class Proxy:
    """Forwards TCP to a server, and injects faults into its connections."""

    def __init__(self, target: str) -> None:
        self._host, port = target.rsplit(":", 1)
        self._port = int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self.delay_s = 0.0  # pause before each block of data
        self.dropping = False  # drop all data without a notice
        self._dropped: set[socket.socket] = set()  # connections that drop all data from now on
        self.connections = 0
        self.bytes_up = self.bytes_down = 0  # bytes forwarded to the server and from it
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((self._host, self._port))
                with self._lock:
                    self.connections += 1
                    self._pairs.append((near, far))
                for source, sink, up in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._forward, args=(source, sink, up), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.delay_s:
                    time.sleep(self.delay_s)
                if self.dropping or source in self._dropped:
                    self._dropped |= {source, sink}
                    continue
                sink.sendall(data)
                with self._lock:
                    if up:
                        self.bytes_up += len(data)
                    else:
                        self.bytes_down += len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def inject(self, fault: str) -> None:
        """Inject a fault into all current connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        if fault == "throttle":
            self.delay_s = 0.002
        elif fault == "delay":
            self.delay_s = 0.05
            time.sleep(0.1)
            self.delay_s = 0.0
        else:
            self.delay_s = 0.0
        if fault in ("throttle", "delay"):
            with self._lock:
                self._pairs += pairs
            return
        for near, far in pairs:
            with contextlib.suppress(OSError):
                if fault == "half-close":
                    near.shutdown(socket.SHUT_WR)
                elif fault == "black hole":
                    self._dropped |= {near, far}
                else:
                    if fault == "reset":
                        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    near.shutdown(socket.SHUT_RDWR)
                    far.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.inject("cut")


@pytest.fixture
def proxy(server: Any) -> Iterator[Proxy]:
    proxy = Proxy(server.target)
    yield proxy
    proxy.close()


def stream_through_faults(proxy: Proxy, server: Any, formula: Any, *, n: int, faults: int) -> None:
    """Stream *n* digits, with a network fault about every n / faults digits."""
    server.image_shape = (4, 4, 1)
    limits = Limits(rows_per_request=64, requests_in_flight=4)
    choose = random.Random(7)
    injected, rows = 0, 0
    with DigitClient(proxy.target, timeout=Timeout(request_s=0.5, outage_s=60), limits=limits) as client:
        for batch in client.stream(n, batch_size=256, seed=3):
            np.testing.assert_array_equal(batch.seeds, 3 * 2**32 + np.arange(rows, rows + len(batch)))
            expected = formula(batch.labels, batch.seeds, shape=server.image_shape)
            np.testing.assert_array_equal(batch.images, expected[..., 0])
            rows += len(batch)
            while injected < faults * rows // n:
                proxy.inject(FAULTS[injected % len(FAULTS)] if choose.random() < 0.8 else choose.choice(FAULTS))
                injected += 1
    assert rows == n
    assert injected == faults
    assert proxy.connections > faults // 3


def test_every_digit_arrives_once_and_in_order_through_many_faults(proxy: Proxy, server: Any, formula: Any) -> None:
    stream_through_faults(proxy, server, formula, n=12_800, faults=24)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_digit_of_a_million_arrives_through_a_thousand_faults(proxy: Proxy, server: Any, formula: Any) -> None:
    stream_through_faults(proxy, server, formula, n=1_000_000, faults=1000)


def test_a_black_hole_ends_at_the_deadline_and_its_connection_is_abandoned(proxy: Proxy) -> None:
    with DigitClient(proxy.target, timeout=Timeout(request_s=1.0)) as client:
        client.card()
        proxy.inject("black hole")
        with pytest.raises(ServerTimeoutError):
            client.sample(3)
        assert len(client.sample(3)) == 3  # through another connection
        assert proxy.connections == 2


@pytest.mark.slow  # the timing needs a free core
@pytest.mark.parametrize("request_s", [0.5, 1.0, 3.0])
def test_deadlines_in_a_black_hole_are_exact_to_20_percent(proxy: Proxy, request_s: float) -> None:
    with DigitClient(proxy.target, timeout=Timeout(request_s=request_s)) as client:
        client.generator()
        for rows in (3, 5000):  # one request, and many
            proxy.inject("black hole")
            began = time.monotonic()
            with pytest.raises(ServerTimeoutError):
                client.sample(rows)
            assert 0.8 * request_s <= time.monotonic() - began <= 1.2 * request_s
            client.card()  # opens another connection for the next round


def test_a_network_that_drops_everything_causes_an_error_and_not_a_hang(proxy: Proxy) -> None:
    proxy.dropping = True
    with DigitClient(proxy.target, timeout=Timeout(request_s=0.5)) as client, pytest.raises(ServerTimeoutError):
        client.card()


def test_an_unanswered_ping_ends_a_wait_without_a_deadline(start_server: Any) -> None:
    server = start_server(options=[("grpc.http2.min_recv_ping_interval_without_data_ms", 100)])
    proxy = Proxy(server.target)
    patient = Timeout(request_s=None, outage_s=0)
    keepalive = Keepalive(every_s=0.5, answer_s=0.5)
    with DigitClient(proxy.target, timeout=patient, retry=Retry(attempts=1), keepalive=keepalive) as client:
        client.generator()
        proxy.dropping = True
        with pytest.raises(ServerUnavailableError):
            client.sample(10)
    proxy.close()


def test_compressed_messages_are_shorter_and_have_the_same_content(start_server: Any, formula: Any) -> None:
    def exchanged(server: Any, compression: Compression) -> tuple[int, int]:
        proxy = Proxy(server.target)
        with DigitClient(proxy.target, compression=compression) as client:
            batch = client.sample(1000, seed=0)
        np.testing.assert_array_equal(batch.images, formula(batch.labels, batch.seeds)[..., 0])
        proxy.close()
        return proxy.bytes_up, proxy.bytes_down

    plain = start_server()
    up, down = exchanged(plain, Compression.NONE)
    for compression in (Compression.GZIP, Compression.DEFLATE):
        assert exchanged(plain, compression)[0] < up / 2
    compressing = start_server(options=[("grpc.default_compression_algorithm", int(Compression.GZIP))])
    assert exchanged(compressing, Compression.NONE)[1] < down / 2


def test_the_asynchronous_client_compresses_too(server: Any, proxy: Proxy) -> None:
    async def sent(compression: Compression) -> int:
        before = proxy.bytes_up
        async with AsyncDigitClient(proxy.target, compression=compression, keepalive=None) as client:
            await client.sample(1000, seed=0)
        return proxy.bytes_up - before

    assert asyncio.run(sent(Compression.GZIP)) < asyncio.run(sent(Compression.NONE)) / 2


LEFT_BEHIND = """
import contextlib, gc, sys, threading, time
from pathlib import Path
from digitforge_client import DigitClient

def left():
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(link.readlink()))
    return sum("socket:" in link for link in links), threading.active_count()

def use():
    with DigitClient(sys.argv[1]) as client:
        client.sample(3000)
        next(client.stream(100_000))

for _ in range(10):
    use()
while left() != (0, 1):  # gRPC closes connections in the background
    gc.collect()
    time.sleep(0.1)
print(*left())
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_closing_leaves_no_thread_and_no_socket(server: Any) -> None:
    command = [sys.executable, "-c", LEFT_BEHIND, server.target]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["0", "1"], result.stderr
