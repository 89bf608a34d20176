"""docker-compose.yml and TensorFlow Serving's configuration agree with the contract and the code."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from serving_toys import connect, predict_request

from digitforge_client import contract
from digitforge_serving import Server, ServerOptions, shipped_config, shipped_models
from digitforge_serving.cli.serve import serve
from digitforge_serving.config.messages import read
from digitforge_serving.config.messages_pb2 import BatchingParameters, MonitoringConfig
from digitforge_serving.config.options import read_model_config
from digitforge_serving.models import publication
from digitforge_training.cli.train import train as train_command

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


@pytest.fixture(scope="module")
def service(services: dict[str, Any]) -> dict[str, Any]:
    return services["serving"]


@pytest.fixture(scope="module")
def flags(service: dict[str, Any]) -> dict[str, str]:
    return dict(argument.removeprefix("--").split("=", 1) for argument in service["command"])


def default(text: str) -> str:
    """Replace each ``${VARIABLE:-default}`` by its default, like compose."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_the_image_can_be_changed_and_the_entry_point_is_the_server_not_a_shell(service: dict[str, Any]) -> None:
    assert service["image"] == "${DIGITFORGE_SERVING_IMAGE:-tensorflow/serving:2.21.0}"
    assert service["entrypoint"] == ["tensorflow_model_server"]
    assert service["init"] is True


def test_ports_are_the_contract_s_and_published_on_loopback(service: dict[str, Any], flags: dict[str, str]) -> None:
    published = [default(port) for port in service["ports"]]
    assert published == [f"127.0.0.1:{port}:{port}" for port in (contract.GRPC_PORT, contract.REST_PORT)]
    assert (int(flags["port"]), int(flags["rest_api_port"])) == (contract.GRPC_PORT, contract.REST_PORT)


def test_the_container_cannot_write_files(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    assert default(service["mem_limit"]).endswith("g")
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ["serving", "serving-gpu", "page"])
def test_the_server_does_not_run_as_root(services: dict[str, Any], name: str) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", default(services[name]["user"]))


@pytest.mark.parametrize("name", ["serving", "serving-gpu", "page", "prometheus", "grafana", "train"])
def test_memory_processes_and_temporary_files_have_limits(services: dict[str, Any], name: str) -> None:
    service = services[name]
    memory = default(service["mem_limit"])
    assert re.fullmatch(r"\d+[mg]", memory)
    assert service["pids_limit"] <= 4096
    for mount in service.get("tmpfs", []):
        path, _, size = mount.partition(":size=")
        assert path == "/tmp"
        assert int(re.sub("g$", "000", size.removesuffix("m"))) < int(re.sub("g$", "000", memory.removesuffix("m")))


def test_an_image_can_be_pinned_by_its_digest(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"\$\{DIGITFORGE_\w+_IMAGE:-[^}]+:[^}]+\}", service["image"]), name
    assert "DIGITFORGE_SERVING_IMAGE" in (ROOT / "docs" / "guides" / "production.md").read_text()


def test_only_the_server_starts_without_a_profile(services: dict[str, Any]) -> None:
    profiles = {name: service.get("profiles", []) for name, service in services.items()}
    assert profiles == {
        "serving": [],
        "serving-gpu": ["gpu"],
        "page": ["page"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
        "train": ["train"],
    }


def test_the_gpu_service_differs_only_where_a_gpu_needs_it(services: dict[str, Any]) -> None:
    plain, gpu = services["serving"], services["serving-gpu"]
    differing = {key for key in plain.keys() | gpu.keys() if plain.get(key) != gpu.get(key)}
    assert differing == {"profiles", "image", "environment", "deploy", "networks", "tmpfs", "mem_limit"}
    assert default(gpu["image"]) == "tensorflow/serving:2.19.1-gpu"
    assert gpu["environment"]["NVIDIA_TF32_OVERRIDE"] == "0"  # TF32 would break the contract's addresses


def test_the_page_is_for_the_server_of_this_file(services: dict[str, Any], flags: dict[str, str]) -> None:
    page = services["page"]
    options = dict(argument.removeprefix("--").split("=", 1) for argument in page["command"])
    assert page["entrypoint"] == ["digitforge", "serve"]
    assert options["page-for"] == f"http://serving:{flags['rest_api_port']}"
    (port,) = page["ports"]
    assert default(port).endswith(f":{options['rest-api-port']}")
    assert (ROOT / page["build"]["dockerfile"]).is_file()
    serve.make_context("serve", list(page["command"]))  # raises an error if an option does not exist


@pytest.mark.parametrize("name", ["serving-gpu", "train"])
def test_a_gpu_is_reserved(services: dict[str, Any], name: str) -> None:
    (device,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_every_port_is_published_on_loopback_and_every_variable_is_documented(services: dict[str, Any]) -> None:
    published = [default(port) for service in services.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)
    text = (ROOT / "docker-compose.yml").read_text()
    for variable, value in re.findall(r"\$\{(\w+):-([^}]*)\}", text):
        assert re.search(rf"^# +{variable} .*{re.escape(value)}", text, re.MULTILINE), (variable, value)


def test_training_uses_the_code_of_the_mounted_checkout(services: dict[str, Any]) -> None:
    train = services["train"]
    assert default(train["image"]) == "tensorflow/tensorflow:2.21.0-gpu"
    mounts = {outside: (inside, options) for outside, inside, *options in (v.split(":") for v in train["volumes"])}
    writable = [outside for outside, (_, options) in mounts.items() if options != ["ro"]]
    assert writable == ["./runs"]
    for outside, (inside, _) in mounts.items():
        assert inside == f"{train['working_dir']}/{outside.removeprefix('./')}"
        assert (ROOT / outside).exists() or outside == "./runs"  # git ignores the run folder
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {path.partition("/")[0] for path in [*packages["packages"], *packages["force-include"]]}
    assert needed | {"pyproject.toml", "README.md", "LICENSE", "runs"} == {o.removeprefix("./") for o in mounts}
    assert train["entrypoint"][:2] == ["bash", "-c"]
    assert train["entrypoint"][2].endswith('digitforge train "$$@"')
    assert train_command.make_context("train", list(train["command"])).params["out"] == Path("runs/forge")


def test_mounted_folders_exist_and_contain_the_files_that_flags_name(
    service: dict[str, Any], flags: dict[str, str]
) -> None:
    mounts = {inside: ROOT / outside for outside, inside, _ in (default(v).split(":") for v in service["volumes"])}
    assert mounts.pop("/tls") == ROOT / "serving/config"  # the default folder has no certificates
    assert flags["ssl_config_file"] == "${DIGITFORGE_SSL_CONFIG_FILE:-}"
    assert mounts == {"/models": ROOT / "serving/models", "/config": ROOT / "serving/config"}
    assert mounts["/config"].samefile(shipped_config())
    for name in ("model_config_file", "batching_parameters_file", "monitoring_config_file"):
        folder, _, file = flags[name].rpartition("/")
        assert (mounts[folder] / file).is_file(), name


@pytest.mark.parametrize("name", ["serving", "serving-gpu"])
def test_no_flag_lets_a_rest_request_crash_tensorflow_serving(services: dict[str, Any], name: str) -> None:
    assert not [word for word in services[name]["command"] if "enable_serialization_as_tensor_content" in word]


@pytest.mark.parametrize("name", ["serving", "serving-gpu"])
def test_a_version_that_cannot_be_loaded_does_not_keep_others_from_loading(services: dict[str, Any], name: str) -> None:
    assert {"--num_load_threads=2", "--max_num_load_retries=0"} <= set(services[name]["command"])


@pytest.mark.parametrize("name", ["serving", "serving-gpu"])
def test_there_are_enough_threads_and_onednn_is_on(services: dict[str, Any], name: str) -> None:
    (threads,) = [word for word in services[name]["command"] if "grpc_max_threads" in word]
    assert int(threads.removeprefix("--grpc_max_threads=")) == 256
    assert services[name]["pids_limit"] > 2 * 256  # threads count as processes, and REST and TensorFlow need some too
    assert services[name]["environment"]["TF_ENABLE_ONEDNN_OPTS"] == "1"


def test_requests_are_batched_and_labels_may_precede_their_version(flags: dict[str, str]) -> None:
    assert flags["allow_version_labels_for_unavailable_models"] == "true"
    assert flags["enable_batching"] == "true"


def test_the_model_configuration_names_the_contract_s_model() -> None:
    (source,) = read_model_config(shipped_config() / "models.config")
    assert source.name == contract.MODEL_NAME
    assert source.base_path == Path("/models") / contract.MODEL_NAME
    assert source.choose([1, 2, 3]) == [3, 2]


def model_configurations() -> list[tuple[Path, str]]:
    """Every ModelServerConfig in the files below ``serving/``, alone or inside a manifest."""

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from texts(inner)

    found = [(path, path.read_text()) for path in sorted((ROOT / "serving").rglob("*.config"))]
    for path in [ROOT / "docker-compose.yml", *sorted((ROOT / "serving").rglob("*.y*ml"))]:
        found += [(path, text) for document in yaml.safe_load_all(path.read_text()) for text in texts(document)]
    return [(path, text) for path, text in found if "model_config_list" in text]


def test_every_label_names_a_shipped_version_that_is_loaded(tmp_path: Path) -> None:
    configurations = model_configurations()
    assert shipped_config() / "models.config" in [path for path, _ in configurations]
    labels: list[str] = []
    for path, text in configurations:
        (tmp_path / "models.config").write_text(text)
        for source in read_model_config(tmp_path / "models.config"):
            shipped = [info.version for info in publication.versions(shipped_models() / source.base_path.name)]
            assert set(source.labels.values()) <= set(source.choose(shipped)), path
            labels += source.labels
    assert "stable" in labels


def test_a_request_with_the_shipped_label_is_answered() -> None:
    (source,) = read_model_config(shipped_config() / "models.config")
    here = replace(source, base_path=shipped_models() / source.base_path.name)
    options = ServerOptions(port=0, allow_version_labels_for_unavailable_models=True, enable_model_warmup=False)
    server = Server([here], options)
    try:
        assert server.start()
        request = predict_request(model=source.name, inputs={"labels": np.array([7]), "seeds": np.array([1])})
        request.model_spec.version_label = "stable"
        assert connect(server.target).predict(request).model_spec.version.value == source.labels["stable"]
    finally:
        server.stop(0)


def test_the_largest_batch_has_the_contracts_number_of_rows() -> None:
    batching = read(shipped_config() / "batching.config", BatchingParameters)
    sizes = list(batching.allowed_batch_sizes)
    assert batching.max_batch_size.value == contract.MAX_ROWS
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == contract.MAX_ROWS
    assert batching.max_enqueued_batches.value > 10


def test_metrics_are_enabled_at_tensorflow_servings_default_path() -> None:
    monitoring = read(shipped_config() / "monitoring.config", MonitoringConfig)
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"


@pytest.mark.parametrize(
    ("body", "healthy"),
    [
        ('{ "model_version_status": [ { "version": "1", "state": "AVAILABLE" } ] }', True),
        ('{ "model_version_status": [ { "version": "1", "state": "UNAVAILABLE" } ] }', False),
        ('{ "model_version_status": [ { "version": "1", "state": "END" } ] }', False),
    ],
)
def test_the_health_check_tests_the_state_of_the_model(service: dict[str, Any], body: str, healthy: bool) -> None:
    """Run the command of the compose file against a page in TensorFlow Serving's format."""
    kind, *command = service["healthcheck"]["test"]
    assert kind == "CMD"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = bytearray()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                while not asked.endswith(b"\r\n\r\n"):
                    asked.extend(connection.recv(4096))
                connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

        thread = threading.Thread(target=answer)
        thread.start()
        command[-1] = command[-1].replace("/8501", f"/{listener.getsockname()[1]}")
        result = subprocess.run(command, check=False, timeout=20)
        thread.join()
    assert asked.startswith(f"GET /v1/models/{contract.MODEL_NAME} HTTP/1.0\r\n\r\n".encode())
    assert (result.returncode == 0) == healthy


def test_the_health_check_fails_if_nothing_listens(service: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = service["healthcheck"]["test"][1:]
    command[-1] = command[-1].replace("/8501", f"/{port}")
    assert subprocess.run(command, check=False, timeout=20, stderr=subprocess.DEVNULL).returncode != 0


def test_compose_mounts_the_shipped_models() -> None:
    assert shipped_models().samefile(ROOT / "serving" / "models")


def test_the_embedded_server_accepts_the_flags_of_the_compose_file(service: dict[str, Any]) -> None:
    given = serve.make_context("serve", [default(argument) for argument in service["command"]]).params
    assert given["ssl_config_file"] == ""  # no TLS
    assert (given["port"], given["rest_api_port"]) == (contract.GRPC_PORT, contract.REST_PORT)
    assert given["model_config_file"] == Path("/config/models.config")
    assert given["enable_batching"] is True
    assert given["enable_serialization_as_tensor_content"] is False
    assert given["allow_version_labels_for_unavailable_models"] is True
