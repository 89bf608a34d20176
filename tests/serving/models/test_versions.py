"""Versions are loaded and unloaded while the server answers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from serving_toys import Publish, connect, predict_request, wait_for, write_warm_up
from tensorflow_serving.apis import get_model_status_pb2

from digitforge_client.common.versions import versions
from digitforge_client.errors import DataError
from digitforge_serving import EmbeddedServer, ModelSource, Server, ServerOptions
from digitforge_serving.config.options import is_loopback
from digitforge_serving.models.batching import Caller
from digitforge_serving.models.manager import Models
from digitforge_serving.models.predict import predict

AVAILABLE, END = 30, 50


def serve(base_path: Path, **options: Any) -> EmbeddedServer:
    return EmbeddedServer(base_path, model_name="toy", file_system_poll_wait_seconds=0.1, **options)


def test_the_highest_number_answers_not_the_last_in_alphabetical_order(
    base_path: Path, publish: Publish, other_version: Path, toy_version: Path
) -> None:
    publish(toy_version, 9)
    publish(other_version, 10)
    with serve(base_path) as target:
        stubs = connect(target)
        assert stubs.sums() == [104.0, 106.0]
        assert stubs.states() == {10: AVAILABLE}


def test_folder_names_are_read_as_numbers_like_in_tensorflow_serving(tmp_path: Path) -> None:
    numbers = {"00000123": 123, "0124": 124, " 125": 125, "126 ": 126, "+127": 127}
    others = [".2.tmp", "2.tmp", "v2", "-2", "2_0", "0x2", str(2**63)]
    others += ["\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT TWO}"]
    for name in [*numbers, *others]:
        (tmp_path / name).mkdir()
    (tmp_path / "3").write_text("a file, not a folder")
    assert versions(tmp_path) == {number: [tmp_path / name] for name, number in numbers.items()}


def test_a_version_folder_with_leading_zeros_is_loaded_and_unloaded(base_path: Path, other_version: Path) -> None:
    with serve(base_path) as target:
        stubs = connect(target)
        shutil.copytree(other_version, base_path / ".tmp")
        (base_path / ".tmp").rename(base_path / "002")
        wait_for(lambda: stubs.sums() == [104.0, 106.0])
        (base_path / "002").rename(base_path / ".gone")
        wait_for(lambda: stubs.states() == {1: AVAILABLE, 2: END})


def test_of_two_folders_with_one_number_the_last_serves_and_one_warning_is_logged(
    base_path: Path, toy_version: Path, other_version: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(other_version, base_path / "5")
    shutil.copytree(toy_version, base_path / "005")
    models = Models([ModelSource(name="toy", base_path=base_path)], ServerOptions(file_system_poll_wait_seconds=0))
    try:
        assert models.start()
        for _ in range(3):
            models.poll()
        assert models.serving() == {"toy": [5]}
        assert [record.getMessage() for record in caplog.records if "ignoring" in record.getMessage()] == [
            f"ignoring 005 in {base_path}: another folder has the same version number"
        ]
        served = models.find(predict_request().model_spec)
        response = predict(lambda _: served, predict_request(), as_content=False, caller=Caller())
        assert tf.make_ndarray(response.outputs["sum"]).tolist() == [104.0, 106.0]
    finally:
        models.stop()


def test_versions_change_without_a_failed_request(base_path: Path, publish: Publish, other_version: Path) -> None:
    with serve(base_path) as target:
        stubs = connect(target)
        assert stubs.sums() == [4.0, 6.0]
        publish(other_version, 2)
        wait_for(lambda: stubs.sums() == [104.0, 106.0])  # a failed request raises
        wait_for(lambda: stubs.states() == {2: AVAILABLE, 1: END})
        with pytest.raises(grpc.RpcError) as caught:
            stubs.sums(version=1)
        assert caught.value.details() == "Servable not found for request: Specific(toy, 1)"
        shutil.rmtree(base_path / "2")
        wait_for(lambda: stubs.sums() == [4.0, 6.0])
        wait_for(lambda: stubs.states() == {2: END, 1: AVAILABLE})


def test_a_broken_version_does_no_harm_and_is_loaded_after_its_repair(
    base_path: Path, publish: Publish, other_version: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(other_version, broken)
    (broken / "saved_model.pb").write_bytes(b"\x00broken")
    with serve(base_path) as target:
        stubs = connect(target)
        publish(broken, 2)
        wait_for(lambda: stubs.states().get(2) == END)
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "toy"
        request.model_spec.version.value = 2
        (entry,) = stubs.model.GetModelStatus(request).model_version_status
        assert entry.status.error_code != 0
        assert entry.status.error_message
        assert stubs.sums() == [4.0, 6.0]
        shutil.copy(other_version / "saved_model.pb", base_path / "2" / "saved_model.pb")
        wait_for(lambda: stubs.sums() == [104.0, 106.0])


def test_a_vanished_folder_changes_nothing_and_one_warning_is_logged(
    base_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = Models([ModelSource(name="toy", base_path=base_path)], ServerOptions(file_system_poll_wait_seconds=0))
    assert models.start()
    base_path.rename(base_path.with_name("elsewhere"))
    for _ in range(3):
        models.poll()
    assert models.serving() == {"toy": [1]}
    assert sum("cannot be read" in record.getMessage() for record in caplog.records) == 1
    models.stop()


def test_an_emptied_folder_unloads_the_model_like_in_tensorflow_serving(base_path: Path) -> None:
    with serve(base_path) as target:
        stubs = connect(target)
        shutil.rmtree(base_path / "1")
        wait_for(lambda: stubs.states() == {1: END})
        with pytest.raises(grpc.RpcError) as caught:
            stubs.sums()
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert caught.value.details() == "Servable not found for request: Latest(toy)"


def test_a_version_whose_warm_up_fails_does_not_serve(base_path: Path, publish: Publish, other_version: Path) -> None:
    with serve(base_path) as target:
        stubs = connect(target)
        shutil.copytree(other_version, base_path / ".2.tmp")
        write_warm_up(base_path / ".2.tmp", "no_such_signature", {"a": [1.0]})
        (base_path / ".2.tmp").rename(base_path / "2")
        wait_for(lambda: stubs.states().get(2) == END)
        assert stubs.sums() == [4.0, 6.0]


def test_warm_up_can_be_switched_off(base_path: Path) -> None:
    shutil.rmtree(base_path / "1" / "assets.extra")
    write_warm_up(base_path / "1", "no_such_signature", {"a": [1.0]})
    with serve(base_path, enable_model_warmup=False) as target:
        assert connect(target).sums() == [4.0, 6.0]
    with pytest.raises(DataError, match="no_such_signature"), serve(base_path):
        pass


def test_several_models_with_policies_and_labels(
    base_path: Path, publish: Publish, other_version: Path, toy_version: Path, tmp_path: Path
) -> None:
    publish(other_version, 2)
    publish(toy_version, 3)
    sources = [
        ModelSource(name="all", base_path=base_path, policy="all"),
        ModelSource(name="latest", base_path=base_path, latest=2),
        ModelSource(
            name="specific", base_path=base_path, policy="specific", versions=(1, 2), labels={"stable": 1, "canary": 2}
        ),
    ]
    options = ServerOptions(port=0, allow_version_labels_for_unavailable_models=True)
    server = Server(sources, options)
    assert server.start()
    try:
        assert server.serving == {"all": [1, 2, 3], "latest": [2, 3], "specific": [1, 2]}
        stubs = connect(server.target)
        assert stubs.sums(model="specific") == [104.0, 106.0]
        for label, expected in (("stable", [4.0, 6.0]), ("canary", [104.0, 106.0])):
            request = predict_request(model="specific")
            request.model_spec.version_label = label
            response = stubs.predict(request)
            assert tf.make_ndarray(response.outputs["sum"]).tolist() == expected
    finally:
        server.stop()


def test_labels_at_startup_need_the_flag_that_allows_them(base_path: Path) -> None:
    source = ModelSource(name="toy", base_path=base_path, labels={"stable": 1})
    with pytest.raises(DataError, match="allow_version_labels_for_unavailable_models"):
        Server([source], ServerOptions(port=0)).start()


def test_unloading_a_version_closes_its_session(base_path: Path, publish: Publish, other_version: Path) -> None:
    models = Models([ModelSource(name="toy", base_path=base_path)], ServerOptions(file_system_poll_wait_seconds=0))
    assert models.start()
    session = models.find(predict_request().model_spec).model._session
    publish(other_version, 2)
    models.poll()
    assert session._closed
    models.stop()


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)]
)
def test_loopback_addresses_are_recognized(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
