"""Arrays to tensor messages and back.

Elements lie row by row. A tensor message carries them either as the bytes of ``tensor_content``, little-endian,
or in a typed field, in which the last value stands for all that are missing, and no value at all for zeros;
TensorFlow Serving answers in either form, depending on how it was started, strings included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError, UnexpectedReplyError
from digitforge_client.transport.wire import messages_pb2 as messages


@dataclass(frozen=True, kw_only=True)
class _Kind:
    name: str
    dtype: np.dtype[Any]  # little-endian, as in tensor_content
    field: str  # the typed field
    field_dtype: type[np.generic]  # of the elements of the typed field


_KINDS: Final[dict[int, _Kind]] = {
    messages.DT_FLOAT: _Kind(name="float32", dtype=np.dtype("<f4"), field="float_val", field_dtype=np.float32),
    messages.DT_INT32: _Kind(name="int32", dtype=np.dtype("<i4"), field="int_val", field_dtype=np.int32),
    messages.DT_UINT8: _Kind(name="uint8", dtype=np.dtype("u1"), field="int_val", field_dtype=np.int32),
    messages.DT_INT64: _Kind(name="int64", dtype=np.dtype("<i8"), field="int64_val", field_dtype=np.int64),
    messages.DT_BOOL: _Kind(name="bool", dtype=np.dtype("?"), field="bool_val", field_dtype=np.bool_),
}
_CODES: Final[dict[np.dtype[Any], Any]] = {kind.dtype: code for code, kind in _KINDS.items()}
#: No tensor of the contract comes near this many elements. A short message can claim any shape, since missing elements
#: are repeated, so a larger claim is not believed.
_MOST_ELEMENTS: Final = 2**28


def dtype_name(code: int) -> str:
    """Name of a wire dtype, such as ``"uint8"`` or ``"string"``; ``"dtype 14"`` for one that the client never meets."""
    if code == messages.DT_STRING:
        return "string"
    return _KINDS[code].name if code in _KINDS else f"dtype {code}"


def encode(array: npt.NDArray[Any]) -> messages.Tensor:
    """Make the message of an array.

    Args:
        array: any shape; float32, int32, uint8, int64 or bool.

    Raises:
        InvalidInputError: the dtype is another one.
    """
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _CODES:
        names = ", ".join(kind.name for kind in _KINDS.values())
        raise InvalidInputError(f"an array of {array.dtype} cannot be sent; expected one of {names}")
    return messages.Tensor(
        dtype=_CODES[dtype],
        tensor_shape=messages.TensorShape(dim=[messages.TensorShape.Dim(size=size) for size in array.shape]),
        tensor_content=array.astype(dtype, copy=False).tobytes(),
    )


def decode(tensor: messages.Tensor) -> npt.NDArray[Any]:
    """Make the array of a message.

    Returns:
        float32, int32, uint8, int64 or bool, or an object array of ``bytes`` for strings, in the message's shape.
        It may be read-only.

    Raises:
        UnexpectedReplyError: the dtype is another one, or the number of elements contradicts the shape.
    """
    shape, content = _shape(tensor), tensor.tensor_content
    count = math.prod(shape)
    if tensor.dtype == messages.DT_STRING:
        held = _split_strings(content, count) if content else list(tensor.string_val)
        strings = np.empty(len(held), dtype=object)
        strings[:] = held
        return _fill(strings, count, shape)
    if tensor.dtype not in _KINDS:
        raise UnexpectedReplyError(
            f"the server sent a tensor of {dtype_name(tensor.dtype)}, which the contract has not"
        )
    kind = _KINDS[tensor.dtype]
    if content:
        if len(content) != count * kind.dtype.itemsize:
            raise UnexpectedReplyError(
                f"the server sent a {kind.name} tensor of shape {shape} with {len(content)} bytes of content; "
                f"expected {count * kind.dtype.itemsize}"
            )
        return np.frombuffer(content, dtype=kind.dtype).astype(kind.dtype.newbyteorder("="), copy=False).reshape(shape)
    # protobuf 7 hands its buffer to numpy in one copy; protobuf 6 walks through the elements
    values = np.asarray(getattr(tensor, kind.field), dtype=kind.field_dtype)
    if kind.name == "uint8":
        if values.size and not 0 <= values.min() <= values.max() <= 255:
            raise UnexpectedReplyError(f"the server sent {values.min()} … {values.max()} in a uint8 tensor")
        values = values.astype(np.uint8)
    return _fill(values, count, shape)


def _split_strings(content: bytes, count: int) -> list[bytes]:
    """Strings from ``tensor_content``: all their lengths, as varints, then all their bytes."""
    position, lengths = 0, [0] * min(count, len(content))
    for index in range(len(lengths)):
        shift, byte = 0, 0x80
        while byte & 0x80 and position < len(content) and shift < 35:  # a length has 32 bits
            byte = content[position]
            lengths[index] |= (byte & 0x7F) << shift
            position, shift = position + 1, shift + 7
    ends = list(accumulate(lengths, initial=position))
    if len(lengths) != count or ends[-1] != len(content):
        raise UnexpectedReplyError(
            f"the server sent {count} strings of {ends[-1] - position} bytes together in a content of "
            f"{len(content) - position}"
        )
    return [content[start:end] for start, end in pairwise(ends)]


def _shape(tensor: messages.Tensor) -> tuple[int, ...]:
    """The shape that a message claims, if it can be one."""
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise UnexpectedReplyError(
            f"the server sent a tensor of shape {shape}, which no tensor of the contract can have"
        )
    return shape


def _fill(values: npt.NDArray[Any], count: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Elements of a typed field in their shape, with those that the message left out."""
    if values.size > count:
        raise UnexpectedReplyError(
            f"the server sent a tensor of shape {shape} with {values.size} elements; expected {count}"
        )
    if values.size < count:
        last = values[-1:] if values.size else np.array([b""] if values.dtype == object else [0], values.dtype)
        values = np.concatenate([values, np.repeat(last, count - values.size)])
    return values.reshape(shape)
