"""HTTP around the REST API: framing, content codings, limits of size and time, methods, CORS."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving_toys import Stubs, connect, predict_request

from digitforge_serving import ModelSource, Server, ServerOptions

PATH = "/v1/models/toy:predict"
BODY = json.dumps({"instances": [{"a": 1, "b": 3}]}).encode()
ANSWER = {"predictions": [{"sum": 4.0, "product": 3.0}]}
Open = Callable[[], socket.socket]


def start(base_path: Path, **options: object) -> Iterator[Server]:
    server = Server(
        [ModelSource(name="toy", base_path=base_path)],
        ServerOptions(port=0, rest_api_port=0, grace_seconds=1, **options),  # type: ignore[arg-type]
    )
    assert server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server(toy_version: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base_path = tmp_path_factory.mktemp("http") / "toy"
    base_path.mkdir()
    (base_path / "1").symlink_to(toy_version)
    yield from start(base_path, rest_api_enable_cors_support=True)


@pytest.fixture
def hasty(base_path: Path) -> Iterator[Server]:
    """A server that waits for a head or a body for half a second only, and takes bodies of 1 MiB."""
    yield from start(base_path, rest_api_receive_timeout_in_ms=500, rest_api_max_body_mib=1)


def address(server: Server) -> tuple[str, int]:
    assert server.rest_target is not None
    host, _, port = server.rest_target.rpartition(":")
    return host, int(port)


def raw(server: Server, *parts: bytes) -> bytes:
    """Send bytes and return everything that comes back until the server closes the connection."""
    with socket.create_connection(address(server), timeout=60) as link:
        for part in parts:
            link.sendall(part)
        received = b""
        while data := link.recv(65536):
            received += data
    return received


def post(server: Server, body: bytes, **headers: str) -> tuple[int, object]:
    connection = http.client.HTTPConnection(*address(server), timeout=60)
    try:
        connection.request("POST", PATH, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def head(*headers: bytes, line: bytes = b"POST " + PATH.encode() + b" HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"Host: toy", *headers, b"", b""])


def test_a_chunked_body_is_answered(server: Server) -> None:
    connection = http.client.HTTPConnection(*address(server), timeout=60)
    connection.request("POST", PATH, iter([BODY[:7], BODY[7:]]), encode_chunked=True)
    assert json.loads(connection.getresponse().read()) == ANSWER
    connection.close()


def test_a_compressed_body_is_answered(server: Server) -> None:
    assert post(server, gzip.compress(BODY), Content_Encoding="gzip") == (200, ANSWER)


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", BODY, 400),
        ("gzip", gzip.compress(BODY, mtime=0)[:-9], 400),
        ("gzip", gzip.compress(b"") * 150_000, 400),
        ("br", BODY, 415),
        ("gzip, gzip", BODY, 415),
    ],
    ids=["not compressed", "cut short", "many members", "unknown", "twice"],
)
def test_a_body_in_another_or_a_broken_coding_is_an_error(
    server: Server, coding: str, body: bytes, status: int
) -> None:
    found, document = post(server, body, Content_Encoding=coding)
    assert found == status
    assert isinstance(document, dict)
    assert "error" in document


LENGTH = f"Content-Length: {len(BODY)}".encode()
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize(
    "request_",
    [
        head(LENGTH, b"Transfer-Encoding: chunked") + CHUNKS,
        head(b"Transfer-Encoding: chunked", LENGTH) + CHUNKS,
        head(LENGTH, b"Content-Length: 1") + BODY,
        head(b"Content-Length: +5") + b"12345",
        head(b"Content-Length: -1") + BODY,
        head(b"Content-Length: 5, 6") + b"12345",
        head(b"Content-Length: 0x5") + b"12345",
        head(b"Transfer-Encoding: xchunked") + CHUNKS,
        head(b"Transfer-Encoding: chunked, identity") + CHUNKS,
        head(b"Transfer-Encoding: identity, chunked") + CHUNKS,
        head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + CHUNKS,
        head(b"Transfer-Encoding : chunked") + CHUNKS,
        head(b"Transfer-Encoding: chunked", line=b"POST " + PATH.encode() + b" HTTP/1.0") + CHUNKS,
        head(b"X: 1\r\n folded", LENGTH) + BODY,
        head(LENGTH).replace(b"\r\n", b"\n") + BODY,
        head(b"X: 1\rContent-Length: 0", LENGTH) + BODY,
        head(b"Transfer-Encoding: chunked") + b"-5\r\n12345\r\n0\r\n\r\n",
        head(b"Transfer-Encoding: chunked") + b"5\n12345\n0\n\n",
        head(b"Transfer-Encoding: chunked") + CHUNKS[:-2] + b"Content-Length: 1\r\n\r\n",
        head(b"Host: other", LENGTH) + BODY,
        b"POST " + PATH.encode() + b" HTTP/1.1\r\n" + LENGTH + b"\r\n\r\n" + BODY,  # no Host
        head(LENGTH, line=b"POST  " + PATH.encode() + b" HTTP/1.1") + BODY,
        head(b"X-Long: " + b"x" * 2**17, LENGTH) + BODY,
        b"GET /" + b"x" * 2**20 + b" HTTP/1.1\r\nHost: toy\r\n\r\n",
    ],
)
def test_a_request_whose_end_is_ambiguous_is_rejected_and_ends_the_connection(server: Server, request_: bytes) -> None:
    """What follows on the same connection may be part of the body for a proxy. It must never be answered."""
    try:
        received = raw(server, request_ + head(LENGTH) + BODY)
    except ConnectionResetError:  # the server closed while the rest was on its way
        return
    statuses = [line for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert [status.split()[1] for status in statuses] in ([b"400"], [b"431"], [b"501"], [])
    assert received.count(b"\r\nx-request-id: ") == len(statuses)
    assert b"predictions" not in received


def test_requests_may_follow_each_other_without_waiting_for_answers(server: Server) -> None:
    last = head(LENGTH, b"Connection: close") + BODY
    assert raw(server, (head(LENGTH) + BODY) * 2 + last).count(b'"predictions"') == 3


def test_http_1_0_is_answered(server: Server) -> None:
    received = raw(server, head(LENGTH, line=b"POST " + PATH.encode() + b" HTTP/1.0") + BODY)
    assert json.loads(received.partition(b"\r\n\r\n")[2]) == ANSWER


@pytest.mark.parametrize("start_of_request", [b"", b"POST /v1", head(LENGTH)[:-2], head(LENGTH), head(LENGTH) + b"{"])
def test_a_client_that_sends_byte_by_byte_is_cut_off(hasty: Server, start_of_request: bytes) -> None:
    with socket.create_connection(address(hasty), timeout=60) as link:
        link.sendall(start_of_request)
        cut = False
        for _ in range(600):  # each byte comes in time, but the whole does not
            try:
                link.sendall(b"x")
                link.settimeout(0.1)
                cut = link.recv(1024) == b""
            except TimeoutError:
                continue
            except OSError:
                cut = True
            if cut:
                break
    assert cut


def test_a_body_that_is_too_large_is_rejected(hasty: Server) -> None:
    body = b'{"instances": [' + b" " * 2**20 + b"]}"
    for sent, headers in ((body, {}), (gzip.compress(body), {"Content_Encoding": "gzip"})):
        status, document = post(hasty, sent, **headers)
        assert status == 413
        assert "--rest-api-max-body-mib" in str(document)


def test_the_model_is_looked_up_before_the_body_is_read(server: Server) -> None:
    with socket.create_connection(address(server), timeout=20) as link:
        link.sendall(head(b"Content-Length: 1000", line=b"POST /v1/models/none:predict HTTP/1.1") + b"{")
        assert link.recv(1024).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(("method", "status"), [("PUT", 400), ("DELETE", 400), ("PATCH", 400), ("HEAD", 200)])
def test_other_methods(server: Server, method: str, status: int) -> None:
    connection = http.client.HTTPConnection(*address(server), timeout=60)
    connection.request(method, "/v1/models/toy")
    answer = connection.getresponse()
    assert answer.status == status
    assert (answer.read() == b"") == (method == "HEAD")
    connection.close()


def test_pages_of_other_origins_may_use_the_api(server: Server, base_path: Path) -> None:
    def ask(to: Server) -> str | None:
        connection = http.client.HTTPConnection(*address(to), timeout=60)
        asked = {"Origin": "http://page", "Access-Control-Request-Method": "POST"}
        connection.request("OPTIONS", PATH, headers=asked | {"Access-Control-Request-Headers": "content-type"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.getheader("Access-Control-Allow-Origin")

    assert ask(server) == "*"
    for without in start(base_path):
        assert ask(without) is None


def test_answers_on_an_open_connection_do_not_wait_for_acknowledgments(server: Server) -> None:
    """With Nagle's algorithm, each answer took 40 ms longer."""
    connection = http.client.HTTPConnection(*address(server), timeout=60)
    seconds = []
    for _ in range(50):
        begun = time.perf_counter()
        connection.request("POST", PATH, BODY)
        assert connection.getresponse().read()
        seconds.append(time.perf_counter() - begun)
    connection.close()
    assert min(seconds[25:]) < 0.03  # Linux acknowledges the first ones at once


def test_large_bodies_do_not_stop_grpc(server: Server) -> None:
    body = json.dumps({"instances": [{"a": [0.125] * 50, "b": 3}] * 20_000}).encode()  # 7 MB, of a wrong shape

    def send() -> None:
        post(server, body)

    stubs: Stubs = connect(server.target)
    senders = [threading.Thread(target=send) for _ in range(8)]
    for sender in senders:
        sender.start()
    answered = 0
    while any(sender.is_alive() for sender in senders):
        assert stubs.prediction.Predict(predict_request(), timeout=30)
        answered += 1
    assert answered > 8


def test_many_idle_connections_leave_room_for_others(server: Server) -> None:
    idle = [socket.create_connection(address(server), timeout=60) for _ in range(400)]
    try:
        assert post(server, BODY) == (200, ANSWER)
    finally:
        for link in idle:
            link.close()
