"""`digitforge serve` as a process: its output and how it stops."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ports import free_port
from serve_process import SERVE, serving
from serving_toys import Gate, connect, predict_request, wait_for

from digitforge_client.errors import DataError, DigitforgeError
from digitforge_serving.api.request_log import SLOW_S
from digitforge_serving.cli.serve import serve
from digitforge_serving.cli.startup import has_gpu, hidden_lines, import_tensorflow
from digitforge_serving.config.options import read_model_config
from digitforge_serving.models.refusal import STOPPING


def refused(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> DigitforgeError:
    """The error that the command raises before it imports TensorFlow."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(DigitforgeError) as caught:
        CliRunner().invoke(serve, arguments, catch_exceptions=False)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def toy(base_path: Path) -> list[str]:
    return [f"--model_base_path={base_path}", "--model-name", "toy", "--port", "0", "--json"]


def test_sigterm_lets_a_request_in_flight_finish_and_rejects_new_ones(base_path: Path, tmp_path: Path) -> None:
    port = free_port()
    flags = ["--model-base-path", str(base_path), "--model_name=toy", "--port=0", f"--rest_api_port={port}"]
    with serving(tmp_path, *flags) as process:
        announced = re.fullmatch(
            rf"toy version 1 ready: gRPC (127\.0\.0\.1:\d+), REST 127\.0\.0\.1:{port}, page http://127\.0\.0\.1:{port}/\n",
            process.line(),
        )
        assert announced is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/toy", timeout=30) as page:
            assert b'"state": "AVAILABLE"' in page.read()
        stubs = connect(announced[1])
        gate = Gate(stubs, tmp_path)
        process.popen.send_signal(signal.SIGTERM)
        # A prediction would do too, but TensorFlow may not start it while `gate` keeps its threads busy.
        assert wait_for(lambda: error(stubs.states)) == (grpc.StatusCode.UNAVAILABLE, STOPPING)
        assert rest_status(port) == (503, STOPPING)
        assert not gate.answer.done()
        gate.open()
        assert list(gate.answer.result(timeout=60).outputs) == ["y"]
        assert process.end() == 0


def error(send: Callable[[], object]) -> tuple[grpc.StatusCode, str] | None:
    """Send a request. Return its error code and text, or None if it succeeds."""
    try:
        send()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return None


def rest_status(port: int) -> tuple[int, str]:
    """Ask for the model's status over REST. Return the HTTP status and the error's text."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/toy", timeout=30)
    return caught.value.code, json.loads(caught.value.read())["error"]


@pytest.mark.timeout(200)  # shorter than the grace period
@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_a_server_runs_with_all_standard_streams_closed(base_path: Path, tmp_path: Path) -> None:
    port = free_port()
    flags = [f"--model_base_path={base_path}", "--model-name", "toy", "--port", str(port)]
    closing = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    with subprocess.Popen([*closing, *SERVE, *flags], cwd=tmp_path) as process:
        try:
            stubs = connect(f"127.0.0.1:{port}")
            wait_for(lambda: error(lambda: stubs.predict(predict_request())) is None)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def test_clients_that_watch_the_health_do_not_delay_the_end(base_path: Path, tmp_path: Path) -> None:
    with serving(tmp_path, *toy(base_path), "--grace-seconds=250") as process:
        stubs = connect(json.loads(process.line())["grpc_target"])
        watch = health_pb2_grpc.HealthStub(stubs.channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        process.popen.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert process.end() == 0


def test_a_second_sigterm_stops_the_server_at_once(base_path: Path, tmp_path: Path) -> None:
    with serving(tmp_path, *toy(base_path), "--grace-seconds=250") as process:
        stubs = connect(json.loads(process.line())["grpc_target"])
        gate = Gate(stubs, tmp_path)
        process.popen.send_signal(signal.SIGTERM)
        wait_for(lambda: error(stubs.states))
        assert process.popen.poll() is None
        assert process.end(signal.SIGTERM) == 128 + signal.SIGTERM
        assert isinstance(gate.answer.exception(timeout=60), grpc.RpcError)


def test_the_server_waits_for_a_first_version_and_does_not_import_keras(
    toy_version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keras.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    base = tmp_path / "empty"
    base.mkdir()
    port = free_port()
    with serving(tmp_path, *toy(base), "--port", str(port), "--file_system_poll_wait_seconds=0.1") as process:
        wait_for(lambda: "waiting for a version of model toy" in process.stderr.read_text())
        with pytest.raises(ConnectionRefusedError):  # the port opens once the model serves
            socket.create_connection(("127.0.0.1", port))
        shutil.copytree(toy_version, base / ".1.tmp")
        (base / ".1.tmp").rename(base / "1")
        announced = json.loads(process.line())
        assert announced["models"] == {"toy": [1]}
        assert announced["rest_target"] is None
        connect(announced["grpc_target"]).predict(predict_request())
        assert process.end(signal.SIGINT) == 130
        said = process.stderr.read_text()
        assert said.count("waiting for a version") == 1
        assert "Traceback" not in said
        assert not (tmp_path / "imported").exists()  # importing Keras takes seconds


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_a_server_that_waits_for_its_first_version(tmp_path: Path, number: int) -> None:
    base = tmp_path / "empty"
    base.mkdir()
    with serving(tmp_path, *toy(base)) as process:
        wait_for(lambda: "waiting" in process.stderr.read_text())
        assert process.end(number) == 0


@pytest.mark.parametrize("port", ["grpc", "rest"])
def test_requests_have_ids_and_slow_ones_are_logged_as_json(port: str, base_path: Path, tmp_path: Path) -> None:
    flags = ["--verbose", "--log-format=json", f"--rest_api_port={free_port()}"]
    with serving(tmp_path, *toy(base_path), *flags) as process:
        announced = json.loads(process.line())
        call = _over_grpc(announced["grpc_target"]) if port == "grpc" else _over_rest(announced["rest_target"])
        begin = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            identity = pool.submit(call, "gated", str(tmp_path), "order-66")
            wait_for(lambda: (tmp_path / "begun").exists() and time.monotonic() > begin + 2 * SLOW_S)
            (tmp_path / "open").touch()
            assert identity.result() == "order-66"
        made = [call("shout", "a", None), call("shout", "a", "x" * 129), call("absent", "a", "a b")]
        assert re.fullmatch(r"[0-9a-f]{16} [0-9a-f]{16} [0-9a-f]{16}", " ".join(made))
        assert len(set(made)) == 3
        assert process.end(signal.SIGTERM) == 0
    entries = [json.loads(line) for line in process.stderr.read_text().splitlines()]
    (slow,) = [entry for entry in entries if "request_id" in entry]
    method, status = ("Predict", "OK") if port == "grpc" else ("POST predict", "200")
    assert {name: slow[name] for name in ("level", "request_id", "method", "model", "status")} == {
        "level": "info",
        "request_id": "order-66",
        "method": method,
        "model": "toy",
        "status": status,
    }
    assert slow["seconds"] >= SLOW_S
    messages = " ".join(entry["message"] for entry in entries)
    assert re.search(
        r"starting TensorFlow.* loading version 1 of model toy .* loaded version 1 of model toy in", messages
    )


def _over_grpc(target: str) -> Callable[[str, str, str | None], str]:
    """A function that sends a text to a signature with the given id, and returns the id in the answer."""
    stubs = connect(target)

    def call(signature: str, text: str, identity: str | None) -> str:
        name = "folder" if signature == "gated" else "text"
        future = stubs.prediction.Predict.future(
            predict_request(signature=signature, inputs={name: np.array([text], object)}),
            metadata=[] if identity is None else [("x-request-id", identity)],
        )
        future.exception(timeout=120)
        return str(dict(future.trailing_metadata())["x-request-id"])

    return call


def _over_rest(target: str) -> Callable[[str, str, str | None], str]:
    def call(signature: str, text: str, identity: str | None) -> str:
        with closing(http.client.HTTPConnection(target, timeout=120)) as connection:
            headers = {} if identity is None else {"X-Request-ID": identity}
            body = json.dumps({"signature_name": signature, "instances": [text]})
            connection.request("POST", "/v1/models/toy:predict", body, headers)
            return str(connection.getresponse().headers["x-request-id"])

    return call


@pytest.mark.parametrize("flag", ["--allow-reload", "--model-root=/"])
def test_reload_needs_both_flags(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--allow-reload and --model-root belong together" in str(refused(flag, monkeypatch=monkeypatch))


@pytest.mark.parametrize("address", ["s3://bucket/digits", "gs://bucket/digits"])
def test_an_object_store_is_a_one_line_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not a local folder" in str(refused(f"--model_base_path={address}", monkeypatch=monkeypatch))


def test_a_server_on_other_interfaces_warns(base_path: Path, tmp_path: Path) -> None:
    flags = [*toy(base_path), "--host=0.0.0.0", "--allow-reload", f"--model-root={base_path}"]
    with serving(tmp_path, *flags) as process:
        process.line()
        said = process.stderr.read_text()
        assert "listening on 0.0.0.0 without TLS" in said
        assert f"run any SavedModel below {base_path}" in said


def test_a_port_in_use_is_a_one_line_error_without_delay(base_path: Path, without_tensorflow: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [*without_tensorflow, "serve", *toy(base_path), "--port", str(port)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
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
def test_a_wrong_folder_is_a_one_line_error_without_delay(
    base_path: Path, prepare: Callable[[Path], Path], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refused(*toy(prepare(base_path)), monkeypatch=monkeypatch)
    assert isinstance(error, DataError)
    assert said in str(error)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("model_config_file", "ModelServerConfig"),
        ("batching_parameters_file", "BatchingParameters"),
        ("monitoring_config_file", "MonitoringConfig"),
        ("ssl_config_file", "SSLConfig"),
    ],
)
def test_the_error_for_an_invalid_file_has_tensorflow_servings_words_and_the_place_without_delay(
    flag: str, message: str, base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "no message.txt"
    file.write_text("\nno { message")
    models = [] if flag == "model_config_file" else toy(base_path)
    said = str(refused(*models, "--enable_batching", f"--{flag}={file}", monkeypatch=monkeypatch))
    assert said.startswith(f"Error parsing text-format tensorflow.serving.{message}: 2:1 : ")
    assert f"Invalid protobuf file: '{file}'" in said
    assert "digitforge" not in said.replace(str(tmp_path), "")


def test_a_process_with_an_invalid_configuration_ends_and_says_why_on_standard_error(tmp_path: Path) -> None:
    (tmp_path / "bad.config").write_text("improper: true")  # as in TensorFlow Serving's own test
    with serving(tmp_path, "--port=0", f"--model_config_file={tmp_path / 'bad.config'}") as process:
        assert process.end() == 2
        (line,) = process.stderr.read_text().splitlines()
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig" in line


GOOD = "name: 'a' base_path: '/a' model_platform: 'tensorflow'"


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ([GOOD, GOOD], "Illegal to list model a multiple times in config list"),
        ([GOOD.replace("/a", "a")], "Expected model a to have an absolute path or URI; got base_path()=a;"),
        ([GOOD.replace("/a", "gs://bucket/a")], "does not read object stores such as S3 and GCS"),
        (["name: 'a' base_path: '/a'"], "Illegal setting neither ModelServerConfig::model_type (deprecated) nor"),
        ([GOOD.replace("tensorflow", "caffe")], "PlatformConfigMap has no entry for platform caffe"),
        (["base_path: '/a' model_platform: 'tensorflow'"], "has no name"),
        ([], "lists no model"),
    ],
    ids=["a name twice", "relative", "object store", "no platform", "unknown platform", "no name", "empty"],
)
def test_a_model_configuration_that_tensorflow_serving_refuses_is_refused_in_its_words(
    models: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "models.config"
    file.write_text(f"model_config_list {{ {' '.join(f'config {{ {model} }}' for model in models)} }}")
    assert said in str(refused(f"--model_config_file={file}", "--port=0", monkeypatch=monkeypatch))


def test_the_old_field_for_the_platform_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text("model_config_list { config { name: 'a' base_path: '/a' model_type: TENSORFLOW } }")
    assert [source.name for source in read_model_config(file)] == ["a"]


def test_a_damaged_model_is_a_one_line_error(base_path: Path) -> None:
    (base_path / "1" / "saved_model.pb").write_bytes(b"\x00not a model")
    with pytest.raises(DataError) as caught:
        CliRunner().invoke(serve, toy(base_path), catch_exceptions=False)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"model toy did not become available: no version in {base_path} can be loaded; ")
    assert "version 1: " in line


def test_options_have_two_spellings_and_boolean_ones_take_an_optional_value(base_path: Path) -> None:
    shown = CliRunner().invoke(serve, ["--help"]).stdout
    assert "--model_base_path" in shown
    assert "--model-base-path" in shown
    result = CliRunner().invoke(serve, [*toy(base_path), "--enable_model_warmup=maybe"])
    assert result.exit_code == 2
    assert "maybe" in result.stderr


@pytest.mark.parametrize("given", [None, "0"])
def test_the_users_setting_for_keras_is_restored(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    if given is not None:
        monkeypatch.setenv("TF_USE_LEGACY_KERAS", given)
    while_importing: list[str | None] = []
    monkeypatch.setattr(
        "digitforge_serving.cli.startup.import_quietly",
        lambda module: while_importing.append(os.environ.get("TF_USE_LEGACY_KERAS")),
    )
    import_tensorflow()
    assert while_importing == ["1"]
    assert os.environ.get("TF_USE_LEGACY_KERAS") == given


@pytest.mark.parametrize("level", ["2", None])
def test_a_machine_without_a_gpu_gets_no_error_about_it(level: str | None, base_path: Path, tmp_path: Path) -> None:
    if has_gpu():
        pytest.skip("this machine has a GPU")
    with serving(tmp_path, *toy(base_path), **({} if level is None else {"TF_CPP_MIN_LOG_LEVEL": level})) as process:
        process.line()
        assert process.end(signal.SIGTERM) == 0
    assert [line for line in process.stderr.read_text().splitlines() if "digitforge serve:" not in line] == []


def test_other_lines_of_libraries_stay(capfd: pytest.CaptureFixture[str]) -> None:
    with suppress(ValueError), hidden_lines(b"failed call to cuInit"):
        os.write(2, b"before\nE0000 failed call to cuInit: 303\nCannot allocate\nno end")
        raise ValueError
    assert capfd.readouterr().err == "before\nCannot allocate\nno end"
