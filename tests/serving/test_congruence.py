"""The embedded server and TensorFlow Serving (at DIGITFORGE_TFS_TARGET) give the same answers."""

from __future__ import annotations

import os

import grpc
import pytest
from congruence import BAD, GOOD, Case
from serving_toys import Stubs, connect

REAL_TARGET = os.environ.get("DIGITFORGE_TFS_TARGET")
real = pytest.param(
    REAL_TARGET, marks=pytest.mark.skipif(not REAL_TARGET, reason="DIGITFORGE_TFS_TARGET is not set"), id="real"
)


@pytest.fixture(scope="module", params=[pytest.param(None, id="embedded"), real])
def server(request: pytest.FixtureRequest) -> Stubs:
    return connect(request.param or request.getfixturevalue("digits_target"))


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_a_bad_request_gets_tensorflow_servings_code_and_message(server: Stubs, case: Case) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        case.send(server)
    assert caught.value.code() == case.code
    if case.begins:
        assert caught.value.details().startswith(case.text)
    else:
        assert caught.value.details() == case.text


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_a_good_request_is_answered(server: Stubs, case: Case) -> None:
    case.check(case.send(server))


def test_a_good_request_works_after_all_bad_ones(server: Stubs) -> None:
    for case in BAD:
        with pytest.raises(grpc.RpcError):
            case.send(server)
    GOOD[0].check(GOOD[0].send(server))
