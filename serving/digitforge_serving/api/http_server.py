"""An HTTP server in a thread: uvicorn, with limits on connections, heads, bodies and waiting times.

uvicorn's parser, h11, follows RFC 9112 except where senders and proxies may disagree about where a request ends. This
module rejects those requests too. It also replaces uvicorn's timer for idle connections by one for every state of a
connection, because uvicorn waits without limit for a head or a body that arrives slowly.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import math
import re
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any, Final, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from digitforge_serving.api.request_log import HEADER, new_identity

_MAX_HEAD_BYTES: Final = 2**16  # request line and headers
_BACKLOG: Final = 128  # connections that the kernel accepts before the server does
_POLL_S: Final = 0.1
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
#: A line that does not end in CR LF, or one that continues a header.
_BAD_LINE: Final = re.compile(rb"(?<!\r)\n|\r[^\n]|\n[ \t]")
# uvicorn logs every invalid request as a warning. Strangers can send millions.
_log = logging.getLogger("digitforge.serving.http")
_log.setLevel(logging.ERROR)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may take from the server."""

    body_bytes: int  #: bytes of a request's body, after decompression
    connections: int = 256  #: at the same time; for a further one, the connection that has waited longest is closed
    #: Seconds that a client may take to send a whole head, and again for a whole body. Also the time that a connection
    #: may be idle, or make no progress while it receives an answer.
    receive_s: float = 30.0

    @property
    def wire_bytes(self) -> int:
        """Bytes to read for one request: a body may arrive in small chunks, and a body that is too large is skipped."""
        return 8 * self.body_bytes + _MAX_HEAD_BYTES


class HttpServer:
    """Serves an ASGI application in a thread with its own event loop."""

    def __init__(self, app: ASGIApp, *, host: str, port: int, limits: Limits) -> None:
        """Open the port. Requests wait until `start`.

        Raises:
            OSError: the port cannot be opened.
        """
        ipv6 = ":" in host
        self._socket = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ipv6 else socket.AF_INET,
            backlog=_BACKLOG,
            dualstack_ipv6=ipv6 and socket.has_dualstack_ipv6(),
        )
        self.port: int = self._socket.getsockname()[1]
        self._open: dict[_Protocol, None] = {}
        protocol = functools.partial(_Protocol, limits=limits, waiting=self._open)
        config = uvicorn.Config(
            app,
            http=cast(type[asyncio.Protocol], protocol),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="digitforge-rest", daemon=True
        )

    def start(self) -> None:
        """Start answering requests."""
        self._thread.start()

    def stop(self, flush_s: float) -> None:
        """Close the port. Clients have *flush_s* seconds to receive their answers."""
        if self._thread.ident is None:  # never started
            self._socket.close()
            return
        self._server.should_exit = True
        ends = time.monotonic() + flush_s
        while self._thread.is_alive():
            self._thread.join(_POLL_S)
            if time.monotonic() >= ends:
                for connection in list(self._open):
                    connection.loop.call_soon_threadsafe(connection.transport.abort)


class _Connection(h11.Connection):
    """Parses a connection. Rejects requests whose end is ambiguous."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, _MAX_HEAD_BYTES)
        self.problem = h11.RemoteProtocolError("invalid request")  # the reason for the last rejection
        self._recent = b""  # what h11 has not parsed yet, and the four bytes before it
        self._chunked = False

    def receive_data(self, data: bytes) -> None:
        unparsed = len(self.trailing_data[0])
        self._recent = self._recent[-unparsed - 4 :] + data
        super().receive_data(data)

    def next_event(self) -> Any:
        try:
            if self.their_state is h11.IDLE:
                self._check_lines()
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._chunked = _is_chunked(event)
            elif isinstance(event, h11.EndOfMessage) and self._chunked:
                parsed = self._recent[: len(self._recent) - len(self.trailing_data[0])]
                if event.headers or not parsed.endswith(b"\r\n\r\n"):
                    raise h11.RemoteProtocolError("a chunked body must end in an empty chunk, CR LF, without trailers")
            return event
        except h11.RemoteProtocolError as error:
            self.problem = error
            raise

    def _check_lines(self) -> None:
        data = self.trailing_data[0]
        end = _END_OF_HEAD.search(data)
        if _BAD_LINE.search(data, 0, end.end() if end else len(data)):
            raise h11.RemoteProtocolError("a line of the head does not end in CR LF, or continues the line before it")


def _is_chunked(request: h11.Request) -> bool:
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" not in names:
        return False
    if b"content-length" in names:
        raise h11.RemoteProtocolError("Content-Length and Transfer-Encoding exclude each other; send one of them")
    if request.http_version < b"1.1":
        raise h11.RemoteProtocolError("HTTP/1.0 has no Transfer-Encoding; send Content-Length, or HTTP/1.1")
    return True


class _Protocol(H11Protocol):
    """uvicorn's connection with time limits."""

    conn: _Connection

    def __init__(self, *arguments: Any, limits: Limits, waiting: dict[_Protocol, None], **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.conn = _Connection()
        self.logger = _log
        self._limits = limits
        self._others = waiting  # all open connections; the one that entered its state first comes first
        self._answers = 0
        self._state: object = None
        self._timer: asyncio.TimerHandle | None = None
        self._unsent: float = math.inf
        self._received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio does this itself only for sockets that name their protocol. Otherwise a body waits about 40 ms until
        # the client has acknowledged the headers.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self._others) >= self._limits.connections:
            idle = next((other for other in self._others if other.conn.their_state is not h11.DONE), self)
            idle.drop()
        self._update()

    def connection_lost(self, exc: Exception | None) -> None:
        self._others.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        if self._received > self._limits.wire_bytes and self.conn.their_state is h11.SEND_BODY:
            self.drop()
        self._update()

    def on_response_complete(self) -> None:
        self._answers += 1
        super().on_response_complete()
        self._unset_keepalive_if_required()  # this class has its own timer
        self._update()

    def drop(self) -> None:
        """Close the connection at once, without sending what remains."""
        self._others.pop(self, None)
        self.transport.abort()

    def _update(self) -> None:
        """Start the timer again if the connection has entered another state."""
        state = self._answers, self.conn.their_state
        if state == self._state or self.transport.is_closing():
            return
        self._state, self._unsent = state, math.inf
        if self.conn.their_state is h11.IDLE:
            self._received = 0
        self._others.pop(self, None)
        self._others[self] = None
        self._wait()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(self._limits.receive_s, self._expire)

    def _expire(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        computing = self.conn.their_state is not h11.IDLE and self.conn.their_state is not h11.SEND_BODY
        if (computing and not unsent) or 0 < unsent < self._unsent:
            self._unsent = unsent or math.inf
            self._wait()
        else:
            self.drop()

    def send_400_response(self, msg: str) -> None:
        """Answer an invalid request, and close the connection."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            status = self.conn.problem.error_status_hint
            body = json.dumps({"error": f"Malformed request: {self.conn.problem}"[:1024]}).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
                (HEADER, new_identity()),
            ]
            for event in (
                h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status]),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
