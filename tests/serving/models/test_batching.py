"""Batching: what is merged, what is rejected, and that requests do not affect each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_toys import connect, predict_request, wait_for

from digitforge_client.contract import MAX_ROWS
from digitforge_client.errors import InvalidInputError
from digitforge_serving import EmbeddedServer, shipped_config
from digitforge_serving.config.options import BatchingOptions, read_batching_options
from digitforge_serving.models.batching import Array, Batcher, Caller, Feeds, Unbatched
from digitforge_serving.models.refusal import RefusedError


class Graph:
    """Doubles x. Every call waits until the gate opens. Rejects batches that contain −1."""

    def __init__(self, *, opened: bool = False) -> None:
        self.gate = threading.Event()
        self.batches: list[int] = []
        if opened:
            self.gate.set()

    def __call__(self, feeds: Feeds, fetches: Sequence[str]) -> list[Array]:
        self.batches.append(len(feeds["x"]))
        assert self.gate.wait(30)
        if (feeds["x"] == -1).any():
            raise RefusedError(grpc.StatusCode.INVALID_ARGUMENT, "−1 is among them")
        return [feeds["x"] * 2 for _ in fetches]


def x(*values: float) -> Feeds:
    return {"x": np.array(values, np.float32)}


class Crowd:
    """Sends requests one after another, each from its own thread."""

    def __init__(self, compute: Batcher | Unbatched) -> None:
        self.compute = compute
        self.pool = ThreadPoolExecutor(64)
        self.entered = threading.Semaphore(0)
        enter = compute._enter

        def enter_and_signal(*arguments: Any) -> Any:
            try:
                return enter(*arguments)
            finally:
                self.entered.release()

        compute._enter = enter_and_signal  # type: ignore[assignment, method-assign]

    def send(
        self, feeds: Feeds, *, timeout_s: float | None = None, caller: Caller | None = None
    ) -> Future[list[Array]]:
        """Send a request, and return when it is being computed or is in the queue."""
        if caller is None:
            caller = Caller(None if timeout_s is None else time.monotonic() + timeout_s)
        future = self.pool.submit(self.compute, feeds, ["y"], caller)
        assert self.entered.acquire(timeout=30)
        return future


def test_requests_that_wait_together_are_computed_together() -> None:
    graph = Graph()
    crowd = Crowd(Batcher(graph, BatchingOptions(num_batch_threads=1)))
    answers = [crowd.send(x(*range(n), n)) for n in range(8)]
    graph.gate.set()
    for n, answer in enumerate(answers):
        assert answer.result(30)[0].tolist() == [2 * value for value in [*range(n), n]]
    assert graph.batches == [1, 35]  # the first request starts at once; the other seven have 2 + … + 8 rows


def test_a_single_request_does_not_wait() -> None:
    graph = Graph(opened=True)
    batcher = Batcher(graph, BatchingOptions())
    assert batcher(x(1, 2), ["y"], Caller())[0].tolist() == [2, 4]
    assert graph.batches == [2]


def test_a_batch_never_exceeds_its_maximum() -> None:
    graph = Graph()
    crowd = Crowd(Batcher(graph, BatchingOptions(num_batch_threads=1, max_batch_size=4)))
    answers = [crowd.send(x(n, n, n)) for n in range(4)]
    graph.gate.set()
    assert [answer.result(30)[0].tolist() for answer in answers] == [[2 * n] * 3 for n in range(4)]
    assert graph.batches == [3, 3, 3, 3]


def test_a_request_larger_than_a_batch_is_rejected() -> None:
    with pytest.raises(RefusedError) as caught:
        Batcher(Graph(), BatchingOptions(max_batch_size=64))(x(*range(65)), ["y"], Caller())
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.text == "Task size 65 is larger than maximum input batch size 64"


def test_a_full_queue_rejects_requests_and_keeps_working() -> None:
    graph = Graph()
    crowd = Crowd(Batcher(graph, BatchingOptions(num_batch_threads=1, max_batch_size=2, max_enqueued_batches=2)))
    answers = [crowd.send(x(n, n)) for n in range(3)]  # one runs, two wait
    with pytest.raises(RefusedError) as caught:
        crowd.send(x(9)).result(30)
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
    assert caught.value.text == (
        "The batch scheduling queue to which this task was submitted is full; currently 2 batches enqueued and "
        "max_enqueued_batches is 2"
    )
    graph.gate.set()
    assert [answer.result(30)[0].tolist() for answer in answers] == [[0, 0], [2, 2], [4, 4]]
    assert crowd.send(x(9)).result(30)[0].tolist() == [18]


def test_a_request_that_times_out_leaves_the_queue_and_does_not_affect_others() -> None:
    graph = Graph()
    crowd = Crowd(Batcher(graph, BatchingOptions(num_batch_threads=1)))
    first, patient = crowd.send(x(1)), crowd.send(x(2))
    with pytest.raises(RefusedError) as caught:
        crowd.send(x(3), timeout_s=0.1).result(30)
    assert caught.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.text == "Run() timeout exceeded while waiting in batching queue"
    graph.gate.set()
    assert (first.result(30)[0].tolist(), patient.result(30)[0].tolist()) == ([2], [4])
    assert graph.batches == [1, 1]


@pytest.fixture(params=["alone", "batched"])
def one_thread(request: pytest.FixtureRequest) -> tuple[Graph, Crowd]:
    """A graph that computes one request or batch at a time, and its clients."""
    graph = Graph()
    if request.param == "batched":
        options = BatchingOptions(num_batch_threads=1, max_batch_size=4, max_enqueued_batches=100)
        return graph, Crowd(Batcher(graph, options))
    return graph, Crowd(Unbatched(graph, max_running=1))


def error_code_of(answer: Future[list[Array]]) -> grpc.StatusCode:
    with pytest.raises(RefusedError) as caught:
        answer.result(30)
    return caught.value.code


def test_a_cancelled_request_frees_its_thread_at_once_and_is_not_computed(one_thread: tuple[Graph, Crowd]) -> None:
    graph, crowd = one_thread
    running, callers = crowd.send(x(1)), [Caller() for _ in range(20)]
    wait_for(lambda: graph.batches == [1])
    answers = [crowd.send(x(2, 2, 2), caller=caller) for caller in callers[:10]]
    patient = crowd.send(x(3))  # joins the batch of the request before it
    answers += [crowd.send(x(2, 2, 2), caller=caller) for caller in callers[10:]]
    for caller in callers:
        caller.cancel()
    assert {error_code_of(answer) for answer in answers} == {grpc.StatusCode.CANCELLED}
    assert graph.batches == [1]  # all have an answer, while the first request still runs
    graph.gate.set()
    assert (running.result(30)[0].tolist(), patient.result(30)[0].tolist()) == ([2], [6])
    assert graph.batches == [1, 1]


class Unnoticed(Caller):
    """A caller that is gone, but whose thread was not woken."""

    gone = property(lambda _: True)


def test_a_request_that_ended_before_its_turn_is_not_computed(one_thread: tuple[Graph, Crowd]) -> None:
    graph, crowd = one_thread
    gone, late = Caller(), Caller(time.monotonic() - 1)
    gone.cancel()
    assert error_code_of(crowd.send(x(1), caller=gone)) == grpc.StatusCode.CANCELLED
    assert error_code_of(crowd.send(x(2), caller=late)) == grpc.StatusCode.DEADLINE_EXCEEDED
    assert error_code_of(crowd.send(x(3), caller=Unnoticed())) == grpc.StatusCode.CANCELLED
    running, waiting = crowd.send(x(4)), crowd.send(x(5), caller=Unnoticed())
    graph.gate.set()
    assert running.result(30)[0].tolist() == [8]
    assert error_code_of(waiting) == grpc.StatusCode.CANCELLED
    assert crowd.send(x(6)).result(30)[0].tolist() == [12]
    assert graph.batches == [1, 1]


def test_a_cancelled_request_does_not_wait_for_its_running_batch() -> None:
    graph, caller = Graph(), Caller()
    crowd = Crowd(Batcher(graph, BatchingOptions(batch_timeout_micros=60_000_000, max_batch_size=2)))
    first, second = crowd.send(x(1)), crowd.send(x(2), caller=caller)
    wait_for(lambda: graph.batches == [2])
    caller.cancel()
    assert error_code_of(second) == grpc.StatusCode.CANCELLED
    assert not first.done()
    graph.gate.set()
    assert first.result(30)[0].tolist() == [2]


def test_a_request_that_expires_while_its_batch_fills_is_not_computed() -> None:
    graph = Graph(opened=True)
    crowd = Crowd(Batcher(graph, BatchingOptions(batch_timeout_micros=60_000_000, max_batch_size=4)))
    first, patient, late = crowd.send(x(1), timeout_s=0), crowd.send(x(2)), crowd.send(x(3), timeout_s=0)
    assert error_code_of(late) == grpc.StatusCode.RESOURCE_EXHAUSTED
    last = crowd.send(x(4, 4))  # fills the batch
    assert error_code_of(first) == grpc.StatusCode.DEADLINE_EXCEEDED
    assert (patient.result(30)[0].tolist(), last.result(30)[0].tolist()) == ([4], [8, 8])
    assert graph.batches == [3]


@settings(max_examples=40, deadline=None)
@given(
    leaving=st.lists(st.booleans(), min_size=1, max_size=40),
    threads=st.integers(1, 3),
    most=st.integers(1, 8),
    batched=st.booleans(),
)
def test_cancelling_requests_does_not_affect_others(
    leaving: list[bool], threads: int, most: int, batched: bool
) -> None:
    options = BatchingOptions(num_batch_threads=threads, max_batch_size=most, max_enqueued_batches=100)
    graph = Graph(opened=True)
    compute = Batcher(graph, options) if batched else Unbatched(graph, max_running=threads)
    callers = [Caller() for _ in leaving]
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(compute, x(number), ["y"], caller) for number, caller in enumerate(callers)]
        for caller, leaves in zip(callers, leaving, strict=True):
            if leaves:
                caller.cancel()
    for number, (answer, leaves) in enumerate(zip(answers, leaving, strict=True)):
        if leaves and answer.exception() is not None:  # otherwise it finished before it was cancelled
            assert error_code_of(answer) == grpc.StatusCode.CANCELLED
        else:
            assert answer.result()[0].tolist() == [2 * number]
    assert compute(x(7), ["y"], Caller())[0].tolist() == [14]  # no slot is lost
    if isinstance(compute, Batcher):
        assert not compute._queues
    else:
        assert compute._free == threads


def test_a_bad_request_does_not_fail_others_in_its_batch() -> None:
    graph = Graph()
    crowd = Crowd(Batcher(graph, BatchingOptions(num_batch_threads=1)))
    answers = [crowd.send(x(value)) for value in (0, 1, -1, 3)]
    graph.gate.set()
    assert [answers[n].result(30)[0].tolist() for n in (0, 1, 3)] == [[0], [2], [6]]
    with pytest.raises(RefusedError, match="−1 is among them"):
        answers[2].result(30)


def test_different_shapes_are_not_merged() -> None:
    graph = Graph()
    crowd = Crowd(Batcher(graph, BatchingOptions(num_batch_threads=1)))
    flat, square = crowd.send(x(1)), crowd.send({"x": np.ones((3, 2), np.float32)})
    graph.gate.set()
    assert flat.result(30)[0].shape == (1,)
    assert square.result(30)[0].shape == (3, 2)


def test_empty_queues_are_deleted() -> None:
    batcher = Batcher(Graph(opened=True), BatchingOptions())
    for width in range(100):
        batcher({"x": np.ones((1, width), np.float32)}, ["y"], Caller())
    assert not batcher._queues


def test_a_batch_waits_for_the_timeout_to_fill_up() -> None:
    graph = Graph(opened=True)
    crowd = Crowd(Batcher(graph, BatchingOptions(batch_timeout_micros=500_000, max_batch_size=3)))
    answers = [crowd.send(x(n)) for n in range(3)]
    assert [answer.result(30)[0].tolist() for answer in answers] == [[0], [2], [4]]
    assert graph.batches == [3]


def test_a_batch_is_padded_and_the_padding_is_removed() -> None:
    graph = Graph(opened=True)
    options = BatchingOptions(max_batch_size=8, allowed_batch_sizes=(2, 8))
    assert Batcher(graph, options)(x(1, 2, 3), ["y"], Caller())[0].tolist() == [2, 4, 6]
    assert graph.batches == [8]


@pytest.mark.parametrize("sizes", [(), (2, 8)], ids=["not padded", "padded"])
def test_a_request_without_rows_is_answered_alone_and_among_others(sizes: tuple[int, ...]) -> None:
    graph = Graph()
    options = BatchingOptions(num_batch_threads=1, max_batch_size=8, allowed_batch_sizes=sizes)
    crowd = Crowd(Batcher(graph, options))
    alone, among, other = crowd.send(x()), crowd.send(x()), crowd.send(x(1, 2, 3))
    graph.gate.set()
    assert (alone.result(30)[0].shape, among.result(30)[0].shape) == ((0,), (0,))
    assert other.result(30)[0].tolist() == [2, 4, 6]
    assert graph.batches == ([2, 8] if sizes else [1, 3])  # some operations fail for 0 rows


def test_rows_and_waiting_times_of_a_batch_are_reported() -> None:
    graph, told = Graph(), []
    options = BatchingOptions(num_batch_threads=1, max_batch_size=8, allowed_batch_sizes=(1, 8))
    crowd = Crowd(Batcher(graph, options, lambda rows, waits: told.append((rows, waits))))
    answers = [crowd.send(x(n)) for n in range(3)]
    time.sleep(0.05)
    graph.gate.set()
    for answer in answers:
        answer.result(30)
    assert [(rows, len(waits)) for rows, waits in told] == [(1, 1), (8, 2)]
    assert min(told[1][1]) >= 50_000  # µs; the second batch waited for the first


@pytest.mark.parametrize(
    ("feeds", "text"),
    [
        ({}, "must have at least one input tensor"),
        ({"x": np.float32(1).reshape(())}, "must have at least one dimension"),
        ({"x": np.ones(2), "z": np.ones(3)}, "must have equal 0th-dimension size"),
    ],
)
def test_inputs_that_cannot_be_merged_are_rejected(feeds: Feeds, text: str) -> None:
    with pytest.raises(RefusedError, match=text):
        Batcher(Graph(opened=True), BatchingOptions())(feeds, ["y"], Caller())


def test_an_output_with_too_few_rows_is_rejected() -> None:
    with pytest.raises(RefusedError, match="0th dimension does not equal"):
        Batcher(lambda feeds, fetches: [np.ones(1)], BatchingOptions())(x(1, 2), ["y"], Caller())


@settings(max_examples=40, deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(0, 1000), max_size=5), min_size=1, max_size=40),
    threads=st.integers(1, 3),
    most=st.integers(5, 12),
    timeout=st.sampled_from([0, 1000]),
)
def test_each_request_gets_its_own_rows(requests: list[list[int]], threads: int, most: int, timeout: int) -> None:
    options = BatchingOptions(
        num_batch_threads=threads, max_batch_size=most, max_enqueued_batches=100, batch_timeout_micros=timeout
    )
    batcher = Batcher(Graph(opened=True), options)
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(batcher, x(*values), ["y"], Caller()) for values in requests]
    for values, answer in zip(requests, answers, strict=True):
        assert answer.result(30)[0].tolist() == [2 * value for value in values]
    assert not batcher._queues


def test_without_batching_the_number_of_running_requests_is_limited() -> None:
    graph = Graph()
    compute = Unbatched(graph, max_running=2)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(compute, x(n), ["y"], Caller()) for n in range(8)]
        while len(graph.batches) < 2:
            time.sleep(0.01)
        time.sleep(0.1)  # enough for a third to start, which must not happen
        assert len(graph.batches) == 2
        graph.gate.set()
        assert [answer.result(30)[0].tolist() for answer in answers] == [[2 * n] for n in range(8)]


def test_the_shipped_batching_file_is_valid() -> None:
    options = read_batching_options(shipped_config() / "batching.config")
    assert options.max_batch_size == MAX_ROWS
    assert (options.padded(0), options.padded(1), options.padded(600)) == (1, 1, 640)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_batch_size: 8", "Error parsing text-format tensorflow.serving.BatchingParameters"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "ascending"),
        ("num_batch_threads { value: 0 }", "expected 1 or more"),
        ("pad_variable_length_inputs: true", "not supported"),
    ],
)
def test_an_invalid_batching_file_is_rejected(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "batching.config").write_text(text)
    with pytest.raises(InvalidInputError, match=said):
        read_batching_options(tmp_path / "batching.config")


def test_a_batching_server_answers_each_client_with_its_own_rows(base_path: Path) -> None:
    with EmbeddedServer(base_path, model_name="toy", batching=BatchingOptions(max_batch_size=64)) as target:
        stubs = connect(target)

        def ask(n: int) -> list[float]:
            values = [float(n)] * (n % 7 + 1)
            response = stubs.predict(predict_request(inputs={"a": values, "b": values}))
            return tf.make_ndarray(response.outputs["sum"]).tolist()

        with ThreadPoolExecutor(32) as pool:
            assert list(pool.map(ask, range(200))) == [[2.0 * n] * (n % 7 + 1) for n in range(200)]
        with pytest.raises(grpc.RpcError) as caught:
            stubs.predict(predict_request(inputs={"a": [0.0] * 65, "b": [0.0] * 65}))
        assert caught.value.details() == "Task size 65 is larger than maximum input batch size 64"


def test_clients_without_a_deadline_wait_without_limit(base_path: Path) -> None:
    with EmbeddedServer(base_path, model_name="toy", batching=BatchingOptions(num_batch_threads=1)) as target:
        stubs = connect(target)
        request = predict_request(signature="slow", inputs={"x": [50.0]})
        answers = [stubs.prediction.Predict.future(request) for _ in range(8)]
        assert all(tf.make_ndarray(answer.result().outputs["y"]).tolist() == [50.0] for answer in answers)
