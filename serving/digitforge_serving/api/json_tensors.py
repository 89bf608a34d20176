"""Convert the JSON of REST requests to tensors, and tensors to the JSON of replies.

* Row form: the request is ``{"instances": [one entry per row]}``, the reply ``{"predictions": [...]}``.
* Column form: the request is ``{"inputs": {name: all rows}}``, the reply ``{"outputs": {...}}``.
* Bytes are written as ``{"b64": "..."}``. In a reply, string outputs are bytes if their name ends in ``_bytes``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
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
_JSON_TYPES: Final = {type(None): "Null", bool: "Bool", dict: "Object", list: "Array", str: "String"}


def parse(body: bytes) -> dict[str, Any]:
    """Parse a request's body, which must be a JSON object.

    Raises:
        RefusedError: the body is not a JSON object, or its ``signature_name`` is not a string.
    """
    if not body:
        raise refusal.invalid_argument("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
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
        _encode(value, inputs[name].dtype, request.inputs[name])
    return rows


def _columns_of_rows(instances: Any, inputs: Mapping[str, Any]) -> dict[str, list[Any]]:
    if not isinstance(instances, list):
        raise refusal.invalid_argument(f"JSON Value: {_as_json(instances)} Excepting 'instances' to be an list/array")
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


def _encode(value: Any, dtype: int, into: tensor_pb2.TensorProto) -> None:
    shape: list[int] = []
    level = value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    if len(shape) > tensors.MAX_DIMENSIONS:
        raise refusal.invalid_argument(
            f"JSON Value: lists are nested {len(shape)} levels deep; expected at most {tensors.MAX_DIMENSIONS}"
        )
    flat: list[Any] = []
    _flatten(value, shape, 0, dtype, flat)
    final = object if dtype == types_pb2.DT_STRING else tf.dtypes.as_dtype(dtype).as_numpy_dtype
    wide = np.int64 if dtype in _INTEGERS and dtype not in _RANGES else final
    array = np.empty(len(flat), dtype=wide)
    array[:] = flat
    tensors.encode(array.astype(final, copy=False).reshape(shape), dtype, into=into, as_content=True)


def _flatten(value: Any, shape: list[int], level: int, dtype: int, into: list[Any]) -> None:
    if isinstance(value, list):
        if level >= len(shape):
            raise refusal.invalid_argument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        if len(value) != shape[level]:
            raise refusal.invalid_argument(
                f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
            )
        for element in value:
            _flatten(element, shape, level + 1, dtype, into)
        return
    if level != len(shape):
        raise refusal.invalid_argument(
            f"JSON Value: {_as_json(value)} found at incorrect level: {level + 1} in the JSON DOM. Expected at level: "
            f"{len(shape)}"
        )
    into.append(_element(value, dtype))


def _element(value: Any, dtype: int) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if dtype in _FLOATS and number:
        return _float(value, dtype)
    if dtype in _INTEGERS and number and isinstance(value, int):
        low, high = _RANGES.get(dtype, _INT32_RANGE)
        if low <= value <= high:
            return value
    if dtype == types_pb2.DT_BOOL and isinstance(value, bool):
        return value
    if dtype == types_pb2.DT_STRING:
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
        if isinstance(value, dict):
            return _base64(value)
    if dtype not in _FLOATS | _INTEGERS | {types_pb2.DT_BOOL, types_pb2.DT_STRING}:
        raise refusal.unimplemented(f"Conversion of JSON Value: {_as_json(value)} to type: {dtype_name(dtype)}")
    raise refusal.invalid_argument(
        f"JSON Value: {_as_json(value)} Type: {_JSON_TYPES.get(type(value), 'Number')} is not of expected type: "
        f"{dtype_name(dtype)}"
    )


def _float(value: float, dtype: int) -> float:
    """Convert a number to a float. It must fit into *dtype*, and an integer must be exact."""
    digits, largest = (24, 3.4028235e38) if dtype == types_pb2.DT_FLOAT else (53, 1.7976931348623157e308)
    fits = not np.isfinite(value) or abs(value) <= largest if isinstance(value, float) else abs(value) < 2**digits
    if not fits:
        raise refusal.invalid_argument(
            f"Cannot convert JSON value: {_as_json(value)} to {dtype_name(dtype)} without loss of precision."
        )
    return float(value)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _base64(value: dict[str, Any]) -> bytes:
    if not _is_base64(value):
        raise refusal.invalid_argument(f"JSON Value: {_as_json(value)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise refusal.invalid_argument("Unable to base64 decode") from error


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


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
        answer: Any = values if len(values) > 1 else next(iter(values.values()))
        return json.dumps({"outputs": answer}).encode()
    sizes = {name: len(value) if isinstance(value, list) else None for name, value in values.items()}
    for name, size in sizes.items():
        if size is None:
            raise refusal.invalid_argument(f"Tensor name: {name} has no shape information ")
        if size != next(iter(sizes.values())):
            raise refusal.invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {size} expecting: {next(iter(sizes.values()))}"
            )
    if len(values) == 1:
        return json.dumps({"predictions": next(iter(values.values()))}).encode()
    predictions = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return json.dumps({"predictions": predictions}).encode()


def _values(name: str, tensor: tensor_pb2.TensorProto) -> Any:
    array = tensors.decode(tensor)
    if tensor.dtype == types_pb2.DT_STRING:
        as_bytes = name.endswith(_BYTES_SUFFIX)
        texts = np.empty(array.size, dtype=object)
        for index, value in enumerate(array.ravel()):
            texts[index] = (
                {"b64": base64.b64encode(value).decode()} if as_bytes else value.decode("utf-8", "backslashreplace")
            )
        return texts.reshape(array.shape).tolist()
    if tensor.dtype == types_pb2.DT_FLOAT:
        # Convert through text to get the shortest decimal for the float32 (0.1, not 0.10000000149011612).
        return array.astype("U").astype(np.float64).tolist()
    if tensor.dtype in {types_pb2.DT_DOUBLE, types_pb2.DT_BOOL} | _INTEGERS:
        return array.tolist()
    raise refusal.unimplemented(f"Unable to convert tensor of type {dtype_name(tensor.dtype)} to JSON")
