"""Converts arrays to tensor messages and back.

A tensor message holds its elements in row-major order, in one of two forms: as little-endian bytes in
``tensor_content``, or as values in a typed field. A typed field may be shorter than the tensor: its last value is
repeated, and an empty field means zeros. TensorFlow Serving uses either form, depending on its options, for strings
too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError, UnexpectedReplyError
from digitforge_client.transport.rpc_errors import printable
from digitforge_client.transport.wire import messages_pb2 as messages


@dataclass(frozen=True, kw_only=True)
class _WireType:
    name: str
    dtype: np.dtype[Any]  # little-endian, as in tensor_content
    field: str  # name of the typed field
    field_dtype: type[np.generic]  # dtype of the typed field's elements


_WIRE_TYPES: Final[dict[int, _WireType]] = {
    messages.DT_FLOAT: _WireType(name="float32", dtype=np.dtype("<f4"), field="float_val", field_dtype=np.float32),
    messages.DT_INT32: _WireType(name="int32", dtype=np.dtype("<i4"), field="int_val", field_dtype=np.int32),
    messages.DT_UINT8: _WireType(name="uint8", dtype=np.dtype("u1"), field="int_val", field_dtype=np.int32),
    messages.DT_INT64: _WireType(name="int64", dtype=np.dtype("<i8"), field="int64_val", field_dtype=np.int64),
    messages.DT_BOOL: _WireType(name="bool", dtype=np.dtype("?"), field="bool_val", field_dtype=np.bool_),
}
_CODES: Final[dict[np.dtype[Any], Any]] = {wire_type.dtype: code for code, wire_type in _WIRE_TYPES.items()}
#: Largest number of elements to accept; tensors of the contract are far smaller. A short message can claim any shape,
#: because missing elements are repeated.
_MAX_ELEMENTS: Final = 2**28
#: Largest number of dimensions to accept. NumPy 1 has no more.
_MAX_DIMENSIONS: Final = 32


def dtype_name(code: int) -> str:
    """Name of a wire dtype, such as ``"uint8"`` or ``"string"``, or ``"dtype 14"`` for an unsupported one."""
    if code == messages.DT_STRING:
        return "string"
    return _WIRE_TYPES[code].name if code in _WIRE_TYPES else f"dtype {code}"


def encode(array: npt.NDArray[Any]) -> messages.Tensor:
    """Convert an array to a message.

    Args:
        array: float32, int32, uint8, int64 or bool, of any shape.

    Raises:
        InvalidInputError: the array has another dtype.
    """
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _CODES:
        names = ", ".join(wire_type.name for wire_type in _WIRE_TYPES.values())
        raise InvalidInputError(f"an array of dtype {array.dtype} cannot be sent; expected one of {names}")
    return messages.Tensor(
        dtype=_CODES[dtype],
        tensor_shape=messages.TensorShape(dim=[messages.TensorShape.Dim(size=size) for size in array.shape]),
        tensor_content=array.astype(dtype, copy=False).tobytes(),
    )


def decode(tensor: messages.Tensor) -> npt.NDArray[Any]:
    """Convert a message to an array.

    Returns:
        An array of the message's shape: float32, int32, uint8, int64 or bool, or ``bytes`` objects for strings. It may
        be read-only.

    Raises:
        UnexpectedReplyError: the message has another dtype, or its number of elements contradicts its shape.
    """
    shape, content = _shape(tensor), tensor.tensor_content
    count = math.prod(shape)
    if tensor.dtype == messages.DT_STRING:
        elements = _split_strings(content, count) if content else list(tensor.string_val)
        strings = np.empty(len(elements), dtype=object)
        strings[:] = elements
        return _fill(strings, count, shape)
    if tensor.dtype not in _WIRE_TYPES:
        raise UnexpectedReplyError(
            f"the server sent a tensor of {dtype_name(tensor.dtype)}; the contract has no tensor of this dtype"
        )
    wire_type = _WIRE_TYPES[tensor.dtype]
    if content:
        if len(content) != count * wire_type.dtype.itemsize:
            raise UnexpectedReplyError(
                f"the server sent a {wire_type.name} tensor of shape {shape} with {len(content)} bytes of content; "
                f"expected {count * wire_type.dtype.itemsize}"
            )
        if wire_type.name == "bool":  # any byte but 0 means true
            return np.frombuffer(content, dtype=np.uint8).reshape(shape) != 0
        array = np.frombuffer(content, dtype=wire_type.dtype)
        return array.astype(wire_type.dtype.newbyteorder("="), copy=False).reshape(shape)
    # protobuf 7 gives numpy its buffer, with one copy; protobuf 6 converts element by element
    values = np.asarray(getattr(tensor, wire_type.field), dtype=wire_type.field_dtype)
    if wire_type.name == "uint8":
        if values.size and not 0 <= values.min() <= values.max() <= 255:
            raise UnexpectedReplyError(
                f"the server sent values from {values.min()} to {values.max()} in a uint8 tensor; expected 0 to 255"
            )
        values = values.astype(np.uint8)
    return _fill(values, count, shape)


def output_of(reply: messages.PredictResponse, name: str, *, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Read one output of a reply.

    Args:
        reply: the reply.
        name: name of the output.
        dtype: the expected dtype, as in `dtype_name`.
        shape: the expected shape.

    Raises:
        UnexpectedReplyError: the output is missing, has the wrong dtype or shape, or lacks elements. A server sends
            every element, although the format allows it to leave out repeated ones.
    """
    if name not in reply.outputs:
        names = printable(", ".join(sorted(reply.outputs)))
        raise UnexpectedReplyError(
            f"the server's answer has no output {name!r} (its outputs: {names}); was the model exported with "
            "`digitforge export`?"
        )
    tensor = reply.outputs[name]
    claimed = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or dtype_name(tensor.dtype) != dtype or claimed != shape:
        raise UnexpectedReplyError(
            f"output {name!r} is {dtype_name(tensor.dtype)} of shape {printable(str(claimed))}; expected {dtype} of "
            f"shape {shape}"
        )
    field = "string_val" if dtype == "string" else _WIRE_TYPES[tensor.dtype].field
    if not tensor.tensor_content and len(getattr(tensor, field)) < math.prod(shape):
        raise UnexpectedReplyError(
            f"output {name!r} of shape {shape} came with {len(getattr(tensor, field))} elements; expected "
            f"{math.prod(shape)}"
        )
    return decode(tensor)


def _split_strings(content: bytes, count: int) -> list[bytes]:
    """Parse strings in ``tensor_content``: all lengths as varints, then the bytes of all strings."""
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
            f"the server sent {count} strings with {len(content) - position} bytes of content; expected "
            f"{ends[-1] - position}"
        )
    return [content[start:end] for start, end in pairwise(ends)]


def _shape(tensor: messages.Tensor) -> tuple[int, ...]:
    """The shape that a message claims, after checks."""
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    usual = len(shape) <= _MAX_DIMENSIONS and all(0 <= size <= _MAX_ELEMENTS for size in shape)
    if tensor.tensor_shape.unknown_rank or not usual or math.prod(shape) > _MAX_ELEMENTS:
        raise UnexpectedReplyError(
            f"the server sent a tensor of shape {printable(str(shape))}; the contract has no tensor of this shape"
        )
    return shape


def _fill(values: npt.NDArray[Any], count: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Fill in the elements that a typed field leaves out, and reshape."""
    if values.size > count:
        raise UnexpectedReplyError(
            f"the server sent a tensor of shape {shape} with {values.size} elements; expected {count}"
        )
    if values.size < count:
        last = values[-1:] if values.size else np.array([b""] if values.dtype == object else [0], values.dtype)
        values = np.concatenate([values, np.repeat(last, count - values.size)])
    return values.reshape(shape)
