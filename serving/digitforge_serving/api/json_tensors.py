"""Convert the JSON of REST requests to tensors, and tensors to the JSON of replies.

* Row form: the request is ``{"instances": [one entry per row]}``, the reply ``{"predictions": [...]}``.
* Column form: the request is ``{"inputs": {name: all rows}}``, the reply ``{"outputs": {...}}``.
* Bytes are written as ``{"b64": "..."}``. In a reply, string outputs are bytes if their name ends in ``_bytes``.
"""

from __future__ import annotations

import base64
import binascii
import gc
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from digitforge_serving.models import refusal, tensors
from digitforge_serving.models.predict import dtype_name

if TYPE_CHECKING:
    from tensorflow.core.framework import tensor_pb2
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow_serving.apis import predict_pb2

_BYTES_SUFFIX: Final = "_bytes"
_FLOATS: Final = {types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE}
_INTEGERS: Final = {
    types_pb2.DT_INT8,
    types_pb2.DT_INT16,
    types_pb2.DT_INT32,
    types_pb2.DT_INT64,
    types_pb2.DT_UINT8,
    types_pb2.DT_UINT32,
    types_pb2.DT_UINT64,
}
#: Accepted values by dtype. TensorFlow Serving accepts the int32 range for all other integer dtypes and then casts
#: without a check.
_RANGES: Final = {
    types_pb2.DT_INT64: (-(2**63), 2**63 - 1),
    types_pb2.DT_UINT32: (0, 2**32 - 1),
    types_pb2.DT_UINT64: (0, 2**64 - 1),
}
_INT32_RANGE: Final = (-(2**31), 2**31 - 1)
_FLOAT_RANGES: Final = {
    types_pb2.DT_FLOAT: (-3.4028235677973366e38, 3.4028235677973366e38),  # beyond, rounding gives infinity
    types_pb2.DT_DOUBLE: (-1.7976931348623157e308, 1.7976931348623157e308),
}
_NOT_FINITE: Final = ("nan", "inf", "-inf")
_MAX_VALUE_TEXT: Final = 256  # characters of a value in a message
#: What Python's parser accepts and orjson does not: NaN, Infinity, and unpaired surrogates.
_PYTHON_ONLY: Final = re.compile(rb"NaN|Infinity|\\u[dD]")
_JSON_TYPES: Final = {type(None): "Null", dict: "Object", list: "Array", str: "String"}


def parse(body: bytes) -> dict[str, Any]:
    """Parse a request's body, which must be a JSON object.

    Raises:
        RefusedError: the body is not a JSON object, or its ``signature_name`` is not a string.
    """
    if not body:
        raise refusal.invalid_argument("JSON Parse error: The document is empty")
    try:
        with _garbage_collector_off():
            document = _loads(body.removeprefix(b"\xef\xbb\xbf"))  # without a byte order mark
    except (ValueError, RecursionError) as error:
        position = getattr(error, "pos", 0)
        raise refusal.invalid_argument(f"JSON Parse error: Invalid value. at offset: {position}") from error
    if not isinstance(document, dict):
        raise refusal.invalid_argument(f"JSON Value: {_as_json(document)} Is not object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise refusal.invalid_argument(
            f"JSON Value: {_as_json(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return document


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if not _PYTHON_ONLY.search(body):
            raise
        return json.loads(body.decode())


@contextmanager
def _garbage_collector_off() -> Iterator[None]:
    """Keep the collector from visiting all lists again and again while a parser creates them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _ElementError(Exception):
    """A value does not fit the signature."""

    def __init__(self, text: str, row: int) -> None:
        super().__init__(text)
        self.text = text
        self.row = row


def fill(
    document: Mapping[str, Any], inputs: Mapping[str, meta_graph_pb2.TensorInfo], request: predict_pb2.PredictRequest
) -> bool:
    """Add the tensors of a JSON document to a request.

    Args:
        document: a result of `parse`.
        inputs: the signature's inputs by name.
        request: the request to fill; has no inputs yet.

    Returns:
        Whether the document is in row form. The reply must have the same form.

    Raises:
        RefusedError: the document has neither form, or a value does not fit the signature.
    """
    rows = "instances" in document
    if rows and "inputs" in document:
        raise refusal.invalid_argument(
            f"JSON Value: {_as_json(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist "
        )
    if rows:
        columns = _columns_of_rows(document["instances"], inputs)
    elif "inputs" in document:
        columns = _columns(document["inputs"], inputs)
    else:
        raise refusal.invalid_argument("Missing 'inputs' or 'instances' key")
    for name, value in columns.items():
        try:
            _encode(name, value, inputs[name].dtype, request.inputs[name])
        except _ElementError as error:
            if not rows:
                raise refusal.invalid_argument(error.text) from error
            key = f" key: {name}" if isinstance(document["instances"][0], dict) and len(inputs) > 1 else ""
            raise refusal.invalid_argument(
                f"Failed to process element: {error.row}{key} of 'instances' list. Error: INVALID_ARGUMENT: "
                f"{error.text}"
            ) from error
    return rows


def _columns_of_rows(instances: Any, inputs: Mapping[str, Any]) -> dict[str, list[Any]]:
    if not isinstance(instances, list):
        raise refusal.invalid_argument(f"JSON Value: {_as_json(instances)} Expecting 'instances' to be an list/array")
    if not instances:
        raise refusal.invalid_argument("JSON Value: [] No values in 'instances' array")
    named = isinstance(instances[0], dict) and not _is_base64(instances[0])
    if not named:
        if len(inputs) > 1:
            raise refusal.invalid_argument(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                "tensorinfo_map"
            )
        return {next(iter(inputs)): instances}
    for number, instance in enumerate(instances):
        if not isinstance(instance, dict) or _is_base64(instance):
            raise refusal.invalid_argument(f"Expecting object but got list at item {number} of input list")
        if set(instance) != set(inputs):
            raise refusal.invalid_argument(
                f"Failed to process element: {number} of 'instances' list. JSON object: {_as_json(instance)} keys must "
                f"be equal to: {','.join(sorted(inputs))}"
            )
    return {name: [instance[name] for instance in instances] for name in inputs}


def _columns(given: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, dict) or _is_base64(given):
        if len(inputs) > 1:
            raise refusal.invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        return {next(iter(inputs)): given}
    for name in inputs:
        if name not in given:
            raise refusal.invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    return {name: given[name] for name in inputs}


def _encode(name: str, value: Any, dtype: int, into: tensor_pb2.TensorProto) -> None:
    """Convert nested lists to a tensor. Works level by level, because calls for single elements take seconds.

    Raises:
        _ElementError: a list or an element does not fit.
    """
    shape: list[int] = []
    level = value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    if len(shape) > tensors.MAX_DIMENSIONS:
        raise refusal.invalid_argument(f"tensor parsing error: {name}")
    flat = [value]
    for depth, size in enumerate(shape):
        _check_lists(flat, depth, size, shape)
        flat = list(itertools.chain.from_iterable(flat))
    if list in set(map(type, flat)):
        index = next(i for i, item in enumerate(flat) if isinstance(item, list))
        text = f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}"
        raise _ElementError(text, _row(index, shape, len(shape)))
    array = _array(flat, dtype, shape)
    tensors.encode(array.reshape(shape), dtype, into=into, as_content=True)


def _check_lists(items: list[Any], depth: int, size: int, shape: list[int]) -> None:
    if set(map(type, items)) == {list} and set(map(len, items)) == {size}:
        return
    index, item = next((i, item) for i, item in enumerate(items) if not isinstance(item, list) or len(item) != size)
    if isinstance(item, list):
        text = f"Encountered list at unexpected size: {len(item)} at level: {depth} expected size: {size}"
    else:
        text = (
            f"JSON Value: {_as_json(item)} found at incorrect level: {depth + 1} in the JSON DOM. Expected at level: "
            f"{len(shape)}"
        )
    raise _ElementError(text, _row(index, shape, depth))


def _row(index: int, shape: list[int], depth: int) -> int:
    """The row of an element, from its index among all elements of its level."""
    return index // math.prod(shape[1:depth])


def _array(flat: list[Any], dtype: int, shape: list[int]) -> tensors.Array:
    """Convert elements to an array. Checks all of them at once, and looks for a wrong one only if there is one."""
    if dtype not in _FLOATS | _INTEGERS | {types_pb2.DT_BOOL, types_pb2.DT_STRING}:
        first = _as_json(flat[0]) if flat else "[]"
        raise refusal.unimplemented(f"Conversion of JSON Value: {first} to type: {dtype_name(dtype)}")
    final: Any = object if dtype == types_pb2.DT_STRING else tf.dtypes.as_dtype(dtype).as_numpy_dtype
    array = np.empty(len(flat), dtype=np.int64 if dtype in _INTEGERS and dtype not in _RANGES else final)
    if dtype == types_pb2.DT_STRING:
        for index, value in enumerate(flat):
            array[index] = _string(value, _row(index, shape, len(shape)))
        return array
    if dtype in _FLOATS:
        types, (low, high) = {int, float}, _FLOAT_RANGES[dtype]
    elif dtype in _INTEGERS:
        types, (low, high) = {int}, _RANGES.get(dtype, _INT32_RANGE)
    else:
        types, (low, high) = {bool}, (False, True)
    if set(map(type, flat)) <= types:
        try:
            if dtype in _FLOATS:
                with np.errstate(over="ignore"):
                    array[:] = exact = np.array(flat, np.float64)
                if np.array_equal(np.isinf(array), np.isinf(exact)):
                    return array
            elif not flat or (low <= min(flat) and max(flat) <= high):
                array[:] = flat
                return array.astype(final, copy=False)
        except OverflowError:  # an integer beyond float64
            pass
    index, value = next(
        (i, v) for i, v in enumerate(flat) if type(v) not in types or not (low <= v <= high or str(v) in _NOT_FINITE)
    )
    raise _ElementError(
        f"JSON Value: {_as_json(value)} Type: {_json_type(value)} is not of expected type: {dtype_name(dtype)}",
        _row(index, shape, len(shape)),
    )


def _string(value: Any, row: int) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not isinstance(value, dict):
        text = f"JSON Value: {_as_json(value)} Type: {_json_type(value)} is not of expected type: string"
        raise _ElementError(text, row)
    if not _is_base64(value):
        raise _ElementError(f"JSON Value: {_as_json(value)} not formatted correctly for base64 data", row)
    encoded = value["b64"]
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _ElementError("Unable to base64 decode", row) from error


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _json_type(value: Any) -> str:
    return str(value) if isinstance(value, bool) else _JSON_TYPES.get(type(value), "Number")


def _as_json(value: Any) -> str:
    """The start of a value as JSON, for messages."""
    text = ""
    for part in json.JSONEncoder(ensure_ascii=False).iterencode(value):
        text += part[:_MAX_VALUE_TEXT]
        if len(text) >= _MAX_VALUE_TEXT:
            break
    return text[:_MAX_VALUE_TEXT]


def render(outputs: Mapping[str, tensor_pb2.TensorProto], *, rows: bool) -> bytes:
    """Create the body of a reply.

    Args:
        outputs: the outputs of a ``PredictResponse``.
        rows: whether to use row form.

    Returns:
        JSON, encoded as UTF-8.

    Raises:
        RefusedError: a dtype cannot be written as JSON, or, in row form, the outputs differ in their number of rows.
    """
    values = {name: _values(name, tensor) for name, tensor in outputs.items()}
    if not rows:
        return _dumps({"outputs": values if len(values) > 1 else next(iter(values.values()))})
    sizes = {name: len(value) if isinstance(value, list | np.ndarray) else None for name, value in values.items()}
    for name, size in sizes.items():
        if size is None:
            raise refusal.invalid_argument(f"Tensor name: {name} has no shape information ")
        if size != next(iter(sizes.values())):
            raise refusal.invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {size} expecting: {next(iter(sizes.values()))}"
            )
    if len(values) == 1:
        return _dumps({"predictions": next(iter(values.values()))})
    return _dumps({"predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]})


def _dumps(answer: Any) -> bytes:
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _values(name: str, tensor: tensor_pb2.TensorProto) -> Any:
    """A tensor as what orjson can write: an array, nested lists, or a scalar."""
    array = tensors.decode(tensor)
    if tensor.dtype == types_pb2.DT_STRING:
        as_bytes = name.endswith(_BYTES_SUFFIX)
        texts = np.empty(array.size, dtype=object)
        for index, value in enumerate(array.ravel()):
            texts[index] = (
                {"b64": base64.b64encode(value).decode()} if as_bytes else value.decode("utf-8", "backslashreplace")
            )
        return texts.reshape(array.shape).tolist()
    if tensor.dtype in _FLOATS and not np.isfinite(array).all():
        return _with_infinities(array)
    if tensor.dtype in {types_pb2.DT_BOOL} | _FLOATS | _INTEGERS:
        return np.ascontiguousarray(array) if array.ndim else array[()]
    raise refusal.unimplemented(f"Unable to convert tensor of type {dtype_name(tensor.dtype)} to JSON")


def _with_infinities(array: tensors.Array) -> Any:
    """Nested lists with NaN and infinities, which orjson writes as null."""
    # The text of a float32 is its shortest decimal (0.1, not 0.10000000149011612).
    texts = np.empty(array.size, dtype=object)
    for index, value in enumerate(array.ravel()):
        texts[index] = orjson.Fragment(str(value) if np.isfinite(value) else json.dumps(float(value)))
    return texts.reshape(array.shape).tolist()
