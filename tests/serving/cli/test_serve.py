"""`digitforge serve` as a process: what it prints, how it ends."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from serving_toys import Stubs, connect, predict_request
from tensorflow_serving.apis import predict_pb2

SERVE = [sys.executable, "-m", "digitforge", "serve"]


@dataclass
class Process:
    """A running `digitforge serve`."""

    popen: subprocess.Popen[str]
    stderr: Path

    def line(self) -> str:
        """Its next line on standard output."""
        assert self.popen.stdout is not None
        ready, _, _ = select.select([self.popen.stdout], [], [], 60)
        assert ready, self.stderr.read_text()
        return self.popen.stdout.readline()

    def end(self, *signals: int) -> int:
        """Send signals and return the exit status."""
        for number in signals:
            self.popen.send_signal(number)
        return self.popen.wait(timeout=60)


@contextmanager
def serving(tmp_path: Path, *arguments: str) -> Iterator[Process]:
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    stderr = tmp_path / "stderr.txt"
    with stderr.open("w") as sink:
        popen = subprocess.Popen(
            [*SERVE, *arguments], stdout=subprocess.PIPE, stderr=sink, text=True, env=environment, cwd=tmp_path
        )
    try:
        yield Process(popen, stderr)
    finally:
        popen.kill()
        popen.wait()
        assert popen.stdout is not None
        popen.stdout.close()


def seconds_long(stubs: Stubs, seconds: float) -> predict_pb2.PredictRequest:
    """A request that takes about so long on this machine as it is now."""
    stubs.predict(predict_request(signature="slow", inputs={"x": [1.0]}))
    start = time.monotonic()
    stubs.predict(predict_request(signature="slow", inputs={"x": [500.0]}))
    return predict_request(signature="slow", inputs={"x": [500 * seconds / (time.monotonic() - start)]})


def run(*arguments: str, command: Sequence[str] = SERVE) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)


def toy(base_path: Path) -> list[str]:
    return [f"--model_base_path={base_path}", "--model-name", "toy", "--port", "0", "--json"]


def test_one_line_of_json_says_where_it_listens_and_what_it_serves(base_path: Path, tmp_path: Path) -> None:
    with serving(tmp_path, *toy(base_path)) as process:
        announced = json.loads(process.line())
        assert announced["models"] == {"toy": [1]}
        assert announced["rest_target"] is None
        connect(announced["grpc_target"]).predict(predict_request())
        assert process.end(signal.SIGINT) == 130
        assert "Traceback" not in process.stderr.read_text()


def test_one_line_for_people_says_so_too_and_rest_answers_beside_grpc(base_path: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    flags = ["--model-base-path", str(base_path), "--model_name=toy", "--port=0", f"--rest_api_port={port}"]
    with serving(tmp_path, *flags) as process:
        announced = re.fullmatch(
            rf"toy version 1 ready: gRPC (127\.0\.0\.1:\d+), REST 127\.0\.0\.1:{port}\n", process.line()
        )
        assert announced is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/toy", timeout=30) as page:
            assert b'"state": "AVAILABLE"' in page.read()
        connect(announced[1]).predict(predict_request())
        assert process.end(signal.SIGTERM) == 0


def test_sigterm_lets_a_request_in_flight_finish_and_refuses_new_ones(base_path: Path, tmp_path: Path) -> None:
    with serving(tmp_path, *toy(base_path)) as process:
        stubs = connect(json.loads(process.line())["grpc_target"])
        in_flight = stubs.prediction.Predict.future(seconds_long(stubs, 6))
        time.sleep(0.5)
        process.popen.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert not in_flight.done()
        with pytest.raises(grpc.RpcError) as caught:
            stubs.predict(predict_request())
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert list(in_flight.result(timeout=60).outputs) == ["y"]
        assert process.end() == 0


def test_a_second_sigterm_ends_it_at_once(base_path: Path, tmp_path: Path) -> None:
    with serving(tmp_path, *toy(base_path)) as process:
        stubs = connect(json.loads(process.line())["grpc_target"])
        in_flight = stubs.prediction.Predict.future(predict_request(signature="slow", inputs={"x": [100_000.0]}))
        time.sleep(0.5)
        process.popen.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.popen.poll() is None
        assert process.end(signal.SIGTERM) == 128 + signal.SIGTERM
        assert isinstance(in_flight.exception(timeout=60), grpc.RpcError)


def test_an_empty_folder_is_waited_for_said_once_and_served_as_soon_as_it_has_a_version(
    toy_version: Path, tmp_path: Path
) -> None:
    base = tmp_path / "empty"
    base.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with serving(tmp_path, *toy(base), "--port", str(port), "--file_system_poll_wait_seconds=0.1") as process:
        deadline = time.monotonic() + 60
        while "waiting for a version of model toy" not in process.stderr.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(1)
        assert process.stderr.read_text().count("waiting for") == 1
        with pytest.raises(ConnectionRefusedError):  # the port opens once the model serves
            socket.create_connection(("127.0.0.1", port))
        shutil.copytree(toy_version, base / ".1.tmp")
        (base / ".1.tmp").rename(base / "1")
        assert json.loads(process.line())["models"] == {"toy": [1]}
        assert process.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_server_that_waits_for_its_first_version(tmp_path: Path, number: int) -> None:
    base = tmp_path / "empty"
    base.mkdir()
    with serving(tmp_path, *toy(base)) as process:
        deadline = time.monotonic() + 60
        while "waiting" not in process.stderr.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert process.end(number) == 0


def test_a_port_in_use_is_one_clear_line_at_once(base_path: Path, without_tensorflow: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", *toy(base_path), "--port", str(port), command=without_tensorflow)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f"digitforge: cannot listen on 127.0.0.1:{port}: address already in use; choose another --port"
    ]


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda base: base / "nowhere", "does not exist"),
        (lambda base: base / "1", "is itself a version of a model"),
    ],
    ids=["a folder that does not exist", "the folder of a version"],
)
def test_a_wrong_folder_is_one_clear_line_at_once(
    base_path: Path, prepare: Callable[[Path], Path], said: str, without_tensorflow: list[str]
) -> None:
    result = run("serve", *toy(prepare(base_path)), command=without_tensorflow)
    assert result.returncode == 4
    (line,) = result.stderr.splitlines()
    assert said in line


@pytest.mark.parametrize("flag", ["model_config_file", "batching_parameters_file", "monitoring_config_file"])
def test_a_file_that_cannot_be_read_as_its_message_is_named_at_once(
    flag: str, base_path: Path, tmp_path: Path, without_tensorflow: list[str]
) -> None:
    file = tmp_path / "no message.txt"
    file.write_text("no { message")
    models = [] if flag == "model_config_file" else toy(base_path)
    result = run("serve", *models, "--enable_batching", f"--{flag}={file}", command=without_tensorflow)
    assert result.returncode != 0
    (line,) = result.stderr.splitlines()
    assert str(file) in line


def test_a_damaged_model_is_one_clear_line(base_path: Path) -> None:
    (base_path / "1" / "saved_model.pb").write_bytes(b"\x00not a model")
    result = run(*toy(base_path))
    assert result.returncode == 4
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith(
        f"digitforge: model toy in {base_path} cannot be served; version 1:"
    )


def test_help_names_tensorflow_servings_flags() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert "--model_base_path" in result.stdout
    assert "--model-base-path" in result.stdout


def test_a_flag_of_truth_is_given_alone_or_with_a_value(base_path: Path) -> None:
    result = run(*toy(base_path), "--enable_model_warmup=maybe")
    assert result.returncode == 2
    assert "maybe" in result.stderr


def test_a_server_starts_without_the_seconds_that_keras_takes(tmp_path: Path) -> None:
    script = """
import os, sys
from digitforge_serving.cli.serve import _import_tensorflow
_import_tensorflow()
import digitforge_serving.models.manager, digitforge_serving.api.grpc, digitforge_serving.api.rest
assert "tensorflow" in sys.modules
print(sorted({"keras", "sklearn", "matplotlib"} & set(sys.modules)), os.environ["TF_USE_LEGACY_KERAS"])
"""
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "0"}  # what the user set stays so
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, timeout=120
    )
    assert result.stdout == "[] 0\n"
