"""What is read in place is what protobuf reads, whatever the bytes."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from digitforge_client import UnexpectedReplyError
from digitforge_client.transport.wire import Reply, messages
from digitforge_client.transport.wire.replies import Held
from digitforge_client.transport.wire.tensors import decode, encode

ARRAYS = {
    "images": np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3),
    "valid": np.array([True, False]),
    "latents": np.linspace(-1, 1, 4, dtype=np.float32).reshape(2, 2),
    "none": np.zeros((0, 5), np.uint8),
}


def reply(*, typed: bool = False) -> messages.PredictResponse:
    whole = messages.PredictResponse(
        model_spec=messages.ModelSpec(name="digits", version=messages.Int64Value(value=300))
    )
    for name, array in ARRAYS.items():
        whole.outputs[name].CopyFrom(encode(array))
    if typed:
        whole.outputs["images"].tensor_content = b""
        whole.outputs["images"].int_val.extend(ARRAYS["images"].ravel().tolist())
    strings = messages.TensorShape(dim=[messages.TensorShape.Dim(size=2)])
    whole.outputs["card"].CopyFrom(
        messages.Tensor(dtype=messages.DT_STRING, tensor_shape=strings, string_val=[b"one", b"two"])
    )
    whole.outputs["packed"].CopyFrom(
        messages.Tensor(dtype=messages.DT_STRING, tensor_shape=strings, tensor_content=b"\x03\x02onetw")
    )
    return whole


def read(source: Any, data: bytes) -> dict[str, Any] | str:
    """Names and values of the outputs, or the kind of the refusal."""
    try:
        outputs = source.FromString(data).outputs
    except DecodeError:
        return "no message"
    found: dict[str, Any] = {}
    for name in outputs:
        try:
            array = decode(outputs[name])
        except UnexpectedReplyError as error:
            found[name] = str(error)
        else:
            found[name] = (array.dtype.name, array.shape, array.tolist())
    return found


@pytest.mark.parametrize("typed", [False, True])
def test_an_answer_is_read_as_protobuf_reads_it(typed: bool) -> None:
    data = reply(typed=typed).SerializeToString()
    found = read(Reply, data)
    assert found == read(messages.PredictResponse, data)
    for name, array in ARRAYS.items():
        assert found[name] == (array.dtype.name, array.shape, array.tolist())  # type: ignore[index]
    assert found["card"][2] == [b"one", b"two"] and found["packed"][2] == [b"one", b"tw"]  # type: ignore[index] # noqa: PT018


def test_large_contents_are_not_copied() -> None:
    data = reply().SerializeToString()
    held = Reply.FromString(data).outputs["images"]
    assert isinstance(held, Held)
    assert held.content.obj is data
    assert np.shares_memory(decode(held), np.frombuffer(data, np.uint8))


@given(data=st.data())
def test_changed_bytes_mean_to_both_the_same(data: st.DataObject) -> None:
    whole = bytearray(reply(typed=data.draw(st.booleans())).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(whole) - 1))
        match data.draw(st.sampled_from(["change", "cut", "insert", "double"])):
            case "change":
                whole[place] = data.draw(st.integers(0, 255))
            case "cut":
                del whole[place : place + data.draw(st.integers(1, 5))]
            case "insert":
                whole[place:place] = data.draw(st.binary(min_size=1, max_size=4))
            case "double":
                whole += whole[place:]
        if not whole:
            return
    expected = read(messages.PredictResponse, bytes(whole))
    found = read(Reply, bytes(whole))
    # what protobuf refuses (a field of the wrong place, say) may be passed over here, never the other way round
    if expected != "no message":
        assert found == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_an_error(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        Reply.FromString(data)


def test_unusual_ways_of_writing_are_left_to_protobuf() -> None:
    one, other = messages.PredictResponse(), messages.PredictResponse()
    one.outputs["images"].CopyFrom(encode(ARRAYS["images"]))
    other.outputs["images"].CopyFrom(encode(ARRAYS["valid"]))
    twice = one.SerializeToString() + other.SerializeToString()
    assert read(Reply, twice) == read(messages.PredictResponse, twice)  # the last counts
    tensor = encode(ARRAYS["valid"]).SerializeToString()
    # an entry with its value before its key, with two values, and without a value
    value, key = b"\x12" + bytes([len(tensor)]) + tensor, b"\x0a\x01v"
    for entry in (value + key, key + value + value, key, value, b""):
        data = b"\x0a" + bytes([len(entry)]) + entry
        assert read(Reply, data) == read(messages.PredictResponse, data)
    group = b"\x0b\x0c" + one.SerializeToString()  # begun and ended, as protobuf wrote it long ago
    assert read(Reply, group) == read(messages.PredictResponse, group) != "no message"
