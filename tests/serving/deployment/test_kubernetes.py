"""The Kubernetes manifests are valid and agree with docker-compose.yml and the configuration."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from digitforge_client import contract
from digitforge_serving import shipped_config, shipped_models
from digitforge_serving.cli.serve import serve
from digitforge_serving.config.options import parse_channel_arguments

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "serving" / "kubernetes"
#: The oldest supported release, and the newest one whose schema is installed.
RELEASES = ("1.27", kubernetes_validate.latest_version())
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl to build the manifests")


def manifests() -> list[Path]:
    """Paths of all manifests, without kustomization.yaml and patches."""
    return sorted(path for path in (KUBERNETES / "base").glob("*.yaml") if path.name != "kustomization.yaml")


def read(name: str) -> Any:
    return yaml.safe_load((KUBERNETES / name).read_text())


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    return read("base/deployment.yaml")["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    return only


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["serving"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("path", manifests(), ids=lambda path: path.stem)
def test_every_manifest_is_valid(path: Path, release: str) -> None:
    kubernetes_validate.validate(yaml.safe_load(path.read_text()), release, strict=True)


def test_validation_rejects_an_unknown_field() -> None:
    service = read("base/service.yaml")
    service["spec"]["clusterIp"] = "None"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, RELEASES[-1], strict=True)


def test_every_file_is_listed_for_kustomize() -> None:
    told = read("base/kustomization.yaml")["resources"]
    assert sorted(name for name in told if name.endswith(".yaml")) == [path.name for path in manifests()]
    assert (KUBERNETES / "base" / "../../config").samefile(shipped_config())
    (generated,) = yaml.safe_load((shipped_config() / "kustomization.yaml").read_text())["configMapGenerator"]
    assert sorted(generated["files"]) == sorted(path.name for path in shipped_config().glob("*.config"))


def test_the_server_starts_with_the_same_options_as_in_compose(
    container: dict[str, Any], composed: dict[str, Any]
) -> None:
    assert container["command"] == composed["entrypoint"]
    assert container["args"][:-1] == [word for word in composed["command"] if "ssl_config_file" not in word]
    name, _, arguments = container["args"][-1].partition("=")
    assert name == "--grpc_channel_arguments"
    assert dict(parse_channel_arguments(arguments)).keys() == {
        "grpc.max_connection_age_ms",
        "grpc.max_connection_age_grace_ms",
    }
    assert {entry["name"]: entry["value"] for entry in container["env"]} == composed["environment"]
    serve.make_context("serve", list(container["args"]))  # accepts the same flags
    (image,) = read("base/kustomization.yaml")["images"]
    assert f"{image['name']}:{image['newTag']}" in composed["image"]
    assert container["image"] == image["name"]
    check = next(word for word in composed["healthcheck"]["test"] if "dev/tcp" in word)
    assert container["readinessProbe"]["exec"]["command"] == ["bash", "-c", check]


def test_no_flag_lets_a_rest_request_crash_tensorflow_serving() -> None:
    for path in KUBERNETES.rglob("*.yaml"):
        assert "enable_serialization_as_tensor_content" not in path.read_text(), path


def test_there_are_enough_threads_and_onednn_is_on(container: dict[str, Any]) -> None:
    assert "--grpc_max_threads=256" in container["args"]
    assert {"name": "TF_ENABLE_ONEDNN_OPTS", "value": "1"} in container["env"]


def test_ports_are_the_contract_s_from_the_service_to_the_container(container: dict[str, Any]) -> None:
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": contract.GRPC_PORT, "rest": contract.REST_PORT}
    service = read("base/service.yaml")["spec"]
    assert {port["targetPort"]: port["port"] for port in service["ports"]} == ports
    assert {container[probe]["tcpSocket"]["port"] for probe in ("startupProbe", "livenessProbe")} == {"grpc"}
    annotations = read("base/deployment.yaml")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(contract.REST_PORT)
    assert f'"{annotations["prometheus.io/path"]}"' in (shipped_config() / "monitoring.config").read_text()


def test_the_service_is_headless_and_all_resources_select_the_same_pods() -> None:
    service, deployment = read("base/service.yaml"), read("base/deployment.yaml")
    assert service["spec"]["clusterIP"] == "None"  # headless: the client uses the replicas in turn
    name, namespace = service["metadata"]["name"], read("base/kustomization.yaml")["namespace"]
    address = f"dns:///{name}.{namespace}.svc.cluster.local:{contract.GRPC_PORT}"
    assert address in (KUBERNETES / "base" / "service.yaml").read_text()
    assert address in (ROOT / "docs" / "guides" / "production.md").read_text()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    budget = read("base/disruption.yaml")["spec"]
    assert service["spec"]["selector"] == labels
    assert deployment["spec"]["selector"]["matchLabels"] == budget["selector"]["matchLabels"] == labels
    autoscaler = read("base/autoscaler.yaml")["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]  # otherwise `apply` would reset the autoscaler's number
    assert autoscaler["minReplicas"] > budget["maxUnavailable"]


def test_flags_point_to_mounted_files(pod: dict[str, Any], container: dict[str, Any]) -> None:
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in mounts.values()} == set(volumes)
    assert mounts["/models"]["readOnly"]
    assert mounts["/config"]["readOnly"]
    for argument in container["args"]:
        if match := re.search(r"=/config/(.+)", argument):
            assert (shipped_config() / match[1]).is_file()
    assert 'base_path: "/models/digits"' in (shipped_config() / "models.config").read_text()
    assert (shipped_models() / contract.MODEL_NAME).is_dir()
    claimed = volumes[mounts["/models"]["name"]]["persistentVolumeClaim"]["claimName"]
    assert claimed == read("base/claim.yaml")["metadata"]["name"]
    (generated,) = yaml.safe_load((shipped_config() / "kustomization.yaml").read_text())["configMapGenerator"]
    assert volumes["config"]["configMap"]["name"] == generated["name"]


def test_the_pod_meets_the_namespaces_restricted_policy(pod: dict[str, Any], container: dict[str, Any]) -> None:
    labels = read("base/namespace.yaml")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (loader,) = read("from-image/models.yaml")["spec"]["template"]["spec"]["initContainers"]
    for each in (container, loader):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert each["resources"]["limits"].keys() == each["resources"]["requests"].keys() == {"cpu", "memory"}


def test_a_pod_stops_only_after_the_servers_grace_period(pod: dict[str, Any], container: dict[str, Any]) -> None:
    waits = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pod["terminationGracePeriodSeconds"] >= waits + 30  # the server's --grace_seconds


@needs_kubectl
@pytest.mark.parametrize("variant", ["base", "from-image"])
def test_kustomize_builds_valid_resources_with_matching_names(variant: str) -> None:
    command = ["kubectl", "kustomize", str(KUBERNETES / variant)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    built = {resource["kind"]: resource for resource in yaml.safe_load_all(text)}
    for resource in built.values():
        for release in RELEASES:
            kubernetes_validate.validate(resource, release, strict=True)
        if resource["kind"] != "Namespace":
            assert resource["metadata"]["namespace"] == built["Namespace"]["metadata"]["name"]
    pod = built["Deployment"]["spec"]["template"]["spec"]
    volumes = {volume.pop("name"): volume for volume in pod["volumes"]}
    config = built["ConfigMap"]
    assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
    assert config["data"] == {path.name: path.read_text() for path in shipped_config().glob("*.config")}
    if variant == "base":
        assert volumes["models"] == {"persistentVolumeClaim": {"claimName": "digits-models"}}
        assert "initContainers" not in pod
    else:
        assert "PersistentVolumeClaim" not in built
        assert volumes["models"].keys() == {"emptyDir"}
        (loader,) = pod["initContainers"]
        assert loader["command"][-1] == loader["volumeMounts"][0]["mountPath"]
