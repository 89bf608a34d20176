"""Convert TensorProto messages to arrays and back, with the rules of TensorFlow's ``Tensor::FromProto``.

A message holds its elements as little-endian bytes in ``tensor_content``, or in a typed field such as ``float_val``. If
a typed field has too few values, the last value is repeated. If it is empty, all elements are zero. For strings,
``tensor_content`` holds first the lengths of all strings (varints), then the bytes of all strings.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

Array = npt.NDArray[Any]

#: Maximum size of a tensor with repeated elements. Without this limit, a message of a few bytes could claim any shape.
MAX_REPEATED_BYTES: Final = 2**26
#: Maximum number of strings in a tensor. Each takes at least 60 bytes in memory, but only one or two in a message.
MAX_STRINGS: Final = 2**20
_SHORT: Final = 32  # values of a field that are faster to copy
MAX_DIMENSIONS: Final = 64  # numpy's limit; TensorFlow's is 254

#: dtype => (typed field, dtype of the field's values).
_FIELDS: Final[dict[int, tuple[str, type[np.generic]]]] = {
    types_pb2.DT_FLOAT: ("float_val", np.float32),
    types_pb2.DT_DOUBLE: ("double_val", np.float64),
    types_pb2.DT_INT64: ("int64_val", np.int64),
    types_pb2.DT_UINT32: ("uint32_val", np.uint32),
    types_pb2.DT_UINT64: ("uint64_val", np.uint64),
    types_pb2.DT_BOOL: ("bool_val", np.bool_),
    types_pb2.DT_COMPLEX64: ("scomplex_val", np.float32),
    types_pb2.DT_COMPLEX128: ("dcomplex_val", np.float64),
    types_pb2.DT_HALF: ("half_val", np.int32),
    types_pb2.DT_BFLOAT16: ("half_val", np.int32),
    **dict.fromkeys(
        (types_pb2.DT_INT32, types_pb2.DT_INT16, types_pb2.DT_UINT16, types_pb2.DT_INT8, types_pb2.DT_UINT8),
        ("int_val", np.int32),
    ),
}
#: Numbers of the dtypes that `decode` and `encode` support.
DTYPES: Final = frozenset([*_FIELDS, types_pb2.DT_STRING])
_NUMPY: Final = {number: np.dtype(tf.dtypes.as_dtype(number).as_numpy_dtype) for number in _FIELDS}
_COMPLEX: Final = {types_pb2.DT_COMPLEX64, types_pb2.DT_COMPLEX128}
_BIT_PATTERNS: Final = {types_pb2.DT_HALF, types_pb2.DT_BFLOAT16}  # the field holds the 16 bits, not the number


def decode(tensor: tensor_pb2.TensorProto) -> Array:
    """Convert a message to an array.

    Returns:
        The array, with the message's dtype and shape. It may be read-only. Strings become an object array of ``bytes``.

    Raises:
        ValueError: the dtype is not supported, the shape is invalid, or the content does not have the right length.
    """
    if len(tensor.tensor_shape.dim) > MAX_DIMENSIONS:  # first, because a message can claim millions
        raise ValueError(f"{len(tensor.tensor_shape.dim)} dimensions; expected at most {MAX_DIMENSIONS}")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)  # like TensorFlow, ignores `unknown_rank`
    if any(size < 0 for size in shape):
        raise ValueError(f"the shape is {shape}; expected sizes of 0 or more")
    count = math.prod(shape)
    if tensor.dtype == types_pb2.DT_STRING:
        return _decode_strings(tensor, count).reshape(shape)
    if tensor.dtype not in _FIELDS:
        raise ValueError(f"dtype {tensor.dtype} is not supported")
    dtype = _NUMPY[tensor.dtype]
    if tensor.tensor_content and count:
        if len(tensor.tensor_content) != count * dtype.itemsize:
            raise ValueError(
                f"tensor_content has {len(tensor.tensor_content)} bytes; expected {count * dtype.itemsize}"
            )
        elements = np.frombuffer(tensor.tensor_content, dtype=np.uint8 if dtype == np.bool_ else dtype)
        return (elements != 0 if dtype == np.bool_ else elements).reshape(shape)
    return _decode_field(tensor, count, dtype).reshape(shape)


def _decode_field(tensor: tensor_pb2.TensorProto, count: int, dtype: np.dtype[Any]) -> Array:
    name, held_as = _FIELDS[tensor.dtype]
    field = getattr(tensor, name)
    needed = 2 * count if tensor.dtype in _COMPLEX else count
    # numpy reads a long field without a copy, but takes eight times as long as for a list when it has one value.
    values = np.array(field[:needed] if needed < max(len(field), _SHORT) else field, dtype=held_as)
    if tensor.dtype in _COMPLEX:  # real and imaginary parts alternate
        values = values[: values.size // 2 * 2].view(dtype)
    elif tensor.dtype in _BIT_PATTERNS:
        values = values.astype(np.uint16).view(dtype)
    else:
        values = values.astype(dtype, copy=False)
    return _fill(values, count, np.zeros(1, dtype))


def _decode_strings(tensor: tensor_pb2.TensorProto, count: int) -> Array:
    if max(count, len(tensor.string_val)) > MAX_STRINGS:
        raise ValueError(f"{max(count, len(tensor.string_val))} strings; expected at most {MAX_STRINGS}")
    if not tensor.tensor_content or not count:
        values = np.empty(len(tensor.string_val), dtype=object)
        values[:] = tensor.string_val
        return _fill(values, count, np.array([b""], dtype=object))
    # Its elements are the lengths as varints, then all bytes. TensorFlow parses them a hundred times as fast as Python.
    try:
        with tf.device("CPU"):
            parsed = tf.io.parse_tensor(tensor.SerializeToString(), tf.string)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError("tensor_content does not contain the lengths and bytes of the strings") from error
    return np.asarray(parsed.numpy(), dtype=object)


def _fill(values: Array, count: int, zero: Array) -> Array:
    """Cut or extend *values* to *count* elements by repeating the last value, or *zero* if there is none."""
    if values.size >= count:
        return values[:count]
    if count * values.dtype.itemsize > MAX_REPEATED_BYTES:
        raise ValueError(
            f"the message has {values.size} of {count} elements; expected all, because a tensor with repeated elements "
            f"may have at most {MAX_REPEATED_BYTES} bytes"
        )
    last = values[-1:] if values.size else zero
    return np.concatenate([values, np.repeat(last, count - values.size)])


def encode(array: Array, dtype: int, *, into: tensor_pb2.TensorProto, as_content: bool) -> None:
    """Write an array into an empty message.

    Args:
        array: array of any shape; strings as an object array of ``bytes``.
        dtype: TensorFlow's number of the dtype.
        into: the message to fill.
        as_content: write ``tensor_content`` (1 byte per uint8) instead of the typed field (1.5 bytes on average).
    """
    into.dtype = dtype
    into.tensor_shape.SetInParent()  # a scalar has a shape without dimensions
    for size in array.shape:
        into.tensor_shape.dim.add(size=size)
    if dtype == types_pb2.DT_STRING:
        strings = [bytes(value) for value in array.ravel()]
        if as_content:
            into.tensor_content = b"".join([*(_varint(len(string)) for string in strings), *strings])
        else:
            into.string_val.extend(strings)
    elif as_content:
        into.tensor_content = array.tobytes()
    else:
        name, held_as = _FIELDS[dtype]
        flat = array.ravel()
        if dtype in _COMPLEX:
            flat = flat.view(held_as)
        elif dtype in _BIT_PATTERNS:
            flat = flat.view(np.uint16)
        if flat.dtype.kind in "fb" or flat.dtype == np.uint8:
            into.MergeFromString(_packed(tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name[name].number, flat))
        else:
            getattr(into, name).extend(flat.tolist())


def _packed(field: int, flat: Array) -> bytes:
    """Encode a repeated field of floats, bools or uint8 in half the time that protobuf needs."""
    if flat.dtype == np.uint8:  # as varints: values from 128 need a second byte, 1
        flat = np.insert(flat, np.flatnonzero(flat >= 128) + 1, 1)
    payload = flat.tobytes()
    return _varint(field << 3 | 2) + _varint(len(payload)) + payload


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
