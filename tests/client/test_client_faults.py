"""Servers that are away, slow, faulty or replaced: the client loses nothing, or raises one clear error."""

from __future__ import annotations

import pickle
import socket
import threading
import time
from typing import Any

import grpc
import numpy as np
import pytest
from ports import free_port

from digitforge_client import (
    DigitClient,
    GeneratorChangedError,
    InvalidInputError,
    Limits,
    ModelNotFoundError,
    RequestRejectedError,
    Retry,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
    Timeout,
    UnexpectedReplyError,
)
from digitforge_client.protocol import sampling

Code = grpc.StatusCode
ONCE = Retry(attempts=1)


def test_without_a_server_the_error_names_the_target_and_how_to_start_a_server() -> None:
    target = f"127.0.0.1:{free_port()}"
    with DigitClient(target) as client, pytest.raises(ServerUnavailableError) as caught:
        client.sample(3)
    assert target in str(caught.value)
    assert "digitforge serve" in str(caught.value)
    assert caught.value.retryable
    assert caught.value.code == "UNAVAILABLE"
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def test_the_error_of_an_unknown_model_names_model_and_target(server: Any) -> None:
    client = DigitClient(server.target, model="letters")
    for ask in (client.metadata, client.card, lambda: client.sample(1)):
        with pytest.raises(ModelNotFoundError) as caught:
            ask()
        assert "'letters'" in str(caught.value)
        assert server.target in str(caught.value)
        assert not caught.value.retryable


def test_a_request_to_a_slow_server_ends_at_the_deadline(server: Any) -> None:
    with DigitClient(server.target, timeout=Timeout(request_s=0.4)) as client:
        client.card()
        let_go = server.hold_from(0)  # only the deadline can end the request
        with pytest.raises(ServerTimeoutError, match=r"within 0.4 s") as caught:
            client.sample(1)
    assert isinstance(caught.value, TimeoutError)
    let_go.set()


@pytest.mark.parametrize(
    ("code", "text", "error", "says"),
    [
        (Code.NOT_FOUND, "Servable not found for request: Specific(digits, 7)", ModelNotFoundError, "Specific"),
        (Code.INVALID_ARGUMENT, "Unrecognized servable version label: X", ModelNotFoundError, "version label"),
        (Code.FAILED_PRECONDITION, 'Serving signature key "X" not found.', ModelNotFoundError, "digitforge export"),
        (Code.INVALID_ARGUMENT, "Task size 65 is larger than maximum input batch size 64", RequestRejectedError, "65"),
        (Code.PERMISSION_DENIED, "no", RequestRejectedError, "denies access"),
        (Code.UNAUTHENTICATED, "who are you", RequestRejectedError, "denies access"),
        (Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting", ServerTimeoutError, "in time"),
        (Code.CANCELLED, "CANCELLED", ServerUnavailableError, "stopping"),
        (Code.UNIMPLEMENTED, "", UnexpectedReplyError, "8501 is REST"),
        (Code.INTERNAL, "oops", ServerError, "INTERNAL: oops"),
        (Code.DATA_LOSS, "", ServerError, "DATA_LOSS"),
    ],
)
def test_each_status_of_a_server_has_its_error(
    server: Any, code: Any, text: str, error: type[ServerError], says: str
) -> None:
    server.failures = [(code, text)]
    with DigitClient(server.target, retry=ONCE) as client, pytest.raises(error, match=says) as caught:
        client.sample(1)
    assert type(caught.value) is error
    assert (caught.value.code, caught.value.details) == (code.name, text)
    assert caught.value.retryable is (error in (ServerUnavailableError, ServerTimeoutError))
    again = pickle.loads(pickle.dumps(caught.value))  # errors must be picklable for joblib
    assert (str(again), again.code) == (str(caught.value), code.name)


def test_the_error_of_a_too_large_answer_names_the_limit_to_raise(server: Any) -> None:
    with DigitClient(server.target, limits=Limits(message_mib=1, rows_per_request=1024)) as client:
        assert len(client.sample(1024)) == 1024  # 0.8 MB
        server.image_shape = (56, 56, 1)
    with (
        DigitClient(server.target, limits=Limits(message_mib=1, rows_per_request=1024)) as client,
        pytest.raises(RequestRejectedError, match=r"Limits\(message_mib=…\)"),
    ):
        client.sample(1024)


def test_a_server_without_grpc_causes_an_error_and_not_a_hang() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        client = DigitClient(f"127.0.0.1:{listener.getsockname()[1]}", timeout=Timeout(request_s=3), retry=ONCE)
        with client, pytest.raises(ServerError):
            client.card()


def test_an_answer_that_breaks_the_contract_is_an_error(server: Any) -> None:
    def shorten(reply: Any) -> Any:
        reply.outputs["images"].tensor_content = reply.outputs["images"].tensor_content[:-1]
        return reply

    server.mend = shorten
    with DigitClient(server.target) as client, pytest.raises(UnexpectedReplyError, match="bytes of content"):
        client.sample(5)


def test_grpc_retries_after_a_temporary_failure_and_the_digits_are_the_same(server: Any) -> None:
    with DigitClient(server.target, limits=Limits(rows_per_request=10)) as client:
        whole = client.sample(100, seed=5)
        server.failures = [(Code.UNAVAILABLE, "restarting")] * 3
        np.testing.assert_array_equal(client.sample(100, seed=5).images, whole.images)
        assert server.failures == []


def test_other_targets_replace_a_dead_target(start_server: Any, formula: Any) -> None:
    alive, dead = start_server(), f"127.0.0.1:{free_port()}"
    with DigitClient([dead, alive.target], retry=ONCE, limits=Limits(rows_per_request=20)) as client:
        batch = client.sample(100, seed=5)
    np.testing.assert_array_equal(batch.images, formula(batch.labels, batch.seeds)[..., 0])


def test_a_stream_survives_a_restart_of_the_server(start_server: Any, formula: Any) -> None:
    server = start_server()
    server.before_answer = lambda _: time.sleep(0.03)  # otherwise all batches would arrive before it stops
    patient = Timeout(request_s=5, outage_s=30)
    with DigitClient(server.target, timeout=patient, retry=ONCE, limits=Limits(rows_per_request=16)) as client:
        stream, rows = client.stream(640, batch_size=32, seed=9), []
        for number, batch in enumerate(stream):
            np.testing.assert_array_equal(batch.images, formula(batch.labels, batch.seeds)[..., 0])
            rows += batch.seeds.tolist()
            if number in (3, 11):
                server.stop()
                threading.Timer(0.5, server.start).start()
        assert rows == [9 * 2**32 + row for row in range(640)]


def test_a_stream_waits_no_longer_than_outage_s(start_server: Any) -> None:
    server = start_server()
    let_go = server.hold_from(10)
    timeout = Timeout(request_s=5, outage_s=0.5)
    with DigitClient(server.target, timeout=timeout, retry=ONCE, limits=Limits(requests_in_flight=1)) as client:
        stream = client.stream(100, batch_size=10, seed=0)
        next(stream)
        server.stop()
        let_go.set()
        with pytest.raises(ServerUnavailableError):
            list(stream)


def test_a_generator_change_during_a_stream_is_an_error(server: Any) -> None:
    let_go = server.hold_from(50)
    with DigitClient(server.target) as client:
        stream = client.stream(200, batch_size=50, seed=0)
        assert next(stream).generator_id == server.generator_id
        server.generator_id = "f" * 16  # with the same version number, as after a restart
        let_go.set()
        with pytest.raises(GeneratorChangedError, match=r"from 0123456789abcdef to ffffffffffffffff after \d+ rows"):
            list(stream)
        assert client.sample(1).generator_id == "f" * 16  # a later call uses the new generator


def test_a_generator_change_may_be_accepted_and_no_batch_mixes_two_generators(server: Any) -> None:
    let_go = server.hold_from(150)
    with DigitClient(server.target, limits=Limits(rows_per_request=10)) as client:
        batches = []
        for number, batch in enumerate(client.stream(400, batch_size=50, seed=0, on_change="accept")):
            batches.append(batch)
            if number == 2:
                server.generator_id, server.class_names = "f" * 16, ("a", "b")
                let_go.set()
        assert [seed for batch in batches for seed in batch.seeds.tolist()] == list(range(400))
        names = [batch.generator_id for batch in batches]
        assert names[:3] == ["0123456789abcdef"] * 3
        assert names[3:] == ["f" * 16] * 5
        assert set(batches[-1].labels.tolist()) == {0, 1}


def test_batches_that_arrive_together_are_checked_together(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_MAX_HELD_ROWS", 100)
    answered = threading.Semaphore(0)

    def answer_the_first_last(request: Any) -> None:
        if server.first_seed(request) == 0:
            assert all(answered.acquire(timeout=60) for _ in range(29))
            time.sleep(0.5)  # so that the last answer can arrive

    def count(reply: Any) -> Any:
        answered.release()
        return reply

    server.before_answer, server.mend = answer_the_first_last, count
    with DigitClient(server.target, limits=Limits(requests_in_flight=30)) as client:
        stream = client.stream(295, batch_size=10, seed=0)
        seeds = [seed for batch in stream for seed in batch.seeds.tolist()]
    assert seeds == list(range(295))
    cards = server.calls - len(server.requests) - 1  # the metadata are requested once
    assert cards == 1 + 2 + 1  # at the start, after each hundred rows, at the end


def test_a_complete_batch_does_not_wait_for_the_next(server: Any) -> None:
    received = server.hold_from(30)
    with DigitClient(server.target, timeout=Timeout(request_s=10), retry=ONCE) as client:
        stream = client.stream(80, batch_size=10, seed=0)
        starts = [next(stream).start for _ in range(3)]
        received.set()
        assert starts + [batch.start for batch in stream] == list(range(0, 80, 10))


def test_batches_before_a_wrong_answer_are_delivered(server: Any) -> None:
    with DigitClient(server.target) as client:
        wrong = client.sample(80, seed=0).images[30:40].tobytes()
        # all other answers arrive before the first
        server.before_answer = lambda request: time.sleep(server.first_seed(request) == 0)
        server.mend = lambda reply: type(reply)() if reply.outputs["images"].tensor_content == wrong else reply
        stream = client.stream(80, batch_size=10, seed=0)
        assert [next(stream).start for _ in range(3)] == [0, 10, 20]
        with pytest.raises(UnexpectedReplyError):
            next(stream)


def test_another_version_number_is_not_another_generator(server: Any) -> None:
    with DigitClient(server.target) as client:
        stream = client.stream(200, batch_size=50, seed=0)
        next(stream)
        server.version = 2
        assert sum(len(batch) for batch in stream) == 150


def test_a_sample_after_a_change_comes_from_the_new_generator_alone(server: Any) -> None:
    with DigitClient(server.target) as client:
        client.sample(5)
        server.generator_id, server.image_shape, server.class_names = "f" * 16, (8, 8, 1), ("a", "b")
        batch = client.sample(50)
        assert batch.generator_id == "f" * 16
        assert batch.images.shape == (50, 8, 8)
        assert set(batch.labels.tolist()) == {0, 1}
        server.generator_id, server.class_names = "e" * 16, ("a", "b", "c")
        assert client.sample(labels=["c"]).labels.tolist() == [2]  # an error never relies on a cached generator
        server.generator_id, server.class_names = "d" * 16, ("a", "b")
        with pytest.raises(InvalidInputError, match="no class 2"):
            client.sample(labels=[2])


def test_targets_with_different_generators_are_an_error(start_server: Any) -> None:
    one, other = start_server(), start_server()
    other.generator_id = "f" * 16
    with (
        DigitClient([one.target, other.target], limits=Limits(rows_per_request=10)) as client,
        pytest.raises(GeneratorChangedError, match="serve the same generator"),
    ):
        client.sample(100)


def test_wait_ready_waits_for_a_server_that_starts_late(start_server: Any) -> None:
    port = free_port()
    with DigitClient(f"127.0.0.1:{port}") as client:
        starter = threading.Timer(0.5, start_server, args=(port,))
        starter.start()
        client.wait_ready(20)
        starter.join()
        assert len(client.sample(3)) == 3


def test_wait_ready_ends_in_time_and_gives_the_reason(server: Any) -> None:
    with pytest.raises(ServerTimeoutError, match=r"not ready after 0.5 s: no server listens at 127"):
        DigitClient(f"127.0.0.1:{free_port()}").wait_ready(0.5)
    with pytest.raises(ServerTimeoutError, match=r"Could not find any versions of model letters"):
        DigitClient(server.target, model="letters").wait_ready(0.5)
