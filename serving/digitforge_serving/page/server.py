"""The page for another server's REST API, such as TensorFlow Serving's, which has no page of its own."""

from __future__ import annotations

import asyncio
import http.client
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from digitforge_client import contract
from digitforge_client.errors import InvalidInputError
from digitforge_serving.api.http_server import HttpServer, Limits
from digitforge_serving.api.ports import bracketed, check_port, port_error
from digitforge_serving.config.options import is_loopback
from digitforge_serving.page.document import PageInfo, page_routes

log = logging.getLogger("digitforge.serving")

_TIMEOUT_S: Final = 30.0
_CLOSE_S: Final = 0.5  # time to receive answers when the server stops
_FORWARDED: Final = ("content-type", "content-encoding")


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """The server whose REST API the page uses."""

    host: str
    port: int
    tls: bool = False  #: https

    @classmethod
    def of(cls, url: str) -> Upstream:
        """Read a URL such as ``http://127.0.0.1:8501``.

        Raises:
            InvalidInputError: it is not the URL of a server.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        rest = parts.path.strip("/"), parts.query, parts.fragment, parts.username or "", parts.password or ""
        if parts.scheme not in {"http", "https"} or not parts.hostname or any(rest):
            raise InvalidInputError(
                f"--page-for is {url!r}; expected the REST server's URL, as in http://localhost:8501"
            )
        tls = parts.scheme == "https"
        return cls(host=parts.hostname, port=port or (443 if tls else 80), tls=tls)

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{bracketed(self.host)}:{self.port}"

    def ask(self, method: str, path: str, *, body: bytes, headers: Mapping[str, str]) -> Response:
        """Send a request and pass on the answer. Status 502 if the server cannot be reached."""
        connect = http.client.HTTPSConnection if self.tls else http.client.HTTPConnection
        connection = connect(self.host, self.port, timeout=_TIMEOUT_S)
        try:
            connection.request(method, path, body or None, dict(headers))
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            return _error(502, f"{self} cannot be reached: {error}; check that it runs, and that this is its REST port")
        finally:
            connection.close()
        kept = {name: value for name in _FORWARDED if (value := answer.getheader(name)) is not None}
        return Response(content, answer.status, kept)


def create_app(upstream: Upstream, *, model_name: str, metrics_path: str | None, max_body_bytes: int) -> Starlette:
    """Create the application: the page, and the API's paths, which it forwards.

    Args:
        upstream: the server whose REST API answers.
        model_name: the model to show; the REST API cannot list models.
        metrics_path: URL path of the server's metrics for Prometheus; None: no metrics.
        max_body_bytes: largest body of a request.
    """

    async def forward(request: Request) -> Response:
        headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        path = request.scope["raw_path"].decode("latin-1")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > max_body_bytes:
                return _error(413, f"the body has more than {max_body_bytes} bytes; ask for fewer images")
        return await asyncio.to_thread(upstream.ask, request.method, path, body=bytes(body), headers=headers)

    def info() -> PageInfo:
        # A name without a dot is localhost or a container's name. Then the page's own host is the better guess.
        host = upstream.host if set(upstream.host) & {".", ":"} else None
        return PageInfo(
            models=(model_name,),
            grpc_port=contract.GRPC_PORT,
            grpc_host=None if host is None else bracketed(host),
            metrics_path=metrics_path,
        )

    routes = [*page_routes(info), Route("/v1/{path:path}", forward, methods=["GET", "POST"])]
    if metrics_path is not None:
        routes.append(Route(metrics_path, forward))
    return Starlette(routes=routes)


class PageServer:
    """Serves the page for another server."""

    def __init__(
        self, upstream: Upstream, *, model_name: str, metrics_path: str | None, host: str, port: int, limits: Limits
    ) -> None:
        self._app = create_app(
            upstream, model_name=model_name, metrics_path=metrics_path, max_body_bytes=limits.body_bytes
        )
        self._host = host
        self._port = port
        self._limits = limits
        self._server: HttpServer | None = None

    @property
    def url(self) -> str:
        """Address of the page, such as ``http://127.0.0.1:8502/``."""
        port = self._port if self._server is None else self._server.port
        return f"http://{bracketed(self._host)}:{port}/"

    def check(self) -> None:
        """Check that the port can be opened.

        Raises:
            DigitforgeError: it cannot be opened.
        """
        check_port(self._host, self._port, "--rest-api-port")

    def start(self) -> bool:
        """Open the port and start answering requests. Returns True.

        Raises:
            DigitforgeError: the port cannot be opened.
        """
        try:
            self._server = HttpServer(self._app, host=self._host, port=self._port, limits=self._limits)
        except OSError as error:
            raise port_error(self._host, self._port, "--rest-api-port", error) from error
        if not is_loopback(self._host):
            log.warning("listening on %s: anyone who can reach this machine can use the models", self._host)
        self._server.start()
        return True

    def interrupt(self) -> None:
        """Nothing to interrupt: `start` does not wait."""

    def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.stop(_CLOSE_S)


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)
