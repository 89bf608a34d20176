"""Channels: forks, Ctrl-C, TLS, headers and options."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from digitforge_client import TLS, DigitClient, InvalidInputError, Keepalive, Retry, ServerUnavailableError, Timeout

FORKING = """
import multiprocessing, sys
import numpy as np
from digitforge_client import DigitClient

client = DigitClient(sys.argv[1])
before = client.sample(50, seed=1)  # the parent connects before it forks

def child():
    assert np.array_equal(client.sample(50, seed=1).images, before.images)

for _ in range(4):
    worker = multiprocessing.get_context("fork").Process(target=child)
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0, worker.exitcode
    assert np.array_equal(client.sample(50, seed=1).images, before.images)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_parent_and_forked_child_have_separate_connections(server: Any) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FORKING, server.target], capture_output=True, text=True, timeout=200, check=False
    )
    assert result.returncode == 0, result.stderr


INTERRUPTED_WHILE_WAITING = """
import os, signal, sys, threading
from digitforge_client import DigitClient, Timeout

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores SIGINT otherwise
client = DigitClient(sys.argv[1], timeout=Timeout(request_s=None))
client.card()
threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()  # like Ctrl-C in a terminal
try:
    client.sample(10, seed=1)
except KeyboardInterrupt:
    print(client.card()["name"])  # over the same connection
"""


def test_after_ctrl_c_during_a_wait_the_client_works_and_the_process_can_end(server: Any) -> None:
    silent = threading.Event()
    server.before_answer = lambda request: silent.wait(90)
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_WAITING, server.target],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    silent.set()
    assert (result.returncode, result.stdout) == (0, "formula\n"), result.stderr


def test_a_closed_client_can_be_used_again(server: Any) -> None:
    client = DigitClient(server.target)
    for _ in range(3):
        assert len(client.sample(2000, seed=1)) == 2000
        client.close()


def test_nothing_is_sent_before_the_first_call(server: Any) -> None:
    DigitClient(server.target).close()
    assert server.calls == 0


def test_a_unix_socket_is_a_target(tmp_path: Path, server: Any) -> None:
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    second = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(server, second)
    second.add_insecure_port(f"unix:{tmp_path}/socket")
    second.start()
    with DigitClient(f"unix:{tmp_path}/socket") as client:
        assert len(client.sample(3)) == 3
    second.stop(0).wait()


@pytest.mark.parametrize("form", ["localhost:{port}", "dns:///localhost:{port}", "ipv4:127.0.0.1:{port}"])
def test_targets_may_have_any_grpc_form(server: Any, form: str) -> None:
    with DigitClient(form.format(port=server.target.rpartition(":")[2])) as client:
        client.wait_ready(30)
        assert len(client.sample(300)) == 300


def test_headers_are_sent_with_every_request(server: Any) -> None:
    seen = []

    class Recorder(grpc.ServerInterceptor):
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            seen.append(dict(details.invocation_metadata).get("authorization"))
            return continuation(details)

    from tensorflow_serving.apis import prediction_service_pb2_grpc

    second = grpc.server(futures.ThreadPoolExecutor(2), interceptors=[Recorder()])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(server, second)
    port = second.add_insecure_port("127.0.0.1:0")
    second.start()
    with DigitClient(f"127.0.0.1:{port}", headers=[("authorization", "Bearer x")]) as client:
        client.sample(3)
    second.stop(0).wait()
    assert len(seen) >= 3
    assert set(seen) == {"Bearer x"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two self-signed key pairs: one for the server, one for the client."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates of this test, and is not installed")
    folder = tmp_path_factory.mktemp("tls")
    for name in ("server", "client"):
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:digits.test"]
        key = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
        subprocess.run(["openssl", "req", "-x509", *key, *files, *subject], check=True, capture_output=True)
    return folder


def test_mutual_tls_admits_only_clients_with_the_certificate(server: Any, certificates: Path) -> None:
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    pem = {path.name: path.read_bytes() for path in certificates.iterdir()}
    second = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(server, second)
    credentials = grpc.ssl_server_credentials(
        [(pem["server.key"], pem["server.pem"])], root_certificates=pem["client.pem"], require_client_auth=True
    )
    port = second.add_secure_port("127.0.0.1:0", credentials)
    second.start()
    ca = certificates / "server.pem"
    quick: dict[str, Any] = {"retry": Retry(attempts=1), "timeout": Timeout(request_s=5)}
    known = TLS(
        ca=ca,
        certificate=certificates / "client.pem",
        key=certificates / "client.key",
        server_name="digits.test",
    )
    with DigitClient(f"127.0.0.1:{port}", tls=known) as client:
        assert len(client.sample(3)) == 3
    for stranger in (TLS(ca=ca, server_name="digits.test"), TLS(server_name="digits.test"), None):
        with DigitClient(f"127.0.0.1:{port}", tls=stranger, **quick) as client, pytest.raises(ServerUnavailableError):
            client.sample(3)
    second.stop(0).wait()


def test_invalid_tls_options_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="both"):
        TLS(certificate=tmp_path / "x.pem")
    with pytest.raises(InvalidInputError, match=r"missing\.pem"):
        DigitClient("localhost:8500", tls=TLS(ca=tmp_path / "missing.pem"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Timeout(request_s=-1),
        lambda: Timeout(outage_s=float("nan")),
        lambda: Retry(attempts=0),
        lambda: Retry(attempts=6),
        lambda: Retry(first_wait_s=0),
        lambda: Retry(first_wait_s=3, longest_wait_s=2),
        lambda: Keepalive(every_s=0),
        lambda: Keepalive(answer_s=float("inf")),
    ],
)
def test_options_out_of_range_are_rejected(make: Any) -> None:
    with pytest.raises(InvalidInputError):
        make()
