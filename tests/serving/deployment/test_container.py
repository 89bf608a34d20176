"""docker-compose.yml in a real container engine: mounts, ports, health, restarts, new versions, stopping.

The image is that of serving/Dockerfile: the embedded server, started with TensorFlow Serving's command and flags. So
these tests do not cover TensorFlow Serving itself. If the engine cannot get the Dockerfile's base image, an image with
the same server is made from files on this machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import standin
import tensorflow as tf
import yaml
from ports import free_port
from serving_toys import Stubs, connect, wait_for
from tensorflow_serving.apis import predict_pb2

from digitforge_client import TLS, DigitClient, ServerUnavailableError
from digitforge_serving import shipped_models
from digitforge_serving.models import publication
from digitforge_serving.models.states import AVAILABLE

ROOT = Path(__file__).parents[3]
SHIPPED = publication.versions(shipped_models() / "digits")[0].version
(BASE_IMAGE,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", (ROOT / "serving" / "Dockerfile").read_text(), re.MULTILINE)
PROFILES = {"serving": "", "serving-gpu": "gpu", "prometheus": "monitoring", "grafana": "monitoring", "train": "train"}


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except OSError:
        return False


def _compose() -> list[str] | None:
    """The command for compose, or None if compose or a running engine is missing."""
    if not _succeeds("docker", "info"):
        return None
    candidates = (["docker", "compose"], ["docker-compose"])
    return next((command for command in candidates if _succeeds(*command, "version")), None)


COMPOSE = _compose()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        COMPOSE is None,
        reason="there is no container engine with compose (Debian: docker.io and docker-compose, and dockerd running)",
    ),
]


@dataclass
class Project:
    """A separate compose project."""

    name: str
    environment: dict[str, str]

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run compose with the repository's file and return its standard output."""
        assert COMPOSE is not None
        command = [*COMPOSE, "-f", str(ROOT / "docker-compose.yml"), "-p", self.name, *arguments]
        result = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False, timeout=300
        )
        assert not check or result.returncode == 0, result.stderr
        return result.stdout

    def inspect(self) -> dict[str, Any]:
        """Return the engine's description of the container."""
        container = self.compose("ps", "-q", "serving").strip()
        text = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True).stdout
        return json.loads(text)[0]

    def inside(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run bash in the container."""
        command = ["docker", "exec", self.inspect()["Id"], "bash", "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def wait_until_healthy(self) -> None:
        self.wait_for(lambda state: state["Running"] and state["Health"]["Status"] == "healthy")

    def wait_for(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        deadline = time.monotonic() + 240
        while not condition(state := self.inspect()["State"]):
            assert time.monotonic() < deadline, (state, self.compose("logs", "--no-color", check=False))
            time.sleep(0.5)


def _has_base_image() -> bool:
    return _succeeds("docker", "image", "inspect", BASE_IMAGE) or _succeeds("docker", "pull", "--quiet", BASE_IMAGE)


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    tag = f"digitforge-test:{os.getpid()}"
    try:
        if _has_base_image():
            build = ["docker", "build", "--tag", tag, "--file", str(ROOT / "serving" / "Dockerfile"), str(ROOT)]
            done = subprocess.run(build, capture_output=True, text=True, check=False, timeout=1200)
            assert done.returncode == 0, done.stderr
        else:
            standin.build(tag)
        yield tag
    finally:
        subprocess.run(["docker", "rmi", "--force", tag], capture_output=True, check=False)


@pytest.fixture
def project(image: str, tmp_path: Path) -> Iterator[Project]:
    """The service, started and healthy, with a copy of the shipped models."""
    models = tmp_path / "models"
    shutil.copytree(shipped_models(), models)
    tmp_path.chmod(0o755)
    started = Project(
        f"digitforge-test-{os.getpid()}",
        {
            "DIGITFORGE_SERVING_IMAGE": image,
            "DIGITFORGE_MODELS": str(models),
            "DIGITFORGE_GRPC_PORT": str(free_port()),
            "DIGITFORGE_REST_PORT": str(free_port()),
        },
    )
    try:
        started.compose("up", "-d")
        started.wait_until_healthy()
        yield started
    finally:
        started.compose("down", "--volumes", "--timeout", "1", check=False)


@pytest.fixture
def stubs(project: Project) -> Iterator[Stubs]:
    connected = connect(f"127.0.0.1:{project.environment['DIGITFORGE_GRPC_PORT']}")
    yield connected
    connected.channel.close()


def digits(rows: int) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "digits"
    request.inputs["labels"].CopyFrom(tf.make_tensor_proto(np.arange(rows) % 10, tf.int64))
    request.inputs["seeds"].CopyFrom(tf.make_tensor_proto(np.arange(rows), tf.int64))
    return request


@pytest.mark.parametrize("profiles", [(), ("gpu",), ("monitoring",), ("train",), ("gpu", "monitoring", "train")])
def test_compose_accepts_every_profile(profiles: tuple[str, ...]) -> None:
    started = Project("digitforge-test-config", {"DIGITFORGE_GRPC_PORT": "9500"})
    resolved = yaml.safe_load(started.compose(*(f"--profile={profile}" for profile in profiles), "config"))
    wanted = {name for name, needed in PROFILES.items() if not needed or needed in profiles}
    assert wanted <= set(resolved["services"])
    assert "9500" in str(resolved["services"]["serving"]["ports"])


def test_the_service_becomes_healthy_answers_on_loopback_and_cannot_write_files(project: Project, stubs: Stubs) -> None:
    images = tf.make_ndarray(stubs.predict(digits(4)).outputs["images"])
    assert images.shape == (4, 28, 28, 1)
    assert images.any(axis=(1, 2, 3)).all()
    assert len(project.compose("ps", "-q").split()) == 1  # services with a profile do not start
    details = project.inspect()
    bound = [place["HostIp"] for places in details["NetworkSettings"]["Ports"].values() for place in places or []]
    assert set(bound) == {"127.0.0.1"}
    assert details["HostConfig"]["Memory"] == 2 * 2**30
    assert details["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    for path in ("/here", "/models/digits/here", "/config/here", "/usr/local/bin/here"):
        attempt = project.inside(f"touch {path}")
        assert attempt.returncode != 0
        assert "Read-only file system" in attempt.stderr
    assert project.inside("touch /tmp/here").returncode == 0
    status = project.inside("cat /proc/self/status").stdout
    assert "CapEff:\t0000000000000000" in status
    assert "Uid:\t65532\t65532" in status
    assert "NoNewPrivs:\t1" in status


def test_the_image_runs_alone_as_a_user_without_rights_and_is_healthy(image: str) -> None:
    if not _has_base_image():
        pytest.skip(f"the engine cannot get {BASE_IMAGE}, so serving/Dockerfile cannot be built")
    run = ["docker", "run", "--detach", "--rm", "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", image]
    container = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()

    def shown(template: str) -> str:
        inspect = ["docker", "inspect", "--format", template, container]
        return subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()

    try:
        wait_for(lambda: shown("{{.State.Health.Status}}") == "healthy")
        assert shown("{{.Config.User}}") == "65532:65532"
        subprocess.run(["docker", "stop", container], capture_output=True, check=True)
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, check=False)


def test_a_published_version_is_served_without_a_restart(project: Project, stubs: Stubs) -> None:
    before = project.inspect()["State"]["StartedAt"]
    base = Path(project.environment["DIGITFORGE_MODELS"]) / "digits"
    assert stubs.states("digits") == {SHIPPED: AVAILABLE}
    published = publication.promote(base / str(SHIPPED), base).version
    wait_for(lambda: stubs.states("digits").get(published) == AVAILABLE)
    assert stubs.predict(digits(1)).model_spec.version.value == published
    labeled = digits(1)
    labeled.model_spec.version_label = "stable"  # serving/config/models.config
    assert stubs.predict(labeled).model_spec.version.value == SHIPPED
    assert project.inspect()["State"]["StartedAt"] == before


def test_a_killed_server_is_restarted(project: Project, stubs: Stubs) -> None:
    assert project.inspect()["RestartCount"] == 0
    project.inside("kill -KILL -1")  # kills everything but init, which ends with its child
    project.wait_for(lambda _: project.inspect()["RestartCount"] == 1)
    project.wait_until_healthy()
    stubs.predict(digits(1))


def test_a_container_is_unhealthy_while_its_model_does_not_serve(project: Project) -> None:
    """The server runs, but the mounted folder has no version."""
    base = Path(project.environment["DIGITFORGE_MODELS"]) / "digits"
    project.compose("stop")
    (base / str(SHIPPED)).rename(base / ".away")
    project.compose("start")
    time.sleep(15)  # longer than the server takes to start, shorter than the check's start period
    assert project.inspect()["State"]["Health"]["Status"] == "starting"
    (base / ".away").rename(base / str(SHIPPED))
    project.wait_until_healthy()


def test_generated_certificates_work_for_mutual_tls(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    command = [
        sys.executable,
        "-m",
        "digitforge",
        "certificates",
        "--mutual",
        "--out",
        str(folder),
    ]
    subprocess.run(command, capture_output=True, check=True)
    for path in (folder, *folder.iterdir()) if os.geteuid() == 0 else ():
        os.chown(path, 1000, 1000)  # a normal user, whose private files the container's root cannot read
    project.environment |= {"DIGITFORGE_TLS": str(folder), "DIGITFORGE_SSL_CONFIG_FILE": "/tls/ssl.config"}
    project.compose("up", "-d")
    project.wait_until_healthy()  # over REST, which is not encrypted
    target = f"127.0.0.1:{project.environment['DIGITFORGE_GRPC_PORT']}"
    ours = TLS(ca=folder / "ca.crt", certificate=folder / "client.crt", key=folder / "client.key")
    with DigitClient(target, tls=ours) as client:
        assert client.sample(4, seed=0).images.any(axis=(1, 2)).all()
    for stranger in (None, TLS(ca=folder / "ca.crt")):
        with DigitClient(target, tls=stranger) as client, pytest.raises(ServerUnavailableError):
            client.sample(1, seed=0)


def test_stopping_lets_requests_in_flight_finish(project: Project, stubs: Stubs) -> None:
    stopped = threading.Event()
    answered: list[int] = []
    failed: list[grpc.StatusCode] = []

    def ask() -> None:
        while not stopped.is_set():
            try:
                stubs.predict(digits(32))
                answered.append(32)
            except grpc.RpcError as error:
                failed.append(error.code())
                return  # rejected: the server was stopping already

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(answered) > len(threads))
    project.compose("stop")
    stopped.set()
    for thread in threads:
        thread.join()
    state = project.inspect()["State"]
    assert answered
    assert set(failed) <= {grpc.StatusCode.UNAVAILABLE}
    assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 0, False)
    assert "waiting for requests in flight" in project.compose("logs", "--no-color")
