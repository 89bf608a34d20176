"""Answer questions about models: their signatures and the states of their versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from digitforge_serving.models import refusal

if TYPE_CHECKING:
    from digitforge_serving.models.manager import Models

_SIGNATURE_DEF: Final = "signature_def"


def metadata(
    models: Models, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The signatures of a model.

    Raises:
        RefusedError: the model or version does not exist, or the request asks for a field other than
            ``signature_def``.
    """
    if not request.HasField("model_spec"):
        raise refusal.invalid_argument("Missing ModelSpec")
    if not request.metadata_field:
        raise refusal.invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for name in request.metadata_field:
        if name != _SIGNATURE_DEF:
            raise refusal.invalid_argument(f"Metadata field {name} is not supported")
    served = models.find(request.model_spec)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in served.model.signatures.items():
        signatures.signature_def[name].CopyFrom(signature)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = served.name
    response.model_spec.version.value = served.version
    response.metadata[_SIGNATURE_DEF].Pack(signatures)
    return response


def status(
    models: Models, request: get_model_status_pb2.GetModelStatusRequest
) -> get_model_status_pb2.GetModelStatusResponse:
    """The state of one version of a model, or of all its versions.

    Ignores a label in the request, like TensorFlow Serving.

    Raises:
        RefusedError: the server never had this model or version.
    """
    if not request.HasField("model_spec"):
        raise refusal.invalid_argument("Missing ModelSpec")
    name = request.model_spec.name
    states = models.states(name)
    if request.model_spec.HasField("version"):
        number = request.model_spec.version.value
        if number not in states:
            raise refusal.not_found(f"Could not find version {number} of model {name}")
        states = {number: states[number]}
    elif not states:
        raise refusal.not_found(f"Could not find any versions of model {name}")
    response = get_model_status_pb2.GetModelStatusResponse()
    for number, version in states.items():
        entry = response.model_version_status.add(version=number, state=version.state)
        entry.status.error_code = version.code.value[0]
        entry.status.error_message = version.text
    return response
