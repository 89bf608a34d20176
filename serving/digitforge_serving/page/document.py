"""The page's documents: the page itself, what it needs to know about its server, and the REST API's description."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from digitforge_serving.page.openapi import describe_api

#: The scripts, in the order of their dependencies. The page contains them as one module.
_SCRIPTS: Final = ("latents.js", "archive.js", "metrics.js", "service.js", "snippets.js", "page.js")


@dataclass(frozen=True, kw_only=True)
class PageInfo:
    """What the page has to know about its server."""

    models: Sequence[str]  #: names of the models that can be chosen
    grpc_port: int  #: in the code that people copy
    grpc_host: str | None = None  #: in the code that people copy; None: the host in the page's address
    grpc_tls: bool = False  #: the gRPC port requires TLS
    metrics_path: str | None = None  #: URL path of the metrics for Prometheus; None: no metrics


def page_routes(info: Callable[[], PageInfo]) -> list[Route]:
    """Create the routes ``/``, ``/page.json`` and ``/openapi.json``.

    Args:
        info: what the page has to know, at the time of a request.
    """

    async def page(_: Request) -> Response:
        document, policy = _document()
        headers = {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-cache",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return HTMLResponse(document, headers=headers)

    async def about(_: Request) -> Response:
        return JSONResponse(asdict(info()), headers={"Cache-Control": "no-store"})

    async def openapi(_: Request) -> Response:
        return JSONResponse(describe_api(info().metrics_path))

    return [Route("/", page), Route("/page.json", about), Route("/openapi.json", openapi)]


@functools.cache
def _document() -> tuple[str, str]:
    """The page, and its content security policy: it runs its own script and talks to its own server, nothing else."""
    assets = resources.files(__package__) / "assets"
    style = (assets / "page.css").read_text("utf-8")
    script = "\n".join((assets / name).read_text("utf-8") for name in _SCRIPTS)
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    document = (assets / "index.html").read_text("utf-8")
    return document.replace("{{style}}", style).replace("{{script}}", script), policy


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
