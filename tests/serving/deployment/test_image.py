"""serving/Dockerfile: its steps and its server, without a container engine. test_container.py uses it in a real one."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import yaml
from ports import free_port
from serving_toys import connect, predict_request, wait_for

from digitforge_client import contract
from digitforge_serving.cli.serve import serve
from digitforge_serving.models.states import AVAILABLE

ROOT = Path(__file__).parents[3]


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: (name, arguments)."""
    text = re.sub(r"^#.*\n", "", (ROOT / "serving" / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line)]


def last(name: str) -> str:
    return [rest for other, rest in instructions() if other == name][-1]


def context() -> tuple[list[str], list[str]]:
    """What the engine sends to the build: (paths that .dockerignore lets through, names left out below them)."""
    first, *rest = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert first == "*"
    allowed = [line.removeprefix("!") for line in rest if line.startswith("!")]
    return allowed, [line.removeprefix("**/") for line in rest if line.startswith("**/")]


def health_check(port: int) -> list[str]:
    command = json.loads(last("HEALTHCHECK").partition(" CMD ")[2])
    assert command[0] == "python"
    return [word.replace("8501", str(port)) for word in command]


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["serving"]


def test_only_known_instructions_are_used_and_commands_start_no_shell() -> None:
    names = {name for name, _ in instructions()}
    known = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert names <= known
    for name in ("ENTRYPOINT", "CMD"):
        assert all(isinstance(word, str) for word in json.loads(last(name)))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))  # by number, so Kubernetes sees that it is not root
    assert [rest for name, rest in instructions() if name == "FROM"] == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]
    assert last("ARG") == "PYTHON_IMAGE=python:3.12-slim"


def test_every_file_that_is_copied_exists_and_is_sent_to_the_build() -> None:
    allowed, _ = context()
    for path in allowed:
        assert (ROOT / path).exists(), path
    sources: set[str] = set()
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            sources |= set(rest.split()[:-1])
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(f"{path}/".startswith(f"{source}/") for path in allowed), source
    assert not [path for path in allowed if not any(f"{path}/".startswith(f"{source}/") for source in sources)]


def test_the_image_replaces_tensorflow_serving_in_compose_and_kubernetes(composed: dict[str, Any]) -> None:
    program = ROOT / "serving" / "tensorflow_model_server"
    assert json.loads(last("ENTRYPOINT")) == composed["entrypoint"] == [program.name]
    assert os.access(program, os.X_OK)
    assert f"COPY serving/{program.name} /usr/local/bin/{program.name}" in [f"{n} {r}" for n, r in instructions()]
    assert 'exec digitforge serve --host=0.0.0.0 "$@"' in program.read_text()
    flags = json.loads(last("CMD"))
    assert set(flags) <= set(composed["command"])
    assert serve.make_context("serve", list(flags)).params["rest_api_port"] == contract.REST_PORT
    assert last("EXPOSE").split() == [str(contract.GRPC_PORT), str(contract.REST_PORT)]
    assert f"user: ${{DIGITFORGE_USER:-{last('USER')}}}" in (ROOT / "docker-compose.yml").read_text()


@dataclass
class Installed:
    """The result of the Dockerfile's steps in a folder of this machine."""

    environment: Path
    root: Path

    def start(self, ports: dict[str, int], stderr: Path) -> subprocess.Popen[str]:
        """Start the image's command as its user, on these ports instead of 8500 and 8501."""
        words = [*json.loads(last("ENTRYPOINT")), *json.loads(last("CMD"))]
        for name, port in ports.items():
            words = [word if not word.startswith(f"--{name}=") else f"--{name}={port}" for word in words]
        words = [word.replace("=/config/", f"={self.root}/config/") for word in words]
        words[0] = str(self.environment / "bin" / words[0])
        return subprocess.Popen(
            self.as_user(words),
            stdout=subprocess.PIPE,
            stderr=stderr.open("w"),
            text=True,
            cwd="/",
            env=self.variables(),
        )

    def variables(self) -> dict[str, str]:
        given = dict(pair.split("=") for pair in last("ENV").split())
        return {"PATH": f"{self.environment / 'bin'}:/usr/bin:/bin", **given}

    def as_user(self, command: list[str]) -> list[str]:
        if os.geteuid() != 0:
            return command
        user, _, group = last("USER").partition(":")
        switch = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
        # May read everything, because this Python can be in a folder that only root can enter.
        read = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
        return [*switch, *read, *command]


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    """Build the wheel from what the engine would get, and install it in an environment of its own.

    The dependencies come from the environment of the tests, so this needs no network.
    """
    folder = Path(tempfile.mkdtemp(prefix="digitforge-image-"))  # pytest's folders are closed to other users
    try:
        folder.chmod(0o755)
        allowed, left_out = context()
        for path in allowed:
            (folder / "build" / path).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / path).is_dir():
                shutil.copytree(ROOT / path, folder / "build" / path, ignore=shutil.ignore_patterns(*left_out))
            else:
                shutil.copy(ROOT / path, folder / "build" / path)
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "wheels")]
        subprocess.run(build, cwd=folder / "build", capture_output=True, check=True)
        (wheel,) = (folder / "wheels").glob("digitforge-*.whl")
        environment = folder / "environment"
        venv.create(environment, with_pip=True, symlinks=True)
        pip = [str(environment / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([*pip, str(wheel)], check=True)
        (packages,) = (environment / "lib").glob("python*/site-packages")
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        shutil.copy(folder / "build" / "serving" / "tensorflow_model_server", environment / "bin")
        shutil.copytree(folder / "build" / "serving" / "models", folder / "models")
        shutil.copytree(folder / "build" / "serving" / "config", folder / "config")
        models = folder / "config" / "models.config"
        models.write_text(models.read_text().replace('"/models/', f'"{folder}/models/'))
        yield Installed(environment, folder)
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (Debian package: util-linux)")
def test_the_installed_image_serves_as_its_user_is_healthy_and_stops_cleanly(
    installed: Installed, tmp_path: Path
) -> None:
    ports = {"port": free_port(), "rest_api_port": free_port()}
    check = installed.as_user(health_check(ports["rest_api_port"]))

    def healthy() -> bool:
        done = subprocess.run(check, env=installed.variables(), capture_output=True, check=False, timeout=60)
        return done.returncode == 0

    assert not healthy()  # nothing runs
    process = installed.start(ports, tmp_path / "stderr.txt")
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 240)[0], (tmp_path / "stderr.txt").read_text()
        announced = process.stdout.readline()
        assert announced.startswith("digits version 2 ready: gRPC 0.0.0.0:"), (tmp_path / "stderr.txt").read_text()
        assert healthy()
        if os.geteuid() == 0:
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert re.search(r"^Uid:\s+65532\s+65532", status, re.MULTILINE)
        loaded = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert str(installed.environment) in loaded  # exec: the shell was replaced
        stubs = connect(f"127.0.0.1:{ports['port']}")
        inputs = {"labels": tf.constant([7], tf.int64), "seeds": tf.constant([1], tf.int64)}
        request = predict_request(model="digits", inputs=inputs)
        request.model_spec.version_label = "stable"
        assert tf.make_ndarray(stubs.predict(request).outputs["images"]).any()
        assert stubs.states("digits") == {2: AVAILABLE}
        (installed.root / "models" / "digits" / "2").rename(installed.root / "models" / "digits" / ".2")
        wait_for(lambda: not healthy())
        (installed.root / "models" / "digits" / ".2").rename(installed.root / "models" / "digits" / "2")
        wait_for(healthy)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert "waiting for requests in flight" in (tmp_path / "stderr.txt").read_text()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
