"""Splitting and joining requests never loses, repeats or moves a row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitforge_client import AsyncDigitClient, DigitClient, InvalidInputError, UnexpectedReplyError
from digitforge_client.contract import ROWS_PER_SEED, SEEDS
from digitforge_client.protocol.description import Generator
from digitforge_client.protocol.requests import Joiner, sample_request, split
from digitforge_client.protocol.rows import SampleOptions, SampleSpec
from digitforge_client.transport.wire import messages
from digitforge_client.transport.wire.tensors import encode

TEN = Generator(
    card={},
    generator_id="0123456789abcdef",
    class_names=tuple("0123456789"),
    image_shape=(4, 3, 1),
    max_rows=1024,
)
FASHION = replace(TEN, class_names=("T-shirt/top", "Trouser", "Pullover"))
NO_CLASSES = replace(TEN, class_names=())


def spec(n: int | None = None, *, labels: Any = None, seed: int | None = 0, start: int = 0) -> SampleSpec:
    return SampleSpec.of(n, labels=labels, seed=seed, start=start)


@given(
    n=st.integers(0, 300),
    batch_size=st.integers(1, 120),
    max_rows=st.integers(1, 120),
    start=st.integers(0, 2**32 - 300),
)
def test_chunks_hold_every_row_once_and_in_order(n: int, batch_size: int, max_rows: int, start: int) -> None:
    cut = list(split(spec(n, seed=5, start=start).rows(TEN), batch_size=batch_size, max_rows=max_rows))
    assert all(1 <= len(chunk) <= max_rows for chunk in cut)
    seeds = [seed for chunk in cut for seed in chunk.seeds.tolist()]
    assert seeds == [5 * 2**32 + row for row in range(start, start + n)]
    labels = [label for chunk in cut if chunk.labels is not None for label in chunk.labels.tolist()]
    assert labels == [row % 10 for row in range(start, start + n)]
    ends = [chunk for chunk in cut if chunk.last]
    assert [chunk.batch for chunk in ends] == list(range(len(ends)))
    assert all(chunk.batch_rows == batch_size for chunk in ends[:-1])
    assert sum(chunk.batch_rows for chunk in ends) == n


@given(n=st.integers(1, 200), batch_size=st.integers(1, 50), first=st.integers(0, 5))
def test_a_later_first_batch_skips_whole_batches(n: int, batch_size: int, first: int) -> None:
    rows = spec(n).rows(TEN)
    whole = [chunk for chunk in split(rows, batch_size=batch_size, max_rows=7) if chunk.batch >= first]
    later = list(split(rows, batch_size=batch_size, max_rows=7, first_batch=first))
    assert [(p.batch, p.offset, p.seeds.tolist()) for p in later] == [
        (p.batch, p.offset, p.seeds.tolist()) for p in whole
    ]


def test_one_label_applies_to_all_rows_and_may_be_a_name_or_a_number() -> None:
    for label in (7, "7", np.int32(7), 7.0, np.float32(7)):
        labels, _ = spec(5, labels=label).rows(TEN).addresses(1, 3)
        assert labels is not None
        assert labels.tolist() == [7, 7, 7]
        assert labels.dtype == np.int64
    labels, _ = spec(labels=["Pullover", "Trouser"]).rows(FASHION).addresses(0, 2)
    assert labels is not None
    assert labels.tolist() == [2, 1]


def test_an_object_array_may_hold_class_names() -> None:
    names = np.array(["Trouser", "Pullover"], dtype=object)
    assert FASHION.class_numbers(names).tolist() == [1, 2]


@pytest.mark.parametrize("labels", [[0, 10], [-1], "eleven", ["3", "x"], [1.5], [np.inf], [[1]], [True]], ids=str)
def test_a_label_outside_the_classes_is_rejected(labels: Any) -> None:
    with pytest.raises(InvalidInputError):
        spec(labels=labels, n=1 if isinstance(labels, str) else None).rows(TEN)


def test_the_error_names_the_label_and_the_classes() -> None:
    with pytest.raises(InvalidInputError, match=r"no class 10, 11; its classes are 0, 1, 2, .*9$"):
        spec(labels=[3, 10, 11, 10]).rows(TEN)
    with pytest.raises(InvalidInputError, match=r"no class 'Hat'; its classes are 0 \(T-shirt/top\), 1 \(Trouser\)"):
        spec(labels=["Hat"]).rows(FASHION)


def test_an_unconditional_generator_takes_no_labels() -> None:
    with pytest.raises(InvalidInputError, match="unconditional"):
        spec(labels=[1]).rows(NO_CLASSES)
    labels, seeds = spec(3).rows(NO_CLASSES).addresses(0, 3)
    assert labels is None
    assert seeds.tolist() == [0, 1, 2]
    request = sample_request(
        messages.ModelSpec(name="digits"), next(split(spec(3).rows(NO_CLASSES), batch_size=3, max_rows=3))
    )
    assert list(request.inputs) == ["seeds"]


@pytest.mark.parametrize(
    ("n", "labels", "seed", "start"),
    [
        (None, None, 0, 0),
        (-1, None, 0, 0),
        (1.5, None, 0, 0),
        (True, None, 0, 0),
        (1, None, -1, 0),
        (1, None, SEEDS, 0),
        (1, None, 0.5, 0),
        (1, None, 0, -1),
        (1, None, 0, ROWS_PER_SEED),
        (2, [1, 2, 3], 0, 0),
    ],
)
def test_arguments_out_of_range_are_rejected_before_anything_is_sent(
    n: Any, labels: Any, seed: Any, start: Any
) -> None:
    with pytest.raises(InvalidInputError):
        SampleSpec.of(n, labels=labels, seed=seed, start=start)


@pytest.mark.parametrize("client", [DigitClient, AsyncDigitClient])
def test_the_error_names_an_unknown_option(client: type[DigitClient] | type[AsyncDigitClient]) -> None:
    with pytest.raises(TypeError, match="expantion"):
        client().stream(3, expantion=1.2)  # type: ignore[call-arg]


def test_every_option_is_documented() -> None:
    for name in get_type_hints(SampleOptions):
        assert f"            {name}: " in (DigitClient.sample.__doc__ or "")


@given(n=st.integers(1, 60), cuts=st.tuples(st.integers(0, 60), st.integers(0, 60)), labeled=st.booleans())
def test_a_part_of_a_spec_has_the_addresses_of_its_rows(n: int, cuts: tuple[int, int], labeled: bool) -> None:
    first, end = sorted(min(cut, n - 1) for cut in cuts)
    end += 1
    whole = SampleSpec.of(n, labels=[row % 3 for row in range(n)] if labeled else None, seed=3, start=7, expansion=1.2)
    part = whole.part(first, end)
    again = SampleSpec.of(part.n, **part.options)
    assert again.expansion == 1.2
    labels, seeds = again.rows(TEN).addresses(0, end - first)
    expected_labels, expected_seeds = whole.rows(TEN).addresses(first, end - first)
    np.testing.assert_array_equal(seeds, expected_seeds)
    assert labels is not None
    assert expected_labels is not None
    np.testing.assert_array_equal(labels, expected_labels)


def test_without_a_seed_a_seed_is_drawn() -> None:
    drawn = {spec(1, seed=None).seed for _ in range(20)}
    assert len(drawn) > 1
    assert all(0 <= seed < SEEDS for seed in drawn)


@given(n=st.integers(1, 60), max_rows=st.integers(1, 60))
def test_answers_are_joined_in_the_right_place(n: int, max_rows: int) -> None:
    joiner = Joiner(TEN, seed=3)
    for chunk in split(spec(n, seed=3).rows(TEN), batch_size=n, max_rows=max_rows):
        assert chunk.labels is not None
        images = np.broadcast_to(chunk.labels.astype(np.uint8)[:, None, None, None], (len(chunk), 4, 3, 1))
        valid = np.ones(len(chunk), dtype=bool)
        reply = messages.PredictResponse(outputs={"images": encode(images), "valid": encode(valid)})
        joiner.add(chunk, reply)
    batch = joiner.batch()
    assert len(batch) == n
    assert batch.images.shape == (n, 4, 3)
    assert batch.images[:, 0, 0].tolist() == batch.labels.tolist() == [row % 10 for row in range(n)]
    assert batch.seeds.tolist() == [3 * 2**32 + row for row in range(n)]
    assert (batch.seed, batch.start, batch.generator_id) == (3, 0, TEN.generator_id)


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"images": np.zeros((2, 4, 3, 1), np.uint8)},
        {"images": np.zeros((1, 4, 3, 1), np.uint8), "valid": np.ones(2, bool)},
        {"images": np.zeros((2, 3, 4, 1), np.uint8), "valid": np.ones(2, bool)},
        {"images": np.zeros((2, 4, 3, 1), np.float32), "valid": np.ones(2, bool)},
        {"images": np.zeros((2, 4, 3, 1), np.uint8), "valid": np.ones(3, bool)},
        {"images": np.zeros((2, 4, 3, 1), np.uint8), "valid": np.ones(2, np.int64)},
        {"images": np.zeros((2, 4, 3, 1), np.uint8), "valid": np.array([True, False])},
    ],
    ids=["nothing", "no valid", "too few", "turned", "floats", "too many valid", "valid is a number", "a label denied"],
)
def test_an_answer_that_breaks_the_contract_is_rejected(outputs: dict[str, np.ndarray]) -> None:
    chunk = next(split(spec(2).rows(TEN), batch_size=2, max_rows=2))
    reply = messages.PredictResponse(outputs={name: encode(array) for name, array in outputs.items()})
    with pytest.raises(UnexpectedReplyError):
        Joiner(TEN, seed=0).add(chunk, reply)
