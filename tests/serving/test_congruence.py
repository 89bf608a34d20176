"""The embedded server and TensorFlow Serving (at DIGITFORGE_TFS_TARGET) give the same answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from congruence import BAD, GOOD, Case
from serving_toys import Stubs, connect

from digitforge_client.contract import MAX_ROWS
from digitforge_serving import EmbeddedServer
from digitforge_serving.config.options import BatchingOptions

REAL_TARGET = os.environ.get("DIGITFORGE_TFS_TARGET")
real = pytest.param(
    REAL_TARGET, marks=pytest.mark.skipif(not REAL_TARGET, reason="DIGITFORGE_TFS_TARGET is not set"), id="real"
)


EMBEDDED = {"embedded": None, "embedded, batched": BatchingOptions(max_batch_size=MAX_ROWS)}


@pytest.fixture(scope="module", params=[*EMBEDDED, real])
def server(request: pytest.FixtureRequest, exported_model: Path) -> Iterator[Stubs]:
    if request.param == REAL_TARGET:
        yield connect(request.param)
        return
    with EmbeddedServer(exported_model, batching=EMBEDDED[request.param], model_root=exported_model) as target:
        yield connect(target)


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
