"""The embedded server and TensorFlow Serving (at DIGITFORGE_TFS_TARGET) give the same answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from congruence import BAD, GOOD, Case
from rest_congruence import BAD_REST, GOOD_REST, RestCase
from serving_toys import Stubs, connect

from digitforge_client.contract import MAX_ROWS, MODEL_NAME
from digitforge_serving import ModelSource, Server, ServerOptions
from digitforge_serving.config.options import BatchingOptions

REAL_TARGET = os.environ.get("DIGITFORGE_TFS_TARGET")
#: Address for REST, such as 127.0.0.1:8501. Without it, the real server's REST is not tested.
REAL_REST_TARGET = os.environ.get("DIGITFORGE_TFS_REST_TARGET")
real = pytest.param(
    REAL_TARGET, marks=pytest.mark.skipif(not REAL_TARGET, reason="DIGITFORGE_TFS_TARGET is not set"), id="real"
)


EMBEDDED = {"embedded": None, "embedded, batched": BatchingOptions(max_batch_size=MAX_ROWS)}


@dataclass(frozen=True)
class Targets:
    stubs: Stubs
    rest: str | None
    real: bool = False


@pytest.fixture(scope="module", params=[*EMBEDDED, real])
def targets(request: pytest.FixtureRequest, exported_model: Path) -> Iterator[Targets]:
    if request.param == REAL_TARGET:
        yield Targets(connect(request.param), REAL_REST_TARGET, real=True)
        return
    options = ServerOptions(
        port=0, rest_api_port=0, grace_seconds=5, batching=EMBEDDED[request.param], model_root=exported_model
    )
    server = Server([ModelSource(name=MODEL_NAME, base_path=exported_model)], options)
    assert server.start()
    yield Targets(connect(server.target), server.rest_target)
    server.stop()


@pytest.fixture
def server(targets: Targets) -> Stubs:
    return targets.stubs


@pytest.fixture
def rest(targets: Targets) -> str:
    if targets.rest is None:
        pytest.skip("DIGITFORGE_TFS_REST_TARGET is not set")
    return targets.rest


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_a_bad_request_gets_tensorflow_servings_code_and_message(
    server: Stubs, case: Case, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        case.send(server)
    code, said = caught.value.code(), caught.value.details()
    if case.real is not None and "[real" in request.node.name:
        assert said.startswith(case.real)
        return
    assert code in (case.code if isinstance(case.code, tuple) else (case.code,))
    assert said
    if case.begins:
        assert said.startswith(case.text)
    else:
        assert said == case.text


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_a_good_request_is_answered(server: Stubs, case: Case) -> None:
    case.check(case.send(server))


def test_a_good_request_works_after_all_bad_ones(server: Stubs) -> None:
    for case in BAD:
        with pytest.raises(grpc.RpcError):
            case.send(server)
    GOOD[0].check(GOOD[0].send(server))


@pytest.mark.parametrize("case", BAD_REST, ids=lambda case: case.name)
def test_a_bad_rest_request_gets_tensorflow_servings_status_and_message(
    targets: Targets, rest: str, case: RestCase
) -> None:
    status, document = case.send(rest)
    if targets.real and case.real is not None:
        assert status == case.real
        return
    assert status == case.status, document
    assert list(document) == ["error"]
    assert document["error"].startswith(case.text) if case.begins else document["error"] == case.text


@pytest.mark.parametrize("case", GOOD_REST, ids=lambda case: case.name)
def test_a_good_rest_request_is_answered(targets: Targets, rest: str, case: RestCase) -> None:
    status, document = case.send(rest)
    if targets.real and case.real is not None:
        assert status == case.real
        return
    assert status == case.status, document
    case.check(document, targets.stubs)
