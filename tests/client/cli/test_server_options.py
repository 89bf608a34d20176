"""The options of all commands that need a server, with servers that use TLS."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import one_line, run, start
from ports import free_port

from digitforge_client.cli.server_options import Access, optional_access, without_secrets
from digitforge_client.errors import InvalidInputError
from digitforge_client.options import TLS
from digitforge_serving.config import certificates
from digitforge_serving.config.options import read_tls
from digitforge_serving.server import EmbeddedServer


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pems")
    for name in ("ours", "strange"):
        certificates.make(folder / name, ("localhost", "127.0.0.1"), days=1, mutual=True)
    return folder


@pytest.fixture(scope="module")
def target(exported_model: Path, pems: Path) -> Iterator[str]:
    """A server that requires a client certificate."""
    with EmbeddedServer(exported_model, tls=read_tls(pems / "ours/ssl.config")) as address:
        yield address


@pytest.fixture(scope="module")
def mutual(target: str, pems: Path) -> list[str]:
    """Options to connect to `target`."""
    ours = pems / "ours"
    files = ["--tls-ca", ours / "ca.crt", "--tls-cert", ours / "client.crt", "--tls-key", ours / "client.key"]
    return ["--server", target, *map(str, files)]


def test_sample_generate_and_verify_use_tls(mutual: list[str], tmp_path: Path) -> None:
    sampled = run("sample", "--n", 4, "--seed", 3, "--out", tmp_path / "d.npz", *mutual, "--wait", 60)
    assert sampled.returncode == 0, sampled.stderr
    shards = ["generate", tmp_path / "d", "--n", 4, "--rows-per-shard", 2, "--jobs", 2]
    generated = run(*shards, "--seed", 3, *mutual)
    assert generated.returncode == 0, generated.stderr
    parts = [np.load(path) for path in sorted((tmp_path / "d").glob("*.npz"))]
    np.testing.assert_array_equal(np.concatenate([part["x"] for part in parts]), np.load(tmp_path / "d.npz")["x"])
    verified = run("verify", tmp_path / "d", "--regenerate", 2, *mutual)
    assert verified.returncode == 0, verified.stderr


every_command_with_a_server = pytest.mark.parametrize(
    "command",
    [
        ["sample", "--n", "1", "--out", "d.npz"],
        ["generate", "d", "--n", "1"],
        ["evaluate", "--n", "100"],
        ["experiment", "run", "--data", "digits", "--subsets", "1", "--out", "e"],
    ],
    ids=["sample", "generate", "evaluate", "experiment"],
)


@every_command_with_a_server
def test_a_served_model_has_a_name_in_all_commands(
    command: list[str], mutual: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*command, *mutual, "--model-name", "letters")
    assert result.returncode == 3
    assert "no model 'letters'" in result.stderr.splitlines()[-1]


@every_command_with_a_server
def test_a_certificate_that_is_not_trusted_is_the_same_error_in_all_commands(
    command: list[str], target: str, pems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    result = run(*command, "--server", target, "--tls-ca", pems / "strange/ca.crt")

    assert result.returncode == 3
    assert "is not trusted" in result.stderr.splitlines()[-1]
    assert not any(tmp_path.rglob("*.npz"))


def test_wait_ends_when_the_server_has_loaded_its_model(exported_model: Path, tmp_path: Path) -> None:
    port = free_port()
    waiting = start("sample", "--n", "2", "--out", tmp_path / "d.npz", "--server", f"127.0.0.1:{port}", "--wait", "120")
    try:
        with EmbeddedServer(exported_model, port=port):
            out, err = waiting.communicate(timeout=120)
    finally:
        waiting.kill()
    assert waiting.returncode == 0, err
    assert "2 images" in out


def test_wait_has_an_end(tmp_path: Path) -> None:
    where = f"127.0.0.1:{free_port()}"
    result = run("sample", "--n", 1, "--out", tmp_path / "d.npz", "--server", where, "--wait", 0.5)
    assert result.returncode == 3
    assert where in one_line(result)


def test_an_access_has_what_the_options_say_and_survives_a_copy(pems: Path) -> None:
    ca = pems / "ours/ca.crt"
    access = Access.of(
        "host:1", model_name="m", model_label="stable", timeout=2, wait=3, tls_ca=ca, header=("a=b=c", "x-key=1")
    )
    assert access == Access(
        target="host:1",
        model="m",
        label="stable",
        timeout_s=2,
        wait_s=3,
        tls=TLS(ca=ca),
        headers=(("a", "b=c"), ("x-key", "1")),
    )
    assert hash(pickle.loads(pickle.dumps(access))) == hash(access)
    assert str(access) == "host:1"
    assert "b=c" not in repr(access)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"header": ("authorization",)}, "not NAME=VALUE"),
        ({"tls_cert": Path("c")}, "belong together"),
        ({"tls_key": Path("k")}, "belong together"),
        ({"model_version": 1, "model_label": "stable"}, "give one of them"),
    ],
)
def test_options_that_contradict_each_other_are_an_error(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Access.of("host:1", **options)  # type: ignore[arg-type]


def test_options_for_a_server_need_one() -> None:
    assert optional_access(None, timeout=30.0, header=(), wait=None) is None
    assert optional_access(None, model_name="digits") is None
    for name, value in {"tls_ca": Path("ca.crt"), "model_name": "letters", "timeout": 5.0}.items():
        with pytest.raises(InvalidInputError, match=f"--{name.replace('_', '-')} needs a server"):
            optional_access(None, **{name: value})


def test_a_command_line_is_shown_without_the_values_of_headers() -> None:
    words = ["run", "--header", "authorization=Bearer secret", "--header=x-key=secret=", "--n", "1"]
    assert without_secrets(words) == ["run", "--header", "authorization=…", "--header=x-key=…", "--n", "1"]


def test_the_report_of_an_experiment_has_no_secret(mutual: list[str], tmp_path: Path) -> None:
    result = run(
        *("experiment", "run", "--data", "digits", "--subsets", 1, "--classifier", "logistic"),
        *("--arms", "real,oversampled", "--header", "authorization=secret-word", "--out", tmp_path / "e", "--json"),
        *mutual,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)
    for file in (tmp_path / "e").rglob("*"):
        assert not file.is_file() or b"secret-word" not in file.read_bytes(), file
