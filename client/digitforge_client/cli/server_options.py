"""The options of all commands that need a server, and the connection that they describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from digitforge_client.cli.renamed import renamed
from digitforge_client.client import DEFAULT_TARGET, DigitClient
from digitforge_client.contract import MODEL_NAME
from digitforge_client.errors import InvalidInputError
from digitforge_client.options import TLS, Timeout

C = TypeVar("C", bound=Callable[..., Any])

server_option = click.option(
    "--server",
    default=DEFAULT_TARGET,
    show_default=True,
    envvar="DIGITFORGE_SERVER",
    show_envvar=True,
    help="Address of the server's gRPC port.",
)
#: For commands that used to call ``--model-name`` ``--model``.
old_model_option = renamed("--model", "--model-name")
_FILE: Final = click.Path(path_type=Path)
_SECONDS: Final = click.FloatRange(min=0, min_open=True)
_OPTIONS: Final = (
    click.option("--model-name", default=MODEL_NAME, show_default=True, help="The model's name on the server."),
    click.option(
        "--model-version", type=int, metavar="N", help="Number of the version on the server.  [default: the newest]"
    ),
    click.option("--model-label", metavar="LABEL", help="The server's label for a version, such as stable."),
    click.option(
        "--timeout",
        type=_SECONDS,
        default=30.0,
        show_default=True,
        help="Seconds to wait for the answer to one request.",
    ),
    click.option(
        "--wait", type=_SECONDS, metavar="SECONDS", help="Wait up to this long until the server has loaded the model."
    ),
    click.option("--tls-ca", type=_FILE, metavar="FILE", help="Use TLS, and trust the certificates in this PEM file."),
    click.option("--tls-cert", type=_FILE, metavar="FILE", help="Client certificate, for mutual TLS."),
    click.option("--tls-key", type=_FILE, metavar="FILE", help="Private key of --tls-cert."),
    click.option("--tls-server-name", metavar="NAME", help="Name in the server's certificate, if it is not the host."),
    click.option(
        "--header", multiple=True, metavar="NAME=VALUE", help="gRPC metadata for every request. Repeat for several."
    ),
)


def connection_options(command: C) -> C:
    """Add the options that say how to connect to a server. Pass their values to `Access.of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, kw_only=True)
class Access:
    """A server, and how to connect to it. Can be pickled, and compared by value."""

    target: str  #: ``host:port`` of the server
    model: str = MODEL_NAME  #: the model's name on the server
    version: int | None = None  #: number of the model's version; None for the newest
    label: str | None = None  #: the server's label for a version, instead of ``version``
    timeout_s: float = 30.0  #: seconds to wait for the answer to one request
    wait_s: float | None = None  #: seconds to wait until the server has loaded the model; None: do not wait
    tls: TLS | None = None  #: encryption; None for a plain connection
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  #: gRPC metadata; may hold secrets

    @classmethod
    def of(
        cls,
        server: str,
        *,
        model_name: str = MODEL_NAME,
        model_version: int | None = None,
        model_label: str | None = None,
        timeout: float = 30.0,
        wait: float | None = None,
        tls_ca: Path | None = None,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        tls_server_name: str | None = None,
        header: Sequence[str] = (),
    ) -> Access:
        """Take the values of `connection_options`.

        Raises:
            InvalidInputError: options contradict each other, or a header is not NAME=VALUE.
        """
        if model_version is not None and model_label is not None:
            raise InvalidInputError("--model-version and --model-label were both given; give one of them")
        if (tls_cert is None) != (tls_key is None):
            raise InvalidInputError("--tls-cert and --tls-key belong together; give both or neither")
        encrypted = any(value is not None for value in (tls_ca, tls_cert, tls_server_name))
        return cls(
            target=server,
            model=model_name,
            version=model_version,
            label=model_label,
            timeout_s=timeout,
            wait_s=wait,
            tls=TLS(ca=tls_ca, certificate=tls_cert, key=tls_key, server_name=tls_server_name) if encrypted else None,
            headers=tuple(_header(each) for each in header),
        )

    def __call__(self) -> DigitClient:
        """Make a client, and wait for the server if asked to. The caller closes it.

        Raises:
            InvalidInputError: the address, a header or a certificate is invalid.
            ServerTimeoutError: the server is not ready in time.
        """
        client = DigitClient(
            self.target,
            model=self.model,
            version=self.version,
            label=self.label,
            timeout=Timeout(request_s=self.timeout_s),
            tls=self.tls,
            headers=self.headers,
        )
        if self.wait_s is not None:
            client.wait_ready(self.wait_s)
        return client

    def __str__(self) -> str:
        return self.target


_PARAMETERS: Final = signature(Access.of).parameters
#: Names of the parameters of `connection_options`.
CONNECTION: Final = tuple(name for name in _PARAMETERS if name != "server")


def optional_access(server: str | None, **connection: Any) -> Access | None:
    """`Access.of`, or None without a server.

    Raises:
        InvalidInputError: as for `Access.of`, or there are options for a server, but no server.
    """
    if server is not None:
        return Access.of(server, **connection)
    for name in CONNECTION:
        default = _PARAMETERS[name].default
        if connection.get(name, default) != default:
            option = f"--{name.replace('_', '-')}"
            raise InvalidInputError(f"{option} needs a server; give --server HOST:PORT, or leave out {option}")
    return None


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line, without the values of headers."""
    shown: list[str] = []
    for argument in arguments:
        is_value = bool(shown) and shown[-1] == "--header"
        if is_value or argument.startswith("--header="):
            option, _, header = argument.rpartition("--header=")
            name = header.partition("=")[0]
            shown.append(f"{'' if is_value else '--header='}{option}{name}=…")
        else:
            shown.append(argument)
    return shown


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InvalidInputError("--header is not NAME=VALUE; write, for example, --header authorization='Bearer …'")
    return name, value
