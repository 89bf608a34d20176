"""TLS, mutual TLS and unix sockets."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from serving_toys import connect, predict_request
from tensorflow_serving.apis import predict_pb2

from digitforge_client.errors import DigitforgeError, InvalidInputError
from digitforge_serving import EmbeddedServer
from digitforge_serving.configuration import Tls, parse_channel_arguments, read_tls

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a server and a client that it vouches for, as the README makes them."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=digitforge")
    for name in ("server", "client"):
        openssl("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", f"{name}.crt", "-days", "2", "-extfile", "san"),
        )
    return folder


def config(folder: Path, *, client_verify: bool) -> str:
    def quoted(name: str) -> str:
        return '"' + (folder / name).read_text().replace("\n", "\\n") + '"'

    text = f"server_key: {quoted('server.key')}\nserver_cert: {quoted('server.crt')}\ncustom_ca: {quoted('ca.crt')}\n"
    return text + ("client_verify: true\n" if client_verify else "")


@pytest.fixture
def tls(certificates: Path, tmp_path: Path) -> Callable[[bool], Tls]:
    def read(client_verify: bool) -> Tls:
        (tmp_path / "ssl.config").write_text(config(certificates, client_verify=client_verify))
        return read_tls(tmp_path / "ssl.config")

    return read


def sums(channel: grpc.Channel) -> list[float]:
    call = channel.unary_unary(
        "/tensorflow.serving.PredictionService/Predict",
        request_serializer=predict_pb2.PredictRequest.SerializeToString,
        response_deserializer=predict_pb2.PredictResponse.FromString,
    )
    return tf.make_ndarray(call(predict_request(), timeout=30).outputs["sum"]).tolist()


def credentials(folder: Path, *, client: bool) -> grpc.ChannelCredentials:
    key, certificate = ((folder / f"client.{kind}").read_bytes() for kind in ("key", "crt")) if client else (None, None)
    return grpc.ssl_channel_credentials((folder / "ca.crt").read_bytes(), key, certificate)


@needs_openssl
def test_a_client_that_trusts_the_authority_is_answered_and_a_plain_one_is_not(
    base_path: Path, certificates: Path, tls: Callable[[bool], Tls]
) -> None:
    with EmbeddedServer(base_path, model_name="toy", tls=tls(False)) as target:
        with grpc.secure_channel(target, credentials(certificates, client=False)) as channel:
            assert sums(channel) == [4.0, 6.0]
        with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as caught:
            sums(channel)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


@needs_openssl
def test_with_mutual_tls_a_client_must_show_its_certificate(
    base_path: Path, certificates: Path, tls: Callable[[bool], Tls]
) -> None:
    with EmbeddedServer(base_path, model_name="toy", tls=tls(True)) as target:
        with grpc.secure_channel(target, credentials(certificates, client=True)) as channel:
            assert sums(channel) == [4.0, 6.0]
        stranger = grpc.secure_channel(target, credentials(certificates, client=False))
        with stranger as channel, pytest.raises(grpc.RpcError) as caught:
            sums(channel)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


@needs_openssl
def test_a_key_of_another_certificate_is_one_clear_error(
    base_path: Path, certificates: Path, tls: Callable[[bool], Tls]
) -> None:
    mixed = Tls(server_key=(certificates / "client.key").read_bytes(), server_cert=tls(False).server_cert)
    with pytest.raises(DigitforgeError, match="do not fit"), EmbeddedServer(base_path, model_name="toy", tls=mixed):
        pass


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server_key: 'x'", "lacks server_key or server_cert"),
        ("server_key: 'x' server_cert: 'y' client_verify: true", "without custom_ca"),
        ("key: 'x'", "not a SSLConfig"),
    ],
)
def test_a_wrong_tls_file_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "ssl.config").write_text(text)
    with pytest.raises(InvalidInputError, match=said):
        read_tls(tmp_path / "ssl.config")


def test_a_unix_socket_is_served_as_well(base_path: Path, tmp_path: Path) -> None:
    socket = tmp_path / "digits.sock"
    with EmbeddedServer(base_path, model_name="toy", grpc_socket_path=socket) as target:
        for address in (target, f"unix:{socket}"):
            stubs = connect(address)
            assert tf.make_ndarray(stubs.predict(predict_request()).outputs["sum"]).tolist() == [4.0, 6.0]
            stubs.channel.close()


def test_channel_arguments_are_numbers_or_words() -> None:
    assert parse_channel_arguments("") == ()
    assert parse_channel_arguments("grpc.max_concurrent_streams=4,a=-1,b=x=y") == (
        ("grpc.max_concurrent_streams", 4),
        ("a", -1),
        ("b", "x=y"),
    )
    with pytest.raises(InvalidInputError, match="expected key=value"):
        parse_channel_arguments("grpc.max_concurrent_streams")
