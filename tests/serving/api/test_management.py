"""Models can be changed by request or by file, and health and reflection report the current state."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from serving_toys import Gate, Publish, Stubs, connect, predict_request, wait_for
from tensorflow_serving.apis import model_management_pb2

from digitforge_serving import EmbeddedServer, ModelSource, Server, ServerOptions
from digitforge_serving.config.options import read_model_config

SERVING, NOT_SERVING = 1, 2


def config(*models: tuple[str, Path, str]) -> str:
    """A ModelServerConfig in protobuf text, from (name, base path, further fields) of each model."""
    entries = [
        f"config {{ name: '{name}' base_path: '{path}' model_platform: 'tensorflow' {more} }}"
        for name, path, more in models
    ]
    return f"model_config_list {{ {' '.join(entries)} }}"


def reload(stubs: Stubs, text: str) -> None:
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(text, request.config)
    assert stubs.model.HandleReloadConfigRequest(request, timeout=60).status.error_code == 0


def refused(stubs: Stubs, text: str) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        reload(stubs, text)
    return caught.value


def offset(stubs: Stubs, model: str = "toy", *, label: str = "") -> float:
    """The offset that the answering version adds to a + b."""
    request = predict_request(model=model)
    if label:
        request.model_spec.version_label = label
    return float(tf.make_ndarray(stubs.predict(request).outputs["sum"])[0]) - 4


@pytest.fixture
def file(base_path: Path, publish: Publish, other_version: Path, tmp_path: Path) -> Path:
    """A model configuration that serves version 1 of a model with two versions."""
    publish(other_version, 2)
    path = tmp_path / "models.config"
    path.write_text(config(("toy", base_path, "model_version_policy { specific { versions: 1 } }")))
    return path


@pytest.fixture
def stubs(file: Path, tmp_path: Path) -> Iterator[Stubs]:
    options = ServerOptions(
        port=0,
        file_system_poll_wait_seconds=0.1,
        model_config_file=file,
        model_config_file_poll_wait_seconds=0.1,
        model_root=tmp_path,
    )
    server = Server(read_model_config(file), options)
    assert server.start()
    connected = connect(server.target)
    yield connected
    connected.channel.close()
    server.stop()


def health(stubs: Stubs, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return int(health_pb2_grpc.HealthStub(stubs.channel).Check(request, timeout=30).status)


def test_a_canary_version_can_be_loaded_labeled_and_promoted(stubs: Stubs, base_path: Path) -> None:
    def step(versions: str, labels: str) -> None:
        policy = f"model_version_policy {{ specific {{ {versions} }} }}"
        reload(stubs, config(("toy", base_path, f"{policy} {labels}")))

    both = "versions: 1 versions: 2"
    step("versions: 1", "version_labels { key: 'stable' value: 1 }")
    step(both, "version_labels { key: 'stable' value: 1 }")
    step(both, "version_labels { key: 'stable' value: 1 } version_labels { key: 'canary' value: 2 }")
    assert (offset(stubs, label="stable"), offset(stubs, label="canary")) == (0, 100)
    step(both, "version_labels { key: 'stable' value: 2 }")
    assert offset(stubs, label="stable") == 100
    step("versions: 2", "version_labels { key: 'stable' value: 2 }")
    assert offset(stubs) == 100


def test_a_label_for_a_version_that_does_not_serve_is_rejected_and_nothing_changes(
    stubs: Stubs, base_path: Path
) -> None:
    error = refused(stubs, config(("toy", base_path, "version_labels { key: 'canary' value: 2 }")))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == (
        "Request to assign label to version 2 of model toy, which is not currently available for inference"
    )
    assert offset(stubs) == 0


def test_a_reload_replaces_the_whole_configuration(stubs: Stubs, base_path: Path) -> None:
    reload(stubs, config(("other", base_path, "")))
    assert offset(stubs, "other") == 100
    with pytest.raises(grpc.RpcError) as caught:
        offset(stubs)
    assert caught.value.details() == "Servable not found for request: Latest(toy)"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("", grpc.StatusCode.INVALID_ARGUMENT, "Only ModelConfigList is currently supported"),
        (config(("x", Path("ROOT/nowhere"), "")), grpc.StatusCode.FAILED_PRECONDITION, "does not exist"),
        (
            config(("x", Path("/nowhere"), "")),
            grpc.StatusCode.PERMISSION_DENIED,
            "not below the folder of --model-root",
        ),
        (config(("x", Path("ROOT/../elsewhere"), "")), grpc.StatusCode.PERMISSION_DENIED, "not below the folder"),
        (config(("x", Path(r"ROOT/a\0b"), "")), grpc.StatusCode.PERMISSION_DENIED, "not below the folder"),
        (config(("x", Path("relative"), "")), grpc.StatusCode.INVALID_ARGUMENT, "to have an absolute path or URI"),
        (
            "model_config_list { config { name: 'x' } }",
            grpc.StatusCode.INVALID_ARGUMENT,
            "Expected model x to have an absolute path or URI; got base_path()=;",
        ),
    ],
)
def test_a_configuration_that_cannot_be_applied_changes_nothing(
    stubs: Stubs, tmp_path: Path, text: str, code: grpc.StatusCode, said: str
) -> None:
    error = refused(stubs, text.replace("ROOT", str(tmp_path)))
    assert error.code() == code
    assert said in error.details()
    assert offset(stubs) == 0


def test_a_new_model_that_cannot_be_loaded_is_reported_and_the_others_keep_serving(
    stubs: Stubs, base_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken" / "1").mkdir(parents=True)
    error = refused(stubs, config(("toy", base_path, ""), ("broken", tmp_path / "broken", "")))
    assert error.code() == grpc.StatusCode.UNKNOWN
    assert error.details().startswith("1 model(s) did not become available: model broken")
    assert offset(stubs) == 100
    assert health(stubs) == NOT_SERVING


def test_an_empty_configuration_unloads_all_models(stubs: Stubs) -> None:
    reload(stubs, "model_config_list { }")
    with pytest.raises(grpc.RpcError) as caught:
        offset(stubs)
    assert caught.value.details() == "Servable not found for request: Latest(toy)"


def test_a_label_in_use_never_moves_to_a_version_that_does_not_serve(base_path: Path, tmp_path: Path) -> None:
    options = ServerOptions(port=0, model_root=tmp_path, allow_version_labels_for_unavailable_models=True)
    labels = "version_labels {{ key: 'stable' value: {} }}"
    server = Server([ModelSource(name="toy", base_path=base_path)], options)
    try:
        assert server.start()
        stubs = connect(server.target)
        reload(stubs, config(("toy", base_path, labels.format(1))))
        error = refused(stubs, config(("toy", base_path, labels.format(79))))
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert error.details() == (
            "Request to assign label to version 79 of model toy, which is not currently available for inference"
        )
        assert offset(stubs, label="stable") == 0
    finally:
        server.stop(0)


def test_reload_is_off_by_default(base_path: Path) -> None:
    with EmbeddedServer(base_path, model_name="toy") as target:
        stubs = connect(target)
        error = refused(stubs, config(("toy", base_path, "")))
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED
        assert "--allow-reload" in error.details()
        assert offset(stubs) == 0


@pytest.mark.parametrize("what", ["base path", "version", "file"])
def test_links_lead_no_reload_out_of_the_root(what: str, base_path: Path, toy_version: Path, tmp_path: Path) -> None:
    root, linked = tmp_path / "root", tmp_path / "root" / "linked"
    shutil.copytree(base_path, root / "toy")
    if what == "base path":
        linked.symlink_to(base_path)
    elif what == "version":
        linked.mkdir()
        (linked / "1").symlink_to(toy_version)
    else:
        shutil.copytree(base_path, linked)
        (linked / "1" / "saved_model.pb").unlink()
        (linked / "1" / "saved_model.pb").symlink_to(toy_version / "saved_model.pb")
    with EmbeddedServer(root / "toy", model_name="toy", model_root=root) as target:
        stubs = connect(target)
        error = refused(stubs, config(("toy", root / "toy", ""), ("linked", linked, "")))
        said = "not below the folder of --model-root" if what == "base path" else f"is outside of {root}"
        assert said in error.details()
        assert offset(stubs) == 0


def test_a_model_that_cannot_be_loaded_is_tried_and_logged_once(
    stubs: Stubs, base_path: Path, file: Path, toy_version: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def logged(text: str) -> list[str]:
        return [record.getMessage() for record in caplog.records if text in record.getMessage()]

    broken = file.parent / "broken"
    (broken / "1").mkdir(parents=True)
    with caplog.at_level(logging.INFO, logger="digitforge.serving"):
        file.write_text(config(("toy", base_path, ""), ("broken", broken, "")))
        wait_for(lambda: bool(logged("did not become available")))
        (base_path / "2").rename(base_path / "3")  # is noticed by a later poll
        wait_for(lambda: bool(logged("loaded version 3")))
        assert offset(stubs) == 100
        assert len(logged("applied the model configuration")) == 1
        assert len(logged("loading version 1 of model broken")) == 1
        shutil.rmtree(broken / "1")
        shutil.copytree(toy_version, broken / ".1.tmp")
        (broken / ".1.tmp").rename(broken / "1")
        wait_for(lambda: bool(logged("loaded version 1 of model broken")))
        assert offset(stubs, "broken") == 0


def test_a_changed_configuration_file_is_applied(stubs: Stubs, base_path: Path, file: Path) -> None:
    assert offset(stubs) == 0
    file.write_text("this is no configuration")
    file.write_text(config(("toy", base_path, "model_version_policy { latest { num_versions: 1 } }")))
    wait_for(lambda: offset(stubs) == 100)


def test_health_follows_the_models(stubs: Stubs, base_path: Path, toy_version: Path) -> None:
    services = ["", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"]
    assert [health(stubs, service) for service in services] == [SERVING] * 3
    shutil.rmtree(base_path / "1")
    wait_for(lambda: [health(stubs, service) for service in services] == [NOT_SERVING] * 3)
    shutil.copytree(toy_version, base_path / ".1.tmp")
    (base_path / ".1.tmp").rename(base_path / "1")
    wait_for(lambda: health(stubs) == SERVING)
    with pytest.raises(grpc.RpcError) as caught:
        health(stubs, "no.such.Service")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_stopping_server_reports_not_serving_first(base_path: Path, tmp_path: Path) -> None:
    server = Server([ModelSource(name="toy", base_path=base_path)], ServerOptions(port=0))
    assert server.start()
    stubs = connect(server.target)
    watch = health_pb2_grpc.HealthStub(stubs.channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
    assert next(watch).status == SERVING
    gate = Gate(stubs, tmp_path)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert next(watch).status == NOT_SERVING
    gate.open()
    assert list(gate.answer.result(timeout=60).outputs) == ["y"]
    stopping.join()


def test_reflection_describes_the_official_services(stubs: Stubs) -> None:
    database = ProtoReflectionDescriptorDatabase(stubs.channel)
    assert set(database.get_services()) == {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    described = database.FindFileContainingSymbol("tensorflow.serving.PredictionService")
    assert "Predict" in [method.name for method in described.service[0].method]
