"""Tensors survive a round trip, and inconsistent tensors are rejected."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from digitforge_client import InvalidInputError, UnexpectedReplyError
from digitforge_client.transport.wire import messages
from digitforge_client.transport.wire.tensors import decode, dtype_name, encode

anything = st.sampled_from(["float32", "int32", "uint8", "int64", "bool"]).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


def shaped(*sizes: int, unknown_rank: bool = False) -> messages.TensorShape:
    dims = [messages.TensorShape.Dim(size=size) for size in sizes]
    return messages.TensorShape(dim=dims, unknown_rank=unknown_rank)


@given(anything)
def test_a_round_trip_changes_nothing(array: np.ndarray) -> None:
    read = decode(messages.Tensor.FromString(encode(array).SerializeToString()))
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_a_fortran_ordered_array_is_sent_row_by_row() -> None:
    array = np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)).astype(">i8")
    np.testing.assert_array_equal(decode(encode(array)), array)


def test_an_array_of_another_dtype_cannot_be_sent() -> None:
    with pytest.raises(InvalidInputError, match="float64"):
        encode(np.zeros(2))


@pytest.mark.parametrize("values", [[0, 127, 128, 255], [300, 0, 0, 0], [-1, 0, 0, 0]], ids=str)
def test_uint8_values_in_a_typed_field_are_checked(values: list[int]) -> None:
    tensor = messages.Tensor(dtype=messages.DT_UINT8, tensor_shape=shaped(4), int_val=values)
    if 0 <= min(values) <= max(values) <= 255:
        assert decode(tensor).tolist() == values
    else:
        with pytest.raises(UnexpectedReplyError, match="uint8"):
            decode(tensor)


def test_missing_elements_repeat_the_last_and_an_empty_field_means_zeros() -> None:
    two = messages.Tensor(dtype=messages.DT_INT64, tensor_shape=shaped(2, 2), int64_val=[4, 5])
    assert decode(two).tolist() == [[4, 5], [5, 5]]
    none = messages.Tensor(dtype=messages.DT_UINT8, tensor_shape=shaped(3))
    assert decode(none).tolist() == [0, 0, 0]
    assert decode(none).dtype == np.uint8


def test_strings_in_tensor_content_are_lengths_and_then_bytes() -> None:
    content = b"\x05\x00\xc8\x01" + b"seven" + b"x" * 200
    tensor = messages.Tensor(dtype=messages.DT_STRING, tensor_shape=shaped(3), tensor_content=content)
    assert decode(tensor).tolist() == [b"seven", b"", b"x" * 200]


@pytest.mark.parametrize(
    "tensor",
    [
        messages.Tensor(dtype=messages.DT_STRING, tensor_shape=shaped(2), tensor_content=b"\x02\x01ab"),
        messages.Tensor(dtype=messages.DT_STRING, tensor_shape=shaped(2), tensor_content=b"\x02"),
        messages.Tensor(dtype=messages.DT_STRING, tensor_shape=shaped(1), tensor_content=b"\x80" * 1000),
        messages.Tensor(dtype=messages.DT_STRING, tensor_shape=shaped(9), tensor_content=b"\x01a"),
        messages.Tensor(dtype=messages.DT_UINT8, tensor_shape=shaped(4), tensor_content=b"abc"),
        messages.Tensor(dtype=messages.DT_UINT8, tensor_shape=shaped(2), tensor_content=b"abc"),
        messages.Tensor(dtype=messages.DT_INT64, tensor_shape=shaped(1), tensor_content=b"1234567"),
        messages.Tensor(dtype=messages.DT_INT64, tensor_shape=shaped(1), int64_val=[1, 2]),
        messages.Tensor(dtype=messages.DT_STRING, tensor_shape=shaped(1), string_val=[b"a", b"b"]),
        messages.Tensor(dtype=messages.DT_UINT8, tensor_shape=shaped(-1), int_val=[1]),
        messages.Tensor(dtype=messages.DT_UINT8, tensor_shape=shaped(unknown_rank=True), int_val=[1]),
        messages.Tensor(dtype=messages.DT_UINT8, tensor_shape=shaped(2**40, 2**40), int_val=[1]),
        messages.Tensor(dtype=messages.DT_UINT8, tensor_shape=shaped(2**31), int_val=[1]),
        messages.Tensor(dtype=messages.DT_DOUBLE, tensor_shape=shaped(0)),
        messages.Tensor(dtype=99, tensor_shape=shaped(1), int_val=[1]),  # type: ignore[arg-type]
    ],
    ids=[
        "strings too long",
        "lengths cut short",
        "a length without end",
        "fewer strings than claimed",
        "content too short",
        "content too long",
        "content cut inside an element",
        "too many elements",
        "too many strings",
        "negative size",
        "no rank",
        "size beyond all memory",
        "size beyond the contract",
        "dtype outside the contract",
        "dtype of no name",
    ],
)
def test_an_inconsistent_tensor_is_rejected(tensor: messages.Tensor) -> None:
    with pytest.raises(UnexpectedReplyError):
        decode(tensor)


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_give_an_array_or_an_unexpected_reply_error(data: bytes) -> None:
    with contextlib.suppress(UnexpectedReplyError, DecodeError):
        decode(messages.Tensor.FromString(data))


def test_dtypes_have_names() -> None:
    assert [dtype_name(code) for code in (4, 9, 7, 14)] == ["uint8", "int64", "string", "dtype 14"]
