"""Explains why a server is unavailable.

gRPC's texts differ between versions, and often say only that a connection was closed. So this module connects to the
target once more, without gRPC, and looks at what answers. This happens only before a client raises its error.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
import threading
import urllib.request
from contextlib import nullcontext
from typing import Final
from urllib.parse import urlsplit

from digitforge_client.errors import ServerUnavailableError, TLSError
from digitforge_client.transport.rpc_errors import printable
from digitforge_client.transport.tls import Credentials

#: How long the extra connection may take.
_PROBE_S: Final = 1.0
#: A client's first bytes in HTTP/2: the preface and an empty SETTINGS frame.
_OPENING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS: Final = 4  # type of the frame that a server sends first
#: gRPC's own texts. All other texts come from the server.
_OF_GRPC: Final = re.compile(
    r"failed to connect|connect(ion)? failed|connections? to all|connection (reset|refused|timed out|attempt)"
    r"|resol(v|ution)|lookup|socket|recvmsg|sendmsg|handshak|goaway|keepalive|ping|broken pipe|endpoint|transport"
    r"|stream removed|verif|proxy|http2|rst_stream|^no reason given$",
    re.IGNORECASE,
)
#: Errors of a connection attempt if nothing is there.
_ABSENT: Final = (ConnectionRefusedError, FileNotFoundError, socket.gaierror)
#: OpenSSL's codes for a certificate with another name.
_WRONG_NAME: Final = (62, 64)
_EXPIRED: Final = 10


def explain(error: ServerUnavailableError, *, target: str, credentials: Credentials | None) -> ServerUnavailableError:
    """Find out why *target* is unavailable, and return an error that says it. This may take a second.

    Args:
        error: the error of the request.
        target: target of the request, in gRPC's syntax.
        credentials: of the connection. None for an unencrypted connection.
    """
    if type(error) is not ServerUnavailableError or error.code != "UNAVAILABLE":
        return error
    details = printable(error.details or "")
    if not _OF_GRPC.search(details):
        explained = ServerUnavailableError(_of_server(target, details))
    else:
        explained = _Probe(target, credentials, reason_of(details)).explanation()
    explained.code, explained.details, explained.__cause__ = error.code, error.details, error.__cause__
    return explained


def reason_of(details: str) -> str:
    """The part of gRPC's text that says most. gRPC chains errors, and the last is the cause."""
    return details.rpartition("last error: ")[2]


def address_of(target: str) -> str | tuple[str, int] | None:
    """Path of a Unix socket, or host and port. None for targets in another syntax. Of a list, the first address."""
    scheme, _, rest = target.partition(":")
    if scheme == "unix":
        return rest.removeprefix("//")
    if scheme in ("dns", "ipv4", "ipv6"):
        rest = rest[2:].partition("/")[2] if rest.startswith("//") else rest
    else:
        rest = target
    host, _, port = rest.split(",")[0].rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    return (host, int(port)) if host and "/" not in host and port.isdecimal() and int(port) < 2**16 else None


def is_loopback(target: str) -> bool:
    """Whether a target is on this machine."""
    address = address_of(target)
    if address is None or isinstance(address, str):
        return address is not None
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return address[0].rstrip(".").lower() == "localhost"


def proxy_of(target: str) -> str | None:
    """The proxy that gRPC uses for a target: name of the environment variable and host. None for no proxy."""
    address = address_of(target)
    if address is None or isinstance(address, str) or is_loopback(target):
        return None
    environment = os.environ  # gRPC reads these names in lower case
    excluded = environment.get("no_grpc_proxy") or environment.get("no_proxy") or ""
    if urllib.request.proxy_bypass_environment(address[0], {"no": excluded}):  # type: ignore[attr-defined]
        return None
    for variable in ("grpc_proxy", "https_proxy", "http_proxy"):
        if value := environment.get(variable):
            parts = urlsplit(value)  # the user and password in it stay private
            return f"{parts.hostname}:{parts.port} (environment variable {variable})"
    return None


def _of_server(target: str, details: str) -> str:
    if "stopping" in details:
        return f"the server at {target} is stopping ({details}); try again when it runs again"
    return f"the server at {target} cannot answer now ({details}); try again later"


class _Probe:
    """Looks at what answers at a target."""

    def __init__(self, target: str, credentials: Credentials | None, reason: str) -> None:
        self._target = target
        self._address = address_of(target)
        self._credentials = credentials
        self._reason = reason
        self._explained = ServerUnavailableError(
            f"no server answers at {target} ({reason}); check the address (HOST:PORT with the server's gRPC port, "
            "usually 8500), and whether a server runs there"
        )

    def explanation(self) -> ServerUnavailableError:
        # a thread, because looking up a name has no time limit
        thread = threading.Thread(target=self._run, daemon=True, name="digitforge-probe")
        thread.start()
        thread.join(2 * _PROBE_S)
        return self._explained

    def _run(self) -> None:
        proxy = proxy_of(self._target)
        try:
            directly = self._direct()
        except (OSError, ValueError):  # ValueError: an impossible host name
            directly = None
        if proxy is not None and not isinstance(directly, TLSError):
            seen = "" if directly is not None else "; the server answers without the proxy"
            self._explained = ServerUnavailableError(
                f"the proxy {proxy} stands between this client and {self._target}, and the connection failed "
                f"({self._reason}){seen}; to connect without it, add {self._host()} to the variable no_proxy"
            )
        elif directly is not None:
            self._explained = directly

    def _host(self) -> str:
        return self._address[0] if isinstance(self._address, tuple) else self._target

    def _direct(self) -> ServerUnavailableError | None:
        """What is wrong with a direct connection. None if a gRPC server answers it, or if it is unclear.

        Raises:
            OSError: the connection failed for an unusual reason.
        """
        if self._address is None:
            return None
        try:
            return self._with_tls(self._credentials) if self._credentials else self._without_tls()
        except socket.gaierror as error:
            return ServerUnavailableError(
                f"the host name in {self._target} is unknown ({error.strerror}); check the name, and that this machine "
                "can look it up"
            )
        except _ABSENT as error:
            return ServerUnavailableError(
                f"no server listens at {self._target} ({error.strerror}); start one with `digitforge serve` or "
                "`docker compose up`, or give the address of a running server (HOST:PORT with its gRPC port, usually "
                "8500); a server that is still loading its model does not listen yet: wait for it with --wait or "
                "wait_ready()"
            )

    def _without_tls(self) -> ServerUnavailableError | None:
        try:
            answer = self._ask(None)
        except _ABSENT:
            raise
        except OSError:  # for example a reset
            answer = b""
        if answer.startswith(b"HTTP/"):
            return self._not_grpc()
        if _is_http2(answer) or not self._speaks_tls():
            return None
        return TLSError(
            f"the server at {self._target} expects TLS, but this client connects without it; give the certificate that "
            "signed the server's: tls=TLS(ca=…) or --tls-ca FILE"
        )

    def _with_tls(self, credentials: Credentials) -> ServerUnavailableError | None:
        try:
            answer = self._ask(credentials.context)
        except ssl.SSLCertVerificationError as error:
            return TLSError(self._bad_certificate(error))
        except ssl.SSLError as error:
            return self._failed_handshake(error)
        except _ABSENT:
            raise
        except OSError:
            answer = b""
        if answer.startswith(b"HTTP/"):
            return self._not_grpc()
        return None if _is_http2(answer) else self._refused_client()

    def _failed_handshake(self, error: ssl.SSLError) -> ServerUnavailableError | None:
        if "ALERT" in (error.reason or "") and "PROTOCOL_VERSION" not in (error.reason or ""):
            return self._refused_client()
        try:
            answer = self._ask(None)
        except OSError:
            return None
        if not answer.startswith(b"HTTP/") and not _is_http2(answer):
            return None
        return TLSError(
            f"the server at {self._target} does not use TLS, but this client does; connect without TLS (leave out tls= "
            "or --tls-ca), or configure TLS on the server"
        )

    def _refused_client(self) -> ServerUnavailableError | None:
        """The server's certificate is fine, but the server closed the connection."""
        assert self._credentials is not None
        if not self._speaks_tls():
            return None
        if self._credentials.mutual:
            return TLSError(
                f"the server at {self._target} does not accept the client's certificate; expected a valid one, "
                "signed by the authority that the server trusts (its client CA)"
            )
        return TLSError(
            f"the server at {self._target} closed the connection after the TLS handshake; it probably requires a "
            "client certificate (mutual TLS): give TLS(certificate=…, key=…) or --tls-cert and --tls-key"
        )

    def _bad_certificate(self, error: ssl.SSLCertVerificationError) -> str:
        name = self._credentials.server_name if self._credentials else None
        start = f"the certificate of the server at {self._target}"
        if error.verify_code in _WRONG_NAME:
            return (
                f"{start} is for another name ({error.verify_message}); connect with a name in the certificate, or "
                f"give it with TLS(server_name=…) or --tls-server-name (now {name!r})"
            )
        if error.verify_code == _EXPIRED:
            return f"{start} has expired; renew it on the server (`digitforge certificates` makes one for development)"
        return (
            f"{start} is not trusted ({error.verify_message}); give the certificate that signed it with TLS(ca=…) or "
            "--tls-ca FILE"
        )

    def _not_grpc(self) -> ServerUnavailableError:
        return ServerUnavailableError(
            f"the server at {self._target} speaks HTTP/1, not gRPC; give its gRPC port (usually 8500; 8501 is REST)"
        )

    def _speaks_tls(self) -> bool:
        """Whether the server completes a TLS handshake, or ends it with a TLS alert."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing secret is sent
        context.set_alpn_protocols(["h2"])
        try:
            self._ask(context, opening=False)
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")
        except OSError:
            return False
        return True

    def _ask(self, context: ssl.SSLContext | None, *, opening: bool = True) -> bytes:
        """Open a connection, and return the first bytes of the server."""
        assert self._address is not None
        if isinstance(self._address, str):
            link, name = socket.socket(socket.AF_UNIX), "localhost"
        else:
            link, name = socket.create_connection(self._address, _PROBE_S), self._address[0]
        if self._credentials is not None and self._credentials.server_name is not None:
            name = self._credentials.server_name
        with link:
            if isinstance(self._address, str):
                link.settimeout(_PROBE_S)
                link.connect(self._address)
            with context.wrap_socket(link, server_hostname=name) if context else nullcontext(link) as wrapped:
                if not opening:
                    return b""
                wrapped.sendall(_OPENING)
                return wrapped.recv(64)


def _is_http2(answer: bytes) -> bool:
    return len(answer) > 3 and answer[3] == _SETTINGS
