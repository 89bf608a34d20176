"""Tests of `sample` and `stream` against a server made with the official stubs."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from digitforge_client import Batch, DigitClient, InvalidInputError, Limits, UnexpectedReplyError


@pytest.fixture
def client(server: Any) -> Iterator[DigitClient]:
    with DigitClient(server.target) as client:
        yield client


def joined(batches: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join the images, labels and row seeds of several batches."""
    batches = list(batches)
    images, labels, seeds = (
        np.concatenate([getattr(b, name) for b in batches]) for name in ("images", "labels", "seeds")
    )
    return images, labels, seeds


@pytest.mark.parametrize("tensor_content", [True, False], ids=["tensor_content", "typed fields"])
def test_a_sample_has_the_digits_of_its_addresses(
    server: Any, client: DigitClient, formula: Any, tensor_content: bool
) -> None:
    server.tensor_content = tensor_content
    batch = client.sample(2500, seed=7)
    assert batch.images.shape == (2500, 28, 28)
    assert [array.dtype.name for array in (batch.images, batch.labels, batch.seeds)] == ["uint8", "int64", "int64"]
    assert batch.labels.tolist() == [row % 10 for row in range(2500)]
    assert batch.seeds.tolist() == [7 * 2**32 + row for row in range(2500)]
    assert (batch.seed, batch.start, batch.generator_id) == (7, 0, server.generator_id)
    np.testing.assert_array_equal(batch.images, formula(batch.labels, batch.seeds)[..., 0])


def test_a_split_never_changes_an_image(server: Any, client: DigitClient) -> None:
    whole = client.sample(600, seed=1)
    for rows in (1, 7, 599, 600, 1000):
        with DigitClient(server.target, limits=Limits(rows_per_request=rows, requests_in_flight=3)) as other:
            part = other.sample(600 if rows > 1 else 20, seed=1)
        np.testing.assert_array_equal(part.images, whole.images[: len(part)])
        np.testing.assert_array_equal(part.labels, whole.labels[: len(part)])


def test_no_request_is_larger_than_the_generator_allows(server: Any, client: DigitClient) -> None:
    server.max_rows = 100
    assert len(client.sample(350, seed=0)) == 350
    rows = [request.inputs["seeds"].tensor_shape.dim[0].size for request in server.requests]
    assert sorted(rows) == [50, 100, 100, 100]


def test_start_continues_where_another_sample_ended(client: DigitClient) -> None:
    whole, later = client.sample(60, seed=3), client.sample(25, seed=3, start=35)
    np.testing.assert_array_equal(later.images, whole.images[35:])
    np.testing.assert_array_equal(later.labels, whole.labels[35:])
    assert later.start == 35


def test_there_may_be_one_label_per_digit_or_one_for_all(client: DigitClient, formula: Any) -> None:
    each = client.sample(labels=[3, 1, 4, 1, 5], seed=0)
    assert each.labels.tolist() == [3, 1, 4, 1, 5]
    np.testing.assert_array_equal(each.images, formula(each.labels, each.seeds)[..., 0])
    assert client.sample(4, labels="7").labels.tolist() == [7, 7, 7, 7]
    np.testing.assert_array_equal(client.sample(1, labels=9, seed=8).images, client.sample(labels=[9], seed=8).images)


def test_without_a_seed_the_batch_has_a_drawn_seed(client: DigitClient) -> None:
    drawn = client.sample(20)
    assert drawn.seed is not None
    np.testing.assert_array_equal(client.sample(20, seed=drawn.seed).images, drawn.images)
    assert len({client.sample(1).seed for _ in range(8)}) > 1


def test_zero_digits_need_no_server() -> None:
    with DigitClient("127.0.0.1:1") as client:
        empty = client.sample(0)
        assert (empty.images.shape, empty.labels.shape, empty.seeds.shape) == ((0, 28, 28), (0,), (0,))
        assert len(client.sample(labels=[])) == 0
        assert list(client.stream(0)) == []
        assert empty.start is None


@pytest.mark.parametrize("n", [1_000_001, 10_000_000])
def test_the_error_of_a_too_large_sample_suggests_a_stream(n: int) -> None:
    with DigitClient("127.0.0.1:1") as client, pytest.raises(InvalidInputError, match=r"use stream\(\)"):
        client.sample(n)


def test_an_unknown_label_is_rejected_before_digits_are_requested(server: Any, client: DigitClient) -> None:
    with pytest.raises(InvalidInputError, match=r"no class 10; its classes are 0, 1"):
        client.sample(labels=[3, 10])
    with pytest.raises(InvalidInputError, match="no class 'ten'"):
        next(client.stream(5, labels="ten"))
    assert server.requests == []


def test_arguments_out_of_range_are_rejected_at_once() -> None:
    client = DigitClient("127.0.0.1:1")
    for_both: list[dict[str, Any]] = [
        {"n": -1},
        {"n": 1, "seed": 2**21},
        {"n": 1, "start": -1},
        {"n": 2, "start": 2**32 - 1},
        {},
    ]
    for wrong in for_both:
        with pytest.raises(InvalidInputError):
            client.sample(**wrong)
        with pytest.raises(InvalidInputError):
            client.stream(**wrong)
    for_stream: list[dict[str, Any]] = [{"batch_size": 0}, {"on_change": "ignore"}]
    for wrong in for_stream:
        with pytest.raises(InvalidInputError):
            client.stream(1, **wrong)


@pytest.mark.parametrize("target", ["", [], ["localhost:8500", ""], [None], "localhost", "http://localhost:8501"])
def test_an_invalid_target_is_rejected(target: Any) -> None:
    with pytest.raises(InvalidInputError, match="host:port"):
        DigitClient(target)


def test_an_unconditional_generator_gives_digits_without_labels(server: Any, client: DigitClient, formula: Any) -> None:
    server.class_names = ()
    batch = client.sample(12, seed=2)
    assert batch.labels.tolist() == [-1] * 12
    np.testing.assert_array_equal(batch.images, formula(None, batch.seeds)[..., 0])
    with pytest.raises(InvalidInputError, match="unconditional"):
        client.sample(labels=[1])


def test_class_names_and_image_shape_come_from_the_generator(server: Any, client: DigitClient) -> None:
    server.class_names, server.image_shape = ("cat", "dog", "owl"), (8, 6, 3)
    batch = client.sample(7, seed=0)
    assert batch.images.shape == (7, 8, 6, 3)
    assert batch.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert client.sample(labels=["owl", "cat"]).labels.tolist() == [2, 0]


def test_a_stream_has_the_digits_of_a_sample_in_batches(client: DigitClient) -> None:
    images, labels, seeds = joined(client.stream(1000, batch_size=130, seed=4))
    whole = client.sample(1000, seed=4)
    np.testing.assert_array_equal(images, whole.images)
    np.testing.assert_array_equal(labels, whole.labels)
    np.testing.assert_array_equal(seeds, whole.seeds)
    assert [len(batch) for batch in client.stream(1000, batch_size=130, seed=4)] == [130] * 7 + [90]


def test_a_batch_may_be_larger_than_a_request(server: Any) -> None:
    with DigitClient(server.target, limits=Limits(rows_per_request=50)) as client:
        batches = list(client.stream(400, batch_size=170, seed=4))
        assert [len(batch) for batch in batches] == [170, 170, 60]
        np.testing.assert_array_equal(joined(batches)[0], client.sample(400, seed=4).images)


def test_a_stream_without_a_seed_draws_one_for_all_its_batches(client: DigitClient) -> None:
    assert len({batch.seed for batch in client.stream(30, batch_size=10)}) == 1


def test_requests_in_flight_are_bounded_and_order_is_kept(server: Any) -> None:
    in_flight, most, lock, late = 0, 0, threading.Lock(), threading.Event()

    def hold(request: Any) -> None:
        nonlocal in_flight, most
        with lock:
            in_flight += 1
            most = max(most, in_flight)
        late.wait(0.02 if len(server.requests) % 2 else 0.001)  # answers arrive in another order
        with lock:
            in_flight -= 1

    server.before_answer = hold
    with DigitClient(server.target, limits=Limits(rows_per_request=10, requests_in_flight=3)) as client:
        batch = client.sample(300, seed=0)
    assert batch.seeds.tolist() == list(range(300))
    assert 1 < most <= 3


def test_a_stream_that_is_closed_early_stops_sending_requests(server: Any, client: DigitClient) -> None:
    stream = client.stream(1_000_000_000, batch_size=64, seed=0)
    next(stream)
    stream.close()
    asked = len(server.requests)
    assert asked < 20
    client.sample(1)
    assert len(server.requests) <= asked + 6  # pending requests, and the new one


def test_the_memory_of_a_stream_does_not_grow(client: DigitClient) -> None:
    stream = client.stream(60 * 1024, batch_size=1024, seed=0)
    next(stream)
    tracemalloc.start()
    try:
        for _ in stream:
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The server runs in this process, so the peak includes its memory. All images together take 48 MB.
    assert peak < 32 * 2**20


def test_threads_may_share_a_client(client: DigitClient, formula: Any) -> None:
    def ask(seed: int) -> Batch:
        return client.sample(300, seed=seed)

    with ThreadPoolExecutor(6) as pool:
        for seed, batch in enumerate(pool.map(ask, range(18))):
            assert batch.seed == seed
            np.testing.assert_array_equal(batch.images, formula(batch.labels, batch.seeds)[..., 0])


def test_several_targets_are_used_in_turn(start_server: Any, formula: Any) -> None:
    servers = [start_server(), start_server()]
    with DigitClient([one.target for one in servers], limits=Limits(rows_per_request=20)) as client:
        batch = client.sample(200, seed=6)
    np.testing.assert_array_equal(batch.images, formula(batch.labels, batch.seeds)[..., 0])
    assert [len(one.requests) for one in servers] == [5, 5]


def test_a_closed_client_opens_again(client: DigitClient) -> None:
    first = client.sample(5, seed=1)
    client.close()
    np.testing.assert_array_equal(client.sample(5, seed=1).images, first.images)


def test_metadata_and_card_describe_the_model(server: Any, client: DigitClient) -> None:
    metadata = client.metadata()
    assert (metadata.model, metadata.version) == ("digits", 1)
    signature = metadata.signatures["serving_default"]
    assert (signature.inputs["labels"].dtype, signature.inputs["labels"].shape) == ("int64", (None,))
    assert (signature.outputs["images"].dtype, signature.outputs["images"].shape) == ("uint8", (None, 28, 28, 1))
    assert client.card() == server.card()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contract_version": 2}, "contract version 2"),
        ({"contract_version": None}, "contract version None"),
        ({"class_names": None}, "missing or invalid field"),
        ({"image_shape": [28, 28]}, "missing or invalid field"),
        ({"max_rows": 0}, "max_rows is 0"),
        ({"class_names": []}, "names 0 classes, but the signature takes labels"),
    ],
)
def test_a_card_that_breaks_the_contract_is_rejected(
    server: Any, client: DigitClient, changes: dict[str, Any], message: str
) -> None:
    server.card_changes = changes
    with pytest.raises(UnexpectedReplyError, match=message):
        client.sample(1)
