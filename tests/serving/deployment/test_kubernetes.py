"""The Kubernetes manifests are valid and agree with docker-compose.yml and the configuration."""

from __future__ import annotations

import base64
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


def manifests(*folders: str) -> list[Path]:
    """Paths of all manifests in these folders, without kustomization.yaml."""
    paths = [path for folder in folders for path in (KUBERNETES / folder).glob("*.yaml")]
    return sorted(path for path in paths if path.name != "kustomization.yaml")


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
@pytest.mark.parametrize("path", manifests("base", "fill"), ids=lambda path: path.stem)
def test_every_manifest_is_valid(path: Path, release: str) -> None:
    kubernetes_validate.validate(yaml.safe_load(path.read_text()), release, strict=True)


def test_validation_rejects_an_unknown_field() -> None:
    service = read("base/service.yaml")
    service["spec"]["clusterIp"] = "None"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, RELEASES[-1], strict=True)


@pytest.mark.parametrize("folder", ["base", "fill", "monitoring"])
def test_every_file_is_listed_for_kustomize(folder: str) -> None:
    told = read(f"{folder}/kustomization.yaml")["resources"]
    assert sorted(name for name in told if name.endswith(".yaml")) == [path.name for path in manifests(folder)]


def test_the_configuration_is_that_of_compose() -> None:
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
    assert read("base/network.yaml")["spec"]["podSelector"]["matchLabels"] == labels
    assert service["metadata"]["labels"] == read("monitoring/servicemonitor.yaml")["spec"]["selector"]["matchLabels"]
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
    job = read("fill/job.yaml")["spec"]["template"]["spec"]
    assert job["securityContext"] == pod["securityContext"]
    (loader,) = read("from-image/models.yaml")["spec"]["template"]["spec"]["initContainers"]
    for each in (container, loader, *job["containers"]):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert each["resources"]["limits"].keys() == each["resources"]["requests"].keys() == {"cpu", "memory"}


def test_a_pod_stops_only_after_the_servers_grace_period(pod: dict[str, Any], container: dict[str, Any]) -> None:
    waits = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pod["terminationGracePeriodSeconds"] >= waits + 30  # the server's --grace_seconds


def test_only_known_clients_reach_the_ports_and_the_pods_reach_nothing(container: dict[str, Any]) -> None:
    policy = read("base/network.yaml")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy
    ports = {port["name"] for port in container["ports"]}
    clients, prometheus = policy["ingress"]
    assert {entry["port"] for entry in clients["ports"]} == ports
    assert prometheus["ports"] == [{"port": "rest"}]
    for allowed in policy["ingress"]:
        assert allowed["from"]  # an empty list would let everyone in
        for peer in allowed["from"]:
            selector = peer.get("namespaceSelector")
            assert selector is None or selector["matchLabels"]  # an empty selector would let all namespaces in
    label = clients["from"][1]["namespaceSelector"]["matchLabels"]
    assert label == {"digitforge-client": "true"}
    assert "digitforge-client=true" in (ROOT / "docs" / "guides" / "production.md").read_text()


def fill(source: Path, into: Path) -> str:
    """Run the job's script on folders of this machine."""
    (container,) = read("fill/job.yaml")["spec"]["template"]["spec"]["containers"]
    *command, models, mounted = container["command"]
    assert mounted == container["volumeMounts"][0]["mountPath"]
    assert f"COPY . {models}" in (KUBERNETES / "from-image" / "Dockerfile").read_text()
    return subprocess.run(
        [*command, str(source), str(into)], capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_the_job_fills_the_volume_with_whole_versions_and_changes_none_that_is_there(tmp_path: Path) -> None:
    into, shipped = tmp_path / "volume", shipped_models()
    (into / "digits" / ".2.tmp" / "left by a killed job").mkdir(parents=True)
    assert fill(shipped, into) == "copied digits/2\n"
    assert sorted(path.name for path in (into / "digits").iterdir()) == ["2"]
    for path in (shipped / "digits" / "2").rglob("*"):
        copy = into / "digits" / "2" / path.relative_to(shipped / "digits" / "2")
        assert copy.is_dir() if path.is_dir() else copy.read_bytes() == path.read_bytes()
    (into / "digits" / "2" / "saved_model.pb").write_bytes(b"changed")
    assert fill(shipped, into) == "digits/2 is there already\n"
    assert (into / "digits" / "2" / "saved_model.pb").read_bytes() == b"changed"


def test_the_job_uses_the_servers_volume() -> None:
    (volume,) = read("fill/job.yaml")["spec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == read("base/claim.yaml")["metadata"]["name"]


@pytest.mark.parametrize(
    ("name", "kind", "fields"),
    [
        ("servicemonitor", "ServiceMonitor", {"selector", "endpoints"}),
        ("prometheusrule", "PrometheusRule", {"groups"}),
    ],
)
def test_resources_of_the_prometheus_operator_have_its_structure(name: str, kind: str, fields: set[str]) -> None:
    resource = read(f"monitoring/{name}.yaml")
    assert resource.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert (resource["apiVersion"], resource["kind"]) == ("monitoring.coreos.com/v1", kind)
    assert resource["spec"].keys() == fields


def test_the_service_monitor_scrapes_the_metrics_as_the_job_of_the_alerts() -> None:
    (endpoint,) = read("monitoring/servicemonitor.yaml")["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in read("base/service.yaml")["spec"]["ports"]}
    assert f'"{endpoint["path"]}"' in (shipped_config() / "monitoring.config").read_text()
    (job,) = yaml.safe_load((ROOT / "serving" / "monitoring" / "prometheus.yml").read_text())["scrape_configs"]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": job["job_name"]}]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of serving/kubernetes with a file ssl.config for the variant `tls`."""
    folder = tmp_path_factory.mktemp("serving")
    shutil.copytree(KUBERNETES, folder / "kubernetes")
    shutil.copytree(shipped_config(), folder / "config")
    (folder / "kubernetes" / "tls" / "ssl.config").write_text('server_key: "key" server_cert: "certificate"')
    return folder / "kubernetes"


def build(folder: Path) -> dict[str, Any]:
    """The resources that kustomize builds, by kind. All are valid and in the namespace."""
    command = ["kubectl", "kustomize", str(folder)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    resources = list(yaml.safe_load_all(text))
    for resource in resources:
        for release in RELEASES if not resource["apiVersion"].startswith("monitoring.coreos.com/") else ():
            kubernetes_validate.validate(resource, release, strict=True)
        if resource["kind"] != "Namespace":
            assert resource["metadata"]["namespace"] == read("base/kustomization.yaml")["namespace"]
    built = {resource["kind"]: resource for resource in resources}
    assert len(built) == len(resources)
    return built


@needs_kubectl
@pytest.mark.parametrize("variant", ["base", "from-image", "tls"])
def test_kustomize_builds_valid_resources_with_matching_names(variant: str, copy: Path) -> None:
    built = build(copy / variant)
    pod = built["Deployment"]["spec"]["template"]["spec"]
    volumes = {volume.pop("name"): volume for volume in pod["volumes"]}
    config = built["ConfigMap"]
    assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
    assert config["data"] == {path.name: path.read_text() for path in shipped_config().glob("*.config")}
    if variant == "from-image":
        assert "PersistentVolumeClaim" not in built
        assert volumes["models"].keys() == {"emptyDir"}
        (loader,) = pod["initContainers"]
        assert loader["command"][-1] == loader["volumeMounts"][0]["mountPath"]
    else:
        assert volumes["models"] == {"persistentVolumeClaim": {"claimName": "digits-models"}}
        assert "initContainers" not in pod
    assert ("Secret" in built) == (variant == "tls")


@needs_kubectl
def test_with_tls_the_server_reads_the_secret_and_clients_reach_only_the_encrypted_port(copy: Path) -> None:
    built = build(copy / "tls")
    pod = built["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    plain = read("base/deployment.yaml")["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == [*plain["args"], "--ssl_config_file=/tls/ssl.config"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/tls"]
    assert mount["readOnly"]
    (volume,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == mount["name"]]
    assert volume["secretName"] == built["Secret"]["metadata"]["name"]
    assert volume["defaultMode"] == 0o440  # fsGroup makes the server's group its owner
    assert base64.b64decode(built["Secret"]["data"]["ssl.config"]) == (copy / "tls" / "ssl.config").read_bytes()
    clients, prometheus = built["NetworkPolicy"]["spec"]["ingress"]
    assert (clients["ports"], prometheus["ports"]) == ([{"port": "grpc"}], [{"port": "rest"}])


@needs_kubectl
def test_kustomize_builds_the_job_and_the_monitoring(copy: Path) -> None:
    assert build(copy / "fill").keys() == {"Job"}
    assert build(copy / "monitoring").keys() == {"ServiceMonitor", "PrometheusRule"}


def test_the_private_key_for_the_manifests_stays_out_of_git() -> None:
    assert "/serving/kubernetes/tls/ssl.config" in (ROOT / ".gitignore").read_text().splitlines()
