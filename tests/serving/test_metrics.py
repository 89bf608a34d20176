"""The metrics text, parsed with prometheus-client."""

from __future__ import annotations

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from digitforge_serving.metrics import OTHER_MODELS, Metrics


def families(metrics: Metrics) -> dict[str, Metric]:
    return {family.name.rpartition(":")[2]: family for family in text_string_to_metric_families(metrics.text())}


def test_every_metric_has_its_type_and_a_description_before_the_first_request() -> None:
    types = {name: family.type for name, family in families(Metrics()).items()}
    histograms = ("request_latency", "runtime_latency", "queuing_latency", "processed_batch_size")
    assert types == {"request_count": "counter", "load_attempt_count": "counter"} | dict.fromkeys(
        histograms, "histogram"
    )
    assert all(family.documentation for family in families(Metrics()).values())


@pytest.mark.parametrize("name", ["digits", 'with "quotes"', "back\\slash", "two\nlines", "{}=,", "é"])
def test_any_model_name_can_be_read_back(name: str) -> None:
    metrics = Metrics()
    metrics.model_names = {name}
    metrics.count_request(name, "OK")
    (sample,) = families(metrics)["request_count"].samples
    assert (sample.labels, sample.value) == ({"model_name": name, "status": "OK"}, 1)


def test_requests_for_models_that_are_not_configured_have_one_label() -> None:
    metrics = Metrics()
    metrics.model_names = {"digits"}
    for number in range(5000):
        metrics.count_request(f"{number}" * 1000, "NOT_FOUND")
    (sample,) = families(metrics)["request_count"].samples
    assert (sample.labels, sample.value) == ({"model_name": OTHER_MODELS, "status": "NOT_FOUND"}, 5000)


def test_a_bucket_counts_values_up_to_its_bound() -> None:
    metrics = Metrics()
    for microseconds in (5, 10, 11, 1e12):
        metrics.observe_latency("digits", microseconds, entry="GRPC")
    samples = families(metrics)["request_latency"].samples
    buckets = {sample.labels["le"]: sample.value for sample in samples if sample.name.endswith("_bucket")}
    assert list(buckets)[:5] == ["10", "18", "32.4", "58.32", "104.976"]
    assert (buckets["10"], buckets["18"], buckets["32.4"], buckets["+Inf"]) == (2, 3, 3, 4)
    assert list(buckets.values()) == sorted(buckets.values())
    totals = {sample.name.rpartition("_")[2]: sample.value for sample in samples if "le" not in sample.labels}
    assert totals == {"sum": 1e12 + 26, "count": 4}
