"""Certificates for development: an authority, a server, a client, and the server's TLS configuration.

Not for production: the private keys are in the same folder as the certificates.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from digitforge_client.common import files
from digitforge_client.errors import InvalidInputError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

SSL_CONFIG: Final = "ssl.config"


def make(folder: Path, hosts: Sequence[str], *, days: int, mutual: bool) -> None:
    """Create a folder with ``ca.crt``, ``server.crt``, ``client.crt``, their keys, and ``ssl.config``.

    ``ssl.config`` is an ``SSLConfig`` in protobuf text: the ``--ssl_config_file`` of TensorFlow Serving and of the
    embedded server. It contains the server's key. Everyone can read it, because the server in a container runs as a
    different user.

    Args:
        folder: the folder to create; must not exist.
        hosts: the server's host names and IP addresses.
        days: how long the certificates are valid.
        mutual: require clients to show a certificate from this authority.

    Raises:
        InvalidInputError: a host is neither a host name nor an IP address.
        DataError: the folder exists, or it cannot be created.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    keys = {owner: ec.generate_private_key(ec.SECP256R1()) for owner in ("ca", "server", "client")}
    certificates = _certificates(keys, hosts, days=days)
    with files.new_folder(folder) as made:
        for owner, key in keys.items():
            (made / f"{owner}.key").touch(mode=0o600)
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (made / f"{owner}.key").write_bytes(pem)
            (made / f"{owner}.crt").write_bytes(certificates[owner].public_bytes(Encoding.PEM))
        (made / SSL_CONFIG).write_text(_ssl_config(made, mutual=mutual), encoding="utf-8")
        (made / SSL_CONFIG).chmod(0o644)


def _certificates(
    keys: dict[str, EllipticCurvePrivateKey], hosts: Sequence[str], *, days: int
) -> dict[str, x509.Certificate]:
    """Create a certificate for each key, signed with the key ``ca``.

    Raises:
        InvalidInputError: a host is neither a host name nor an IP address.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(owner: str) -> x509.Name:
        common = "digitforge development" if owner == "ca" else owner
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    authority = keys["ca"].public_key()
    names = x509.SubjectAlternativeName([_alternative(host) for host in hosts])
    uses = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    unused = dict.fromkeys((*uses, "encipher_only", "decipher_only"), False)
    extensions: dict[str, list[x509.ExtensionType]] = {
        "ca": [
            x509.BasicConstraints(ca=True, path_length=0),
            x509.KeyUsage(key_cert_sign=True, crl_sign=True, **unused),
        ],
        "server": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), names],
        "client": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), names],
    }
    now = datetime.now(UTC)
    made = {}
    for owner, key in keys.items():
        builder = x509.CertificateBuilder(
            issuer_name=name("ca"),
            subject_name=name(owner),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now,
            not_valid_after=now + timedelta(days=days),
        )
        identifiers = [
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority),
        ]
        for extension in (*extensions[owner], *identifiers):
            builder = builder.add_extension(extension, critical=extension in extensions["ca"])
        made[owner] = builder.sign(keys["ca"], hashes.SHA256())
    return made


def _alternative(host: str) -> x509.GeneralName:
    """Convert a host to its entry in a certificate.

    Raises:
        InvalidInputError: it is neither a host name nor an IP address.
    """
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not host or not host.isascii() or not all(part.replace("-", "").isalnum() for part in host.split(".")):
            raise InvalidInputError(
                f"--host is {host!r}; expected a host name such as digits.example, or an IP address"
            ) from None
        return x509.DNSName(host)


def _ssl_config(folder: Path, *, mutual: bool) -> str:
    def quoted(name: str) -> str:
        return '"' + (folder / name).read_text(encoding="ascii").replace("\n", "\\n") + '"'

    lines = [f"server_key: {quoted('server.key')}", f"server_cert: {quoted('server.crt')}"]
    lines.append(f"custom_ca: {quoted('ca.crt')}")
    lines.append(f"client_verify: {str(mutual).lower()}")
    return "\n".join(lines) + "\n"
