"""Versions are loaded and unloaded while the server answers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from serve_process import serving
from serving_toys import Publish, Stubs, connect, predict_request, wait_for, write_warm_up
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
    numbers = {"00000123": 123, "0124": 124, " 125": 125, "126 ": 126, "+127": 127, "-2": -2}
    numbers |= {str(number): number for number in (2**63 - 1, -(2**63))}
    others = [".2.tmp", "2.tmp", "v2", "--2", "- 2", "+", "2_0", "0x2", str(2**63), str(-(2**63) - 1), "9" * 200]
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


def break_version(base_path: Path, number: int) -> None:
    (base_path / f".{number}.tmp").mkdir()
    (base_path / f".{number}.tmp" / "saved_model.pb").write_bytes(b"\x00broken")
    (base_path / f".{number}.tmp").rename(base_path / str(number))


@pytest.mark.parametrize(
    ("policy", "good"),
    [
        ({"latest": 1}, [2]),
        ({"latest": 2}, [1, 2]),
        ({"latest": 3}, [1, 2]),
        ({"policy": "all"}, [1, 2]),
        ({"policy": "specific", "versions": (1, 2, 3)}, [1, 2]),
    ],
    ids=["latest 1", "latest 2", "latest 3", "all", "specific"],
)
def test_a_version_that_cannot_be_loaded_unloads_no_other_while_polling_at_startup_and_at_a_reload(
    policy: dict[str, Any], good: list[int], base_path: Path, publish: Publish, other_version: Path
) -> None:
    publish(other_version, 2)
    source = ModelSource(name="toy", base_path=base_path, **policy)
    options = ServerOptions(file_system_poll_wait_seconds=0)
    models = Models([source], options)
    restarted = Models([source], options)
    try:
        assert models.start()
        assert models.serving() == {"toy": good}
        break_version(base_path, 3)
        models.poll()
        assert models.serving() == {"toy": good}
        assert models.states("toy")[3].state == END
        models.reconfigure([replace(source, labels={"stable": good[0]})])
        assert models.serving() == {"toy": good}
        assert restarted.start()
        assert restarted.serving() == {"toy": good}
        shutil.copy(other_version / "saved_model.pb", base_path / "3")
        shutil.copytree(other_version / "variables", base_path / "3" / "variables")
        restarted.poll()
        assert restarted.serving() == {"toy": sorted(source.choose([1, 2, 3]))}
    finally:
        models.stop()
        restarted.stop()


def test_a_reload_that_asks_for_a_damaged_version_keeps_the_one_that_it_replaces(
    base_path: Path, publish: Publish, other_version: Path
) -> None:
    publish(other_version, 2)
    break_version(base_path, 3)
    source = ModelSource(name="toy", base_path=base_path, policy="specific", versions=(1, 2))
    models = Models([source], ServerOptions(file_system_poll_wait_seconds=0))
    try:
        assert models.start()
        models.reconfigure([replace(source, versions=(2, 3))])
        assert models.serving() == {"toy": [1, 2]}
        models.reconfigure([replace(source, versions=(2,))])
        assert models.serving() == {"toy": [2]}
        models.reconfigure([replace(source, versions=(3,))])
        assert models.serving() == {"toy": [2]}
    finally:
        models.stop()


def test_a_label_on_the_oldest_version_survives_a_damaged_newest_one_and_a_restart(
    base_path: Path, publish: Publish, other_version: Path, tmp_path: Path
) -> None:
    publish(other_version, 2)
    (tmp_path / "models.config").write_text(
        f"model_config_list {{ config {{ name: 'toy' base_path: '{base_path}' model_platform: 'tensorflow' "
        "model_version_policy { latest { num_versions: 2 } } version_labels { key: 'stable' value: 1 } } }"
    )
    flags = [
        "--port=0",
        "--json",
        f"--model_config_file={tmp_path / 'models.config'}",
        "--allow_version_labels_for_unavailable_models=true",
        "--file_system_poll_wait_seconds=0.1",
    ]

    def stable(stubs: Stubs) -> list[float]:
        request = predict_request()
        request.model_spec.version_label = "stable"
        return tf.make_ndarray(stubs.predict(request).outputs["sum"]).tolist()

    with serving(tmp_path, *flags) as process:
        stubs = connect(json.loads(process.line())["grpc_target"])
        assert stable(stubs) == [4.0, 6.0]
        break_version(base_path, 3)
        wait_for(lambda: stubs.states() == {3: END, 2: AVAILABLE, 1: AVAILABLE})
        assert (stable(stubs), stubs.sums()) == ([4.0, 6.0], [104.0, 106.0])
    with serving(tmp_path, *flags) as process:
        announced = json.loads(process.line())
        assert announced["models"] == {"toy": [1, 2]}
        assert stable(connect(announced["grpc_target"])) == [4.0, 6.0]


def test_the_process_reports_folder_names_as_numbers_and_ignores_what_is_no_version(
    base_path: Path, other_version: Path, tmp_path: Path
) -> None:
    (base_path / "1").rename(base_path / "-2")
    shutil.copytree(other_version, base_path / "00000123")
    (base_path / str(2**63)).mkdir()
    (base_path / "124").write_text("a file")
    with serving(tmp_path, f"--model_base_path={base_path}", "--model_name=toy", "--port=0", "--json") as process:
        announced = json.loads(process.line())
        assert announced["models"] == {"toy": [123]}
        stubs = connect(announced["grpc_target"])
        assert stubs.states() == {123: AVAILABLE}
        assert stubs.sums(version=123) == stubs.sums() == [104.0, 106.0]


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


def _fifo(file: Path) -> None:
    os.mkfifo(file)


def _device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def _socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(file.parent):
        bound.bind(file.name)


def _link_to_itself(file: Path) -> None:
    file.symlink_to(file.name)


def _folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize("kind", [_fifo, _device, _socket, _link_to_itself, _folder], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.index", "assets.extra/tf_serving_warmup_requests"]
)
def test_a_version_with_a_file_that_is_not_regular_does_not_stop_the_server(
    kind: Callable[[Path], None], name: str, base_path: Path, toy_version: Path, other_version: Path
) -> None:
    with serve(base_path) as target:
        stubs = connect(target)
        shutil.copytree(toy_version, base_path / ".2.tmp")
        (base_path / ".2.tmp" / name).unlink()
        kind(base_path / ".2.tmp" / name)
        (base_path / ".2.tmp").rename(base_path / "2")
        harmless = (
            name.endswith("requests") and kind is _link_to_itself
        )  # counts as a missing file, like any broken link
        wait_for(lambda: stubs.states().get(2) == (AVAILABLE if harmless else END))
        assert stubs.sums() == [4.0, 6.0]
        shutil.copytree(other_version, base_path / ".3.tmp")
        (base_path / ".3.tmp").rename(base_path / "3")
        wait_for(lambda: stubs.sums() == [104.0, 106.0])


def test_a_folder_that_links_to_itself_does_not_stop_the_server(base_path: Path) -> None:
    (base_path / "1" / "assets" / "again").symlink_to("..")
    with serve(base_path) as target:
        assert connect(target).sums() == [4.0, 6.0]
