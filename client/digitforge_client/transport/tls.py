"""Reads the files of `TLS` and checks them, before a connection uses them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import grpc

from digitforge_client.errors import InvalidInputError
from digitforge_client.options import TLS


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The content of `TLS`, for gRPC and for Python's own TLS."""

    grpc: Any
    #: The same certificates, to find out why a connection fails.
    context: ssl.SSLContext
    #: Name in the server's certificate. None for the host of the target.
    server_name: str | None
    #: Whether the client has a certificate.
    mutual: bool


def read_credentials(tls: TLS) -> Credentials:
    """Read and check certificates and key.

    gRPC does not check them before the first connection, and then does not say what is wrong.

    Raises:
        InvalidInputError: a file cannot be read, is not PEM, or the key does not belong to the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # gRPC trusts any certificate in the file too
    context.set_alpn_protocols(["h2"])
    ca, certificate, key = (_pem(getattr(tls, name)) for name in ("ca", "certificate", "key"))
    if ca is None:
        context.load_default_certs()
    else:
        _check_certificates(ca, "ca", tls.ca)
    if certificate is not None and key is not None:
        _check_certificates(certificate, "certificate", tls.certificate)
        if b"ENCRYPTED" in key:
            raise InvalidInputError(
                f"{_described('key', tls.key)} is encrypted; expected a key without a password: decrypt it with "
                "`openssl pkey`"
            )
        if b"PRIVATE KEY-----" not in key:
            raise InvalidInputError(f"{_described('key', tls.key)} is not a private key in PEM format")
        with _file(certificate) as certificate_file, _file(key) as key_file:
            try:
                context.load_cert_chain(certificate_file, key_file)
            except ssl.SSLError as error:
                raise InvalidInputError(
                    f"{_described('certificate', tls.certificate)} and {_described('key', tls.key)} cannot be used "
                    f"together ({error.reason or error}); expected the private key of this certificate"
                ) from error
    if ca is not None:
        context.load_verify_locations(cadata=ca.decode("ascii", "ignore"))
    return Credentials(
        grpc=grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate),
        context=context,
        server_name=tls.server_name,
        mutual=key is not None,
    )


def _pem(source: str | Path | bytes | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read the TLS file {source}: {error.strerror}") from error


def _check_certificates(pem: bytes, name: str, source: str | Path | bytes | None) -> None:
    """Raise InvalidInputError unless *pem* holds certificates."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInputError(
            f"{_described(name, source)} cannot be read as certificates ({getattr(error, 'reason', None) or error}); "
            "expected PEM: text that starts with -----BEGIN CERTIFICATE-----"
        ) from error


def _described(name: str, source: str | Path | bytes | None) -> str:
    return f"the TLS {name} {source}" if isinstance(source, Path) else f"the TLS {name} (given as PEM)"


@contextmanager
def _file(pem: bytes) -> Iterator[str]:
    """A temporary file that only this user can read. Python reads keys from files only."""
    with NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        yield file.name
