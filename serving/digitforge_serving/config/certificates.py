"""Certificates for development: an authority, a server and a client that it vouches for, and what servers are told.

openssl makes them. Whoever serves strangers has certificates of an authority that strangers believe, and keys that no
tool has written into a folder.
"""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from digitforge_client.common import files
from digitforge_client.errors import DigitforgeError, InvalidInputError

SSL_CONFIG: Final = "ssl.config"
_NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make(folder: Path, hosts: Sequence[str], *, days: int, mutual: bool) -> None:
    """Make a folder with ``ca.crt``, ``server.crt``, ``client.crt``, their keys, and ``ssl.config``.

    ``ssl.config`` is what ``--ssl_config_file`` takes, for TensorFlow Serving and for the embedded server: an
    ``SSLConfig`` in protobuf text. It contains the server's key, and is readable by all, because the user within a
    container is another one.

    Args:
        folder: does not exist yet.
        hosts: names and addresses under which clients reach the server.
        days: for how long the certificates are valid.
        mutual: refuse clients without a certificate of this authority.

    Raises:
        InvalidInputError: a host is neither a name nor an address.
        DataError: the folder exists, or cannot be made.
        DigitforgeError: there is no openssl, or it failed.
    """
    names = ",".join(_alternative(host) for host in hosts)
    with files.new_folder(folder) as made:
        _openssl(
            made,
            "req",
            "-x509",
            *_NEW_KEY,
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            "-days",
            str(days),
            "-subj",
            "/CN=digitforge development",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        )
        for name, uses in (("server", "serverAuth"), ("client", "clientAuth")):
            (made / "extensions").write_text(f"subjectAltName={names}\nextendedKeyUsage={uses}\n", encoding="utf-8")
            _openssl(made, "req", *_NEW_KEY, "-keyout", f"{name}.key", "-out", "request", "-subj", f"/CN={name}")
            _openssl(
                made,
                "x509",
                "-req",
                "-in",
                "request",
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                str(days),
                "-extfile",
                "extensions",
                "-out",
                f"{name}.crt",
            )
        for left in ("extensions", "request", "ca.srl"):
            (made / left).unlink(missing_ok=True)
        (made / SSL_CONFIG).write_text(_ssl_config(made, mutual=mutual), encoding="utf-8")
        (made / SSL_CONFIG).chmod(0o644)


def _alternative(host: str) -> str:
    """A host as a certificate names it.

    Raises:
        InvalidInputError: it is neither a name nor an address.
    """
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        if not host or not host.isascii() or not all(part.replace("-", "").isalnum() for part in host.split(".")):
            raise InvalidInputError(f"--host {host!r}; expected a name such as digits.example, or an address") from None
        return f"DNS:{host}"


def _openssl(folder: Path, *arguments: str) -> None:
    try:
        result = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise DigitforgeError("there is no openssl on PATH, which makes the certificates: install it") from error
    if result.returncode:
        raise DigitforgeError(f"`openssl {arguments[0]}` failed: {result.stderr.strip().splitlines()[-1:]}")


def _ssl_config(folder: Path, *, mutual: bool) -> str:
    def quoted(name: str) -> str:
        return '"' + (folder / name).read_text(encoding="ascii").replace("\n", "\\n") + '"'

    lines = [f"server_key: {quoted('server.key')}", f"server_cert: {quoted('server.crt')}"]
    lines.append(f"custom_ca: {quoted('ca.crt')}")
    lines.append(f"client_verify: {str(mutual).lower()}")
    return "\n".join(lines) + "\n"
