"""Prometheus finds the servers, Grafana finds Prometheus, and the dashboard uses existing metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from ports import free_port
from serving_toys import connect, predict_request, wait_for

from digitforge_serving import ModelSource, Server, ServerOptions, shipped_config
from digitforge_serving.config.options import PROMETHEUS_PATH, BatchingOptions, read_metrics_path

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "serving" / "monitoring"
#: The dashboard's metrics, as TensorFlow Serving 2.21 names them, and their labels.
KNOWN = {
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:serving:request_latency": {"model_name", "API", "entrypoint"},
    ":tensorflow:serving:runtime_latency": {"model_name", "API", "runtime"},
    ":tensorflow:serving:batching_session:queuing_latency": {"thread_pool_name"},
    ":tensorflow:serving:batching_session:processed_batch_size": {"thread_pool_name"},
    ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads((MONITORING / "grafana" / "dashboards" / "serving.json").read_text())


@pytest.fixture(scope="module")
def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return group["rules"]


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_prometheus_scrapes_the_address_of_the_metrics(services: dict[str, Any]) -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (discovery,) = job["dns_sd_configs"]
    assert job["metrics_path"] == read_metrics_path(shipped_config() / "monitoring.config")
    assert discovery["names"] == ["serving"]
    assert f"--rest_api_port={discovery['port']}" in services["serving"]["command"]
    assert services["serving-gpu"]["networks"]["default"]["aliases"] == discovery["names"]


def test_the_dashboard_uses_the_provisioned_prometheus(services: dict[str, Any], dashboard: dict[str, Any]) -> None:
    provisioning = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    url = urllib.parse.urlsplit(source["url"])
    assert url.hostname in services
    assert any(port.endswith(f":{url.port}") for port in services[url.hostname]["ports"])
    for asked in [*dashboard["panels"], *dashboard["templating"]["list"]]:
        assert asked["datasource"] == {"type": source["type"], "uid": source["uid"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "serving.yml").read_text())["providers"]
    mounts = {inside: ROOT / outside for outside, inside, *_ in (v.split(":") for v in services["grafana"]["volumes"])}
    assert (mounts[provider["options"]["path"]] / "serving.json").is_file()
    assert mounts["/etc/grafana/provisioning"] == provisioning


def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def families(expressions: list[str]) -> set[str]:
    """The metrics that expressions use. All metrics and labels are TensorFlow Serving's."""
    asked = set()
    for expression in expressions:
        for name, selector in re.findall(r"(:tensorflow:[a-z_:]+)(\{[^}]*\})?", expression):
            family = re.sub(r"_(bucket|sum|count)$", "", name) if name not in KNOWN else name
            asked.add(family)
            assert set(re.findall(r"(\w+)[!=]~?\"", selector)) <= KNOWN[family], expression
    return asked


def test_the_dashboard_uses_metrics_and_labels_of_tensorflow_serving(dashboard: dict[str, Any]) -> None:
    assert families(expressions(dashboard)) == set(KNOWN)


def test_the_alerts_use_metrics_and_labels_of_tensorflow_serving(rules: list[dict[str, Any]]) -> None:
    assert families([rule["expr"] for rule in rules]) == {
        ":tensorflow:serving:request_count",
        ":tensorflow:serving:request_latency",
        ":tensorflow:cc:saved_model:load_attempt_count",
    }
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}


def test_prometheus_in_compose_and_the_operator_in_kubernetes_get_the_same_alerts(services: dict[str, Any]) -> None:
    alerts = MONITORING / "alerts.yml"
    (named,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["rule_files"]
    assert f"./{alerts.relative_to(ROOT)}:/etc/prometheus/{named}:ro" in services["prometheus"]["volumes"]
    rule = yaml.safe_load((ROOT / "serving" / "kubernetes" / "monitoring" / "prometheusrule.yaml").read_text())
    assert rule["spec"] == yaml.safe_load(alerts.read_text())


QUIET: dict[str, str] = {
    'up{job="tensorflow-serving", instance="a"}': "1x30",
    ':tensorflow:serving:request_count{model_name="digits", status="OK", instance="a"}': "0+600x30",
    ':tensorflow:serving:request_latency_bucket{model_name="digits", le="100000", instance="a"}': "0+600x30",
    ':tensorflow:serving:request_latency_bucket{model_name="digits", le="+Inf", instance="a"}': "0+600x30",
    ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/digits/2", status="success"}': "1x30",
}
COUNT = ':tensorflow:serving:request_count{{model_name="digits", status="{}", instance="a"}}'
FAILED = ':tensorflow:cc:saved_model:load_attempt_count{model_path="/models/digits/3", status="fail"}'
LATENCY = ':tensorflow:serving:request_latency_bucket{{model_name="digits", le="{}", instance="a"}}'


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool on PATH (Debian package: prometheus)")
@pytest.mark.parametrize(
    ("changed", "firing"),
    [
        ({}, []),
        ({'up{job="tensorflow-serving", instance="a"}': "1x5 0x25"}, ["DigitforgeServerDown"]),
        ({'up{job="tensorflow-serving", instance="a"}': "_x30"}, ["DigitforgeServerDown"]),
        (
            {COUNT.format("OK"): "0+600x5 3000x25", COUNT.format("NOT_FOUND"): "0x5 0+600x25"},
            ["DigitforgeErrorShare", "DigitforgeNoVersionAvailable"],
        ),
        ({COUNT.format("NOT_FOUND"): "0+6x30"}, []),  # a client asks for a version that does not exist
        ({FAILED: "_x18 1x12"}, ["DigitforgeVersionCannotBeLoaded"]),
        ({FAILED: "0x18 1x12"}, ["DigitforgeVersionCannotBeLoaded"]),
        ({FAILED: "1x30"}, []),
        ({COUNT.format("INVALID_ARGUMENT"): "0+60x30"}, ["DigitforgeErrorShare"]),
        ({COUNT.format("INVALID_ARGUMENT"): "0+20x30"}, []),
        ({COUNT.format("UNAVAILABLE"): "0+6x30"}, ["DigitforgeQueueFull"]),
        ({COUNT.format("RESOURCE_EXHAUSTED"): "0+6x30"}, ["DigitforgeQueueFull"]),
        (
            {LATENCY.format("100000"): "0+500x30", LATENCY.format("1.5e+06"): "0+600x30"},
            ["DigitforgeSlow"],
        ),
    ],
    ids=[
        "all is well",
        "a server ends",
        "no server",
        "no version",
        "one wrong client",
        "a first failed load",
        "a failed load",
        "an old failed load",
        "many errors",
        "few errors",
        "full queue",
        "long wait",
        "slow",
    ],
)
def test_alerts_fire_when_they_should_and_only_then(
    changed: dict[str, str], firing: list[str], rules: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Give promtool half an hour of metrics, and ask which alerts fire at its end."""
    series = [{"series": name, "values": values} for name, values in {**QUIET, **changed}.items()]
    case = {
        "rule_files": [str(MONITORING / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": "30m",
                        "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(case))
    result = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def prometheus(tmp_path: Path, base_path: Path) -> Iterator[str]:
    """Address of a real Prometheus that uses our configuration, with a test server's address in place of the name."""
    options = ServerOptions(port=0, rest_api_port=0, metrics_path=PROMETHEUS_PATH, batching=BatchingOptions())
    server = Server([ModelSource(name="toy", base_path=base_path)], options)
    with ExitStack() as stack:
        server.start()
        stack.callback(server.stop, 1)
        config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        config["global"]["scrape_interval"] = "1s"
        del config["scrape_configs"][0]["dns_sd_configs"]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [server.rest_target]}]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        shutil.copy(MONITORING / "alerts.yml", tmp_path)
        address = f"127.0.0.1:{free_port()}"
        process = stack.enter_context(
            subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={tmp_path}/prometheus.yml",
                    f"--storage.tsdb.path={tmp_path}/data",
                    f"--web.listen-address={address}",
                    "--log.level=error",
                ]
            )
        )
        stack.callback(process.kill)
        stubs = connect(server.target)
        stack.callback(stubs.channel.close)
        end = time.monotonic() + 4  # a rate needs two scrapes
        while time.monotonic() < end:
            stubs.predict(predict_request())
            time.sleep(0.1)
        yield address


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus on PATH (Debian package: prometheus)")
def test_a_real_prometheus_answers_every_query_of_the_dashboard(prometheus: str, dashboard: dict[str, Any]) -> None:
    def answer(expression: str) -> list[float]:
        filled = expression.replace("$__rate_interval", "1m").replace("$model", ".*")
        query = urllib.parse.urlencode({"query": filled})
        with urllib.request.urlopen(f"http://{prometheus}/api/v1/query?{query}", timeout=30) as reply:
            return [float(series["value"][1]) for series in json.load(reply)["data"]["result"]]

    wait_for(lambda: answer("sum(rate(:tensorflow:serving:request_count[1m]))") != [])
    answers = {expression: answer(expression) for expression in expressions(dashboard)}
    assert [expression for expression, values in answers.items() if not values] == []
    assert answers['sum(up{job="tensorflow-serving"})'] == [1.0]
    assert answers["sum by (model_path, status) (:tensorflow:cc:saved_model:load_attempt_count)"] == [1.0]
