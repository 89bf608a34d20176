"""TLS, mutual TLS and Unix sockets."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from cryptography import x509
from serving_toys import Stubs, connect

from digitforge_client.errors import DataError, DigitforgeError, InvalidInputError
from digitforge_serving import EmbeddedServer
from digitforge_serving.cli.certificates import certificates as make_certificates
from digitforge_serving.config.certificates import make
from digitforge_serving.config.options import Tls, parse_channel_arguments, read_tls


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates of an authority, a server and a client, made with the command from the README."""
    folder = tmp_path_factory.mktemp("certificates") / "tls"
    result = CliRunner().invoke(make_certificates, ["--out", str(folder)], catch_exceptions=False)
    assert f"--ssl_config_file={folder}/ssl.config" in result.output
    return folder


@pytest.fixture
def tls(certificates: Path, tmp_path: Path) -> Callable[[bool], Tls]:
    def read(client_verify: bool) -> Tls:
        text = (certificates / "ssl.config").read_text()
        assert "client_verify: false" in text
        (tmp_path / "ssl.config").write_text(text.replace("false", str(client_verify).lower()))
        return read_tls(tmp_path / "ssl.config")

    return read


def credentials(folder: Path, *, client: bool) -> grpc.ChannelCredentials:
    key, certificate = (
        ((folder / f"client.{suffix}").read_bytes() for suffix in ("key", "crt")) if client else (None, None)
    )
    return grpc.ssl_channel_credentials((folder / "ca.crt").read_bytes(), key, certificate)


def test_with_tls_only_clients_with_tls_are_answered(
    base_path: Path, certificates: Path, tls: Callable[[bool], Tls]
) -> None:
    with EmbeddedServer(base_path, model_name="toy", tls=tls(False)) as target:
        with grpc.secure_channel(target, credentials(certificates, client=False)) as channel:
            assert Stubs.on(channel).sums() == [4.0, 6.0]
        with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as caught:
            Stubs.on(channel).sums()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_with_mutual_tls_a_client_must_show_its_certificate(
    base_path: Path, certificates: Path, tls: Callable[[bool], Tls]
) -> None:
    with EmbeddedServer(base_path, model_name="toy", tls=tls(True)) as target:
        with grpc.secure_channel(target, credentials(certificates, client=True)) as channel:
            assert Stubs.on(channel).sums() == [4.0, 6.0]
        without_certificate = grpc.secure_channel(target, credentials(certificates, client=False))
        with without_certificate as channel, pytest.raises(grpc.RpcError) as caught:
            Stubs.on(channel).sums()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_mutual_tls_is_configured_and_keys_are_private(tmp_path: Path) -> None:
    make(tmp_path / "tls", ["digits.example", "10.0.0.1"], days=1, mutual=True)
    assert read_tls(tmp_path / "tls" / "ssl.config").client_verify
    for name in ("ca", "server", "client"):
        assert (tmp_path / "tls" / f"{name}.key").stat().st_mode & 0o077 == 0
    server, authority = (
        x509.load_pem_x509_certificate((tmp_path / "tls" / f"{name}.crt").read_bytes()) for name in ("server", "ca")
    )
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("digits.example"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]
    assert {each.not_valid_after_utc - each.not_valid_before_utc for each in (server, authority)} == {timedelta(days=1)}


def test_certificates_are_never_overwritten_and_a_failure_leaves_no_files(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    with pytest.raises(DataError, match="it exists"):
        make(tmp_path / "tls", ["localhost"], days=1, mutual=False)
    with pytest.raises(InvalidInputError, match="expected a host name"):
        make(tmp_path / "other", ["local host"], days=1, mutual=False)
    assert [path.name for path in tmp_path.iterdir()] == ["tls"]


def test_a_key_that_does_not_match_its_certificate_is_a_clear_error(
    base_path: Path, certificates: Path, tls: Callable[[bool], Tls]
) -> None:
    mixed = Tls(server_key=(certificates / "client.key").read_bytes(), server_cert=tls(False).server_cert)
    with pytest.raises(DigitforgeError, match="do not match"), EmbeddedServer(base_path, model_name="toy", tls=mixed):
        pass


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server_key: 'x'", "lacks server_key or server_cert"),
        ("server_key: 'x' server_cert: 'y' client_verify: true", "but not custom_ca"),
        ("key: 'x'", "Error parsing text-format tensorflow.serving.SSLConfig: 1:1 : "),
    ],
)
def test_an_invalid_tls_file_is_rejected(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "ssl.config").write_text(text)
    with pytest.raises(InvalidInputError, match=said):
        read_tls(tmp_path / "ssl.config")


def test_the_server_also_listens_on_a_unix_socket(base_path: Path, tmp_path: Path) -> None:
    socket = tmp_path / "digits.sock"
    with EmbeddedServer(base_path, model_name="toy", grpc_socket_path=socket) as target:
        for address in (target, f"unix:{socket}"):
            stubs = connect(address)
            assert stubs.sums() == [4.0, 6.0]
            stubs.channel.close()


def test_channel_arguments_are_parsed_as_numbers_or_text() -> None:
    assert parse_channel_arguments("") == ()
    assert parse_channel_arguments("grpc.max_concurrent_streams=4,a=-1,b=x=y") == (
        ("grpc.max_concurrent_streams", 4),
        ("a", -1),
        ("b", "x=y"),
    )
    with pytest.raises(InvalidInputError, match="expected key=value"):
        parse_channel_arguments("grpc.max_concurrent_streams")
