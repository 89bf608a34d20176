"""Servers that cannot be reached: the error names the cause and what to do. Everything runs against real servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from serve_process import serving

from digitforge_client import (
    TLS,
    AsyncDigitClient,
    DigitClient,
    InvalidInputError,
    Retry,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
    Timeout,
    TLSError,
)
from digitforge_client.transport import unavailable
from digitforge_serving import EmbeddedServer
from digitforge_serving.config import certificates
from digitforge_serving.config.options import Tls, read_tls

QUICK: dict[str, Any] = {"retry": Retry(attempts=1), "timeout": Timeout(request_s=20)}
PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy")


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with certificates: ours, those of a stranger, for another name, and expired ones."""
    folder = tmp_path_factory.mktemp("pems")
    local = ("localhost", "127.0.0.1")
    for name, hosts in (("ours", local), ("strange", local), ("named", ("digits.example",))):
        certificates.make(folder / name, hosts, days=1, mutual=True)

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - timedelta(days=9)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates, "datetime", Earlier)
        certificates.make(folder / "expired", local, days=1, mutual=True)
    return folder


def server_tls(folder: Path, *, mutual: bool = False) -> Tls:
    return replace(read_tls(folder / "ssl.config"), client_verify=mutual)


def client_tls(folder: Path, **more: Any) -> TLS:
    return TLS(ca=folder / "ca.crt", **more)


@pytest.fixture(scope="module")
def servers(exported_model: Path, pems: Path) -> Iterator[dict[str, str]]:
    """Addresses of embedded servers by kind of encryption."""
    kinds = {
        "plain": None,
        "tls": server_tls(pems / "ours"),
        "mutual": server_tls(pems / "ours", mutual=True),
        "named": server_tls(pems / "named"),
        "expired": server_tls(pems / "expired"),
    }
    with contextlib.ExitStack() as stack:
        yield {
            kind: stack.enter_context(EmbeddedServer(exported_model, tls=tls, batching=None))
            for kind, tls in kinds.items()
        }


def both_errors(target: str, **options: Any) -> list[ServerError]:
    """The errors of both clients."""

    async def ask() -> ServerError:
        async with AsyncDigitClient(target, **QUICK, **options) as client:
            with pytest.raises(ServerError) as caught:
                await client.sample(1)
            return caught.value

    with DigitClient(target, **QUICK, **options) as client, pytest.raises(ServerError) as caught:
        client.sample(1)
    return [caught.value, asyncio.run(ask())]


Tlses = Callable[[Path], TLS | None]
CASES: dict[str, tuple[str, Tlses, str]] = {
    "the server uses TLS and the client does not": ("tls", lambda _: None, r"expects TLS, .*--tls-ca FILE"),
    "the same with mutual TLS": ("mutual", lambda _: None, r"expects TLS"),
    "the client uses TLS and the server does not": (
        "plain",
        lambda pems: client_tls(pems / "ours"),
        "does not use TLS",
    ),
    "the authority is another": ("tls", lambda pems: client_tls(pems / "strange"), r"not trusted .*TLS\(ca=…\)"),
    "the authority is unknown": ("tls", lambda _: TLS(), r"not trusted"),
    "the name is another": ("named", lambda pems: client_tls(pems / "named"), r"another name .*--tls-server-name"),
    "the given name is another": (
        "tls",
        lambda pems: client_tls(pems / "ours", server_name="other.example"),
        r"another name .*'other\.example'",
    ),
    "the certificate has expired": ("expired", lambda pems: client_tls(pems / "expired"), r"has expired; renew it"),
    "the client has no certificate": (
        "mutual",
        lambda pems: client_tls(pems / "ours"),
        r"client certificate .*--tls-cert",
    ),
    "the client's certificate is from another authority": (
        "mutual",
        lambda pems: client_tls(
            pems / "ours", certificate=pems / "strange" / "client.crt", key=pems / "strange" / "client.key"
        ),
        "does not accept the client's certificate",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_disagreement_about_tls_is_explained(servers: dict[str, str], pems: Path, case: str) -> None:
    kind, tls, says = CASES[case]
    for error in both_errors(servers[kind], tls=tls(pems)):
        with pytest.raises(TLSError, match=says):
            raise error
        assert (error.code, error.exit_status, error.retryable) == ("UNAVAILABLE", 3, False)
    # waiting for the server would be in vain
    with DigitClient(servers[kind], tls=tls(pems)) as client, pytest.raises(TLSError, match=says):
        client.wait_ready(1000)


@pytest.mark.parametrize("form", ["path", "text", "bytes", "pem text"])
def test_tls_takes_paths_and_pem(servers: dict[str, str], pems: Path, form: str) -> None:
    take: dict[str, Callable[[Path], Any]] = {
        "path": lambda path: path,
        "text": str,
        "bytes": Path.read_bytes,
        "pem text": Path.read_text,
    }
    files = {"ca": "ca.crt", "certificate": "client.crt", "key": "client.key"}
    tls = TLS(**{field: take[form](pems / "ours" / name) for field, name in files.items()})
    with DigitClient(servers["mutual"], tls=tls) as client:
        assert len(client.sample(3)) == 3
    assert "PRIVATE" not in repr(tls)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ca": 5}, "ca is of type int; expected a path, or PEM"),
        ({"ca": ""}, "ca is ''; expected a path"),
        ({"ca": b"\x30\x82"}, "2 bytes that are not PEM"),
        ({"server_name": 7}, "server_name is 7"),
        (
            {"ca": "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----"},
            r"ca \(given as PEM\) cannot be read as",
        ),
        ({"ca": "{pems}/ours/ssl.missing"}, "ssl.missing: No such file"),
        ({"ca": "{pems}"}, "cannot read the TLS file"),
        ({"ca": "{pems}/junk"}, "junk cannot be read as certificates"),
        ({"ca": "{pems}/ours/ca.key"}, "ca.key cannot be read as certificates"),
        ({"certificate": "{pems}/junk", "key": "{pems}/ours/client.key"}, "junk cannot be read as certificates"),
        ({"certificate": "{pems}/ours/client.crt", "key": "{pems}/junk"}, "junk is not a private key"),
        ({"certificate": "{pems}/ours/client.crt", "key": "{pems}/ours/server.key"}, "cannot be used together"),
        ({"certificate": "{pems}/ours/client.crt", "key": "{pems}/locked"}, "is encrypted"),
        ({"certificate": "{pems}/ours/client.crt"}, "no key"),
    ],
)
def test_unusable_certificates_and_keys_are_named(pems: Path, options: dict[str, Any], says: str) -> None:
    (pems / "junk").write_text("hello")
    (pems / "locked").write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMII\n-----END ENCRYPTED PRIVATE KEY-----\n")
    given = {name: each.format(pems=pems) if isinstance(each, str) else each for name, each in options.items()}
    with pytest.raises(InvalidInputError, match=says):
        DigitClient("localhost:8500", tls=TLS(**given))


def test_where_nobody_listens_the_error_says_so_and_mentions_loading(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        for target in (f"127.0.0.1:{port}", f"unix:{tmp_path}/none"):
            for error in both_errors(target):
                assert type(error) is ServerUnavailableError
                assert "no server listens at" in str(error)
                assert "still loading" in str(error)
                assert "--wait" in str(error)


def test_an_unknown_host_name_is_an_error() -> None:
    for error in both_errors("digits.invalid:8500"):
        assert type(error) is ServerUnavailableError
        # a name server may take longer than the probe
        with pytest.raises(
            ServerUnavailableError, match=r"host name in digits\.invalid:8500 is unknown|no server answers"
        ):
            raise error


@contextlib.contextmanager
def listening(answer: bytes) -> Iterator[str]:
    """A server that reads something, answers with fixed bytes, and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link, _ = listener.accept()
                    with link:
                        link.recv(4096)
                        link.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_that_speaks_http_1_is_named(exported_model: Path) -> None:
    with listening(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n") as target:
        for error in both_errors(target):
            with pytest.raises(ServerUnavailableError, match=r"speaks HTTP/1, not gRPC; .*8501 is REST"):
                raise error


def test_a_server_that_only_closes_connections_is_unavailable() -> None:
    with listening(b"") as target:
        for tls in (None, TLS()):
            for error in both_errors(target, tls=tls):
                assert type(error) is ServerUnavailableError
                assert f"no server answers at {target}" in str(error)


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_a_proxy_is_named_without_its_password_and_bypassed_on_loopback(
    servers: dict[str, str], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with listening(b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy:
        monkeypatch.setenv(variable, f"http://user:secret@{proxy}")
        port = servers["plain"].rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "dns:///localhost", "ipv4:127.0.0.1"):
            with DigitClient(f"{host}:{port}") as client:
                assert len(client.sample(1)) == 1
        for error in both_errors("digits.example:8500"):
            says = rf"the proxy {proxy} \(environment variable {variable}\) stands between .*no_proxy"
            with pytest.raises(ServerUnavailableError, match=says):
                raise error
            assert "secret" not in str(error)
        monkeypatch.setenv("no_proxy", ".example")
        assert "proxy" not in str(both_errors("digits.example:8500")[0])


def test_a_direct_connection_shows_that_the_proxy_is_the_cause(
    servers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup = socket.getaddrinfo

    def local(host: Any, *arguments: Any, **options: Any) -> Any:
        return lookup("127.0.0.1" if host == "digits.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    port = servers["plain"].rpartition(":")[2]
    assert "the server answers without the proxy" in str(both_errors(f"digits.example:{port}")[0])


def test_a_stopping_server_says_so(tmp_path: Path, exported_model: Path) -> None:
    """A server that stops answers new requests with UNAVAILABLE while an old one still runs."""
    arguments = ("--port", "0", "--json", "--grace-seconds", "60", "--model-base-path", str(exported_model))
    errors: list[ServerUnavailableError] = []
    with serving(tmp_path, *arguments) as process:
        target = json.loads(process.line())["grpc_target"]
        with DigitClient(target, **QUICK) as busy, DigitClient(target, **QUICK) as late:
            late.card()
            stream = busy.stream(10_000_000, batch_size=1024)
            next(stream)
            process.popen.send_signal(signal.SIGTERM)
            end = time.monotonic() + 30
            while not errors and time.monotonic() < end:
                try:
                    late.card()
                except ServerUnavailableError as error:
                    errors.append(error)
            stream.close()
    assert "stopping" in str(errors[0]) or "no server listens" in str(errors[0])


def test_waiting_for_a_server_that_loads_ends_with_the_cause() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(ServerTimeoutError, match=rf"not ready after 0.5 s: no server listens at {target}"):
            DigitClient(target).wait_ready(0.5)


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("localhost:8500", ("localhost", 8500)),
        ("[::1]:8500", ("::1", 8500)),
        ("dns:///digits:8500", ("digits", 8500)),
        ("dns://8.8.8.8/digits:8500", ("digits", 8500)),
        ("ipv4:10.0.0.1:8500,10.0.0.2:8500", ("10.0.0.1", 8500)),
        ("ipv6:[::1]:8500", ("::1", 8500)),
        ("unix:relative", "relative"),
        ("unix:///absolute", "/absolute"),
        ("xds:///service", None),
        ("digits:https", None),
        ("digits:99999", None),
    ],
)
def test_addresses_are_read_from_targets(target: str, address: Any) -> None:
    assert unavailable.address_of(target) == address


@pytest.mark.parametrize("target", ["localhost:1", "127.0.0.9:1", "[::1]:1", "dns:///localhost:1", "unix:x"])
def test_targets_on_this_machine_are_known(target: str) -> None:
    assert unavailable.is_loopback(target)
    assert not unavailable.is_loopback("localhost.example:1")


def test_the_probe_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unavailable, "_PROBE_S", 0.1)
    let_go = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [let_go.wait(60)][:0])
    began = time.monotonic()
    error = ServerUnavailableError("", code="UNAVAILABLE", details="failed to connect to all addresses")
    assert "no server answers" in str(unavailable.explain(error, target="digits:1", credentials=None))
    assert time.monotonic() - began < 30
    let_go.set()
