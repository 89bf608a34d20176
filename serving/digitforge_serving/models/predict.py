"""Answer a PredictRequest with a PredictResponse.

The checks, their order and their messages are the same as in TensorFlow Serving.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import model_pb2, predict_pb2

from digitforge_serving.models import refusal, tensors
from digitforge_serving.models.batching import Caller
from digitforge_serving.models.saved_model import Served

if TYPE_CHECKING:
    from tensorflow.core.protobuf import meta_graph_pb2

DEFAULT_SIGNATURE: Final = "serving_default"
#: dtypes that TensorFlow reads from a message and `tensors.decode` does not, such as DT_RESOURCE and DT_QINT8.
_OTHER_DTYPES: Final = frozenset(
    number for number in types_pb2.DataType.values() if 0 < number <= 100 and number not in tensors.DTYPES
)


def predict(
    find: Callable[[model_pb2.ModelSpec], Served],
    request: predict_pb2.PredictRequest,
    *,
    as_content: bool,
    caller: Caller,
) -> predict_pb2.PredictResponse:
    """Answer a request.

    Args:
        find: returns the version that a ``model_spec`` asks for, or raises a RefusedError.
        request: the request.
        as_content: answer with ``tensor_content`` instead of typed fields.
        caller: the client that waits for the answer.

    Raises:
        RefusedError: the request cannot be answered. Contains the status code and the message for the client.
    """
    if not request.HasField("model_spec"):
        raise refusal.invalid_argument("Missing ModelSpec")
    return run(find(request.model_spec), request, as_content=as_content, caller=caller)


def run(
    served: Served, request: predict_pb2.PredictRequest, *, as_content: bool, caller: Caller
) -> predict_pb2.PredictResponse:
    """Answer a request with a given version. Ignores the version in the request's ``model_spec``.

    Raises:
        RefusedError: as in `predict`.
    """
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = served.model.signatures.get(name)
    if signature is None:
        raise refusal.failed_precondition(f'Serving signature key "{name}" not found.')
    feeds = _inputs(signature, request)
    aliases = _outputs(signature, request.output_filter)
    try:
        values = served.compute(feeds, [signature.outputs[alias].name for alias in aliases], caller)
    except tf.errors.OpError as error:
        raise refusal.from_number(error.error_code, error.message) from error
    if caller.gone:  # skip encoding a large answer that nobody reads
        raise refusal.cancelled()
    response = predict_pb2.PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = name
    response.model_spec.version.value = served.version
    for alias, value in zip(aliases, values, strict=True):
        dtype = signature.outputs[alias].dtype
        tensors.encode(value, dtype, into=response.outputs[alias], as_content=as_content)
    return response


def _inputs(signature: meta_graph_pb2.SignatureDef, request: predict_pb2.PredictRequest) -> dict[str, tensors.Array]:
    """Tensor name => value, from the request's inputs and the signature's defaults."""
    sent, known = set(request.inputs), set(signature.inputs)
    if len(sent) > len(known) or (len(sent) < len(known) and not signature.defaults):
        raise refusal.invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(known)} len({_set(sent)}) != "
            f"len({_set(known)}). Sent extra: {_set(sent - known)}. Missing but required: {_set(known - sent)}."
        )
    feeds: dict[str, tensors.Array] = {}
    dtypes: dict[str, tuple[int, int]] = {}
    for alias in sorted(known):
        feed = signature.inputs[alias].name
        if alias in sent:
            message = request.inputs[alias]
        elif alias in signature.defaults:
            message = signature.defaults[alias]
        else:
            raise refusal.invalid_argument(
                f"Signature input alias: {alias}(feed name: {feed}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {_set(sent)}, or default input alias set: "
                f"{','.join(sorted(signature.defaults))}"
            )
        dtypes[feed] = (signature.inputs[alias].dtype, message.dtype)
        if message.dtype in _OTHER_DTYPES and message.dtype != signature.inputs[alias].dtype:
            continue  # `_check_dtypes` rejects it
        try:
            feeds[feed] = tensors.decode(message)
        except (ValueError, MemoryError) as error:
            raise refusal.invalid_argument(f"tensor parsing error: {alias}") from error
    if not sent <= known:
        raise refusal.invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {','.join(sorted(sent & known))}, "
            f"request input: {','.join(sorted(sent))}"
        )
    _check_dtypes(dtypes)
    return feeds


def _check_dtypes(dtypes: dict[str, tuple[int, int]]) -> None:
    """Check the inputs' dtypes. Like TensorFlow, numbers the arguments by sorted tensor name."""
    for index, feed in enumerate(sorted(dtypes)):
        expected, sent = dtypes[feed]
        if expected != sent:
            raise refusal.invalid_argument(
                f"Expects arg[{index}] to be {dtype_name(expected)} but {dtype_name(sent)} is provided"
            )


def _outputs(signature: meta_graph_pb2.SignatureDef, output_filter: Iterable[str]) -> list[str]:
    """Aliases of the outputs to send: those in the filter, or all if it is empty."""
    aliases: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise refusal.invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{_set(signature.outputs)}."
            )
        if alias in aliases:
            raise refusal.invalid_argument(f"duplicate output tensor alias: {alias}")
        aliases.append(alias)
    return aliases or sorted(signature.outputs)


def _set(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"


def dtype_name(dtype: int) -> str:
    """TensorFlow's C++ name of a dtype. Three differ from the Python names."""
    name = str(tf.dtypes.as_dtype(dtype).name)
    return {"float16": "half", "float32": "float", "float64": "double"}.get(name, name)
