"""A fake server inside the process, for tests of programs that use the client. It needs no network and no TensorFlow.

::

    from digitforge_client import DigitClient
    from digitforge_client.testing import FakeTransport

    with DigitClient(transports=[FakeTransport()]) as client:
        batch = client.sample(100, seed=0)  # always the same

A formula takes the place of the generator. It keeps the contract: an image depends on its address alone, and latents
have the card's distribution. Images of one class resemble each other, so a classifier can learn the classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.contract import CONTRACT_VERSION, MAX_ROWS, Field, Signature
from digitforge_client.errors import ModelNotFoundError, RequestRejectedError, ServerError, ServerUnavailableError
from digitforge_client.transport.wire import GET_METADATA, GET_STATUS, Method, messages
from digitforge_client.transport.wire.tensors import decode, encode

_LATENT_SIZE: Final = 8
_Arrays = dict[str, npt.NDArray[Any]]


class FakeTransport:
    """A transport that answers a client's requests itself.

    Args:
        class_names: class names of the generator. Empty for an unconditional generator.
        image_shape: height, width and channels.
        generator_id: 16 hexadecimal digits. Another id gives other images.
        max_rows: largest number of rows in one request.

    Attributes:
        failures: errors to raise. Each request for digits, latents or seen images raises and removes the first one.
        requests: number of requests so far.
    """

    def __init__(
        self,
        *,
        class_names: Sequence[str] = tuple("0123456789"),
        image_shape: tuple[int, int, int] = (28, 28, 1),
        generator_id: str = "fa4efa4efa4efa4e",
        max_rows: int = MAX_ROWS,
    ) -> None:
        self.target = "fake"
        self.failures: list[ServerError] = []
        self.requests = 0
        self.card: dict[str, Any] = {
            "contract_version": CONTRACT_VERSION,
            "name": "fake",
            "generator_id": generator_id,
            "image_shape": list(image_shape),
            "class_names": list(class_names),
            "latent_size": _LATENT_SIZE,
            "latent_law": "uniform",
            "max_rows": max_rows,
        }
        self._shape = image_shape
        pixels = int(np.prod(image_shape))
        rng = np.random.default_rng(int(generator_id, 16))
        self._class_images = rng.uniform(-1.0, 1.0, size=(max(len(class_names), 1), pixels))
        self._directions = rng.uniform(-0.1, 0.1, size=(_LATENT_SIZE, pixels))

    def send(self, method: Method, request: Any, *, timeout_s: float | None, wait: bool = False) -> _Answered:
        """Answer a message at once."""
        self.requests += 1
        try:
            return _Answered(self._answer(method, request), None)
        except ServerError as error:
            return _Answered(None, error)

    def explain(self, error: ServerUnavailableError) -> ServerUnavailableError:
        """Return *error*."""
        return error

    def close(self) -> None:
        """Do nothing."""

    def _answer(self, method: Method, request: Any) -> Any:
        if method is GET_STATUS:
            status = messages.ModelVersionStatus(version=1, state=messages.ModelVersionStatus.AVAILABLE)
            return messages.GetModelStatusResponse(model_version_status=[status])
        if method is GET_METADATA:
            return self._metadata(request.model_spec.name)
        inputs = {name: decode(tensor) for name, tensor in request.inputs.items()}
        signature = request.model_spec.signature_name
        if signature == Signature.CARD:
            text = json.dumps(self.card).encode()
            shape = messages.TensorShape(dim=[messages.TensorShape.Dim(size=len(inputs[Field.ROWS]))])
            card = messages.Tensor(dtype=messages.DT_STRING, tensor_shape=shape, string_val=[text])
            return messages.PredictResponse(outputs={Field.CARD: card})
        if self.failures:
            raise self.failures.pop(0)
        outputs = {name: encode(array) for name, array in self._outputs(signature, inputs).items()}
        return messages.PredictResponse(outputs=outputs)

    def _outputs(self, signature: str, inputs: _Arrays) -> _Arrays:
        n = len(next(iter(inputs.values())))
        if n > self.card["max_rows"]:
            raise RequestRejectedError(f"the request has {n} rows; expected at most {self.card['max_rows']}")
        match signature:
            case Signature.SAMPLE:
                return self._sample(inputs)
            case Signature.LATENTS:
                return {Field.LATENTS: _latents(inputs[Field.SEEDS])}
            case Signature.FROM_LATENTS:
                weights = inputs.get(Field.CLASS_WEIGHTS, np.ones((n, 1)))
                return {Field.IMAGES: self._images(weights, inputs[Field.LATENTS])}
            case Signature.SEEN:
                return {Field.SEEN: np.zeros(n, dtype=bool)}
            case _:
                raise ModelNotFoundError(f"the fake server has no signature {signature!r}")

    def _sample(self, inputs: _Arrays) -> _Arrays:
        latents = _latents(inputs[Field.SEEDS])
        if Field.LABELS not in inputs:
            return {Field.IMAGES: self._images(np.ones((len(latents), 1)), latents)}
        labels, classes = inputs[Field.LABELS], len(self._class_images)
        valid = (labels >= 0) & (labels < classes)
        images = self._images(np.eye(classes)[np.where(valid, labels, 0)], latents)
        images[~valid] = 0
        return {Field.IMAGES: images, Field.VALID: valid}

    def _images(self, weights: npt.NDArray[Any], latents: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        # einsum gives a row the same bits in any batch; a matrix product does not
        values = np.einsum("nk,kp->np", weights.astype(np.float64), self._class_images)
        values += np.einsum("nd,dp->np", latents.astype(np.float64), self._directions)
        pixels = np.rint(np.clip(values, -1, 1) * 127.5 + 127.5).astype(np.uint8)
        return pixels.reshape(-1, *self._shape)

    def _metadata(self, model: str) -> messages.GetModelMetadataResponse:
        def info(dtype: str, *sizes: int) -> messages.TensorInfo:
            dims = [messages.TensorShape.Dim(size=size) for size in (-1, *sizes)]
            return messages.TensorInfo(
                dtype=encode(np.zeros(0, dtype)).dtype, tensor_shape=messages.TensorShape(dim=dims)
            )

        sample = messages.SignatureDef(
            inputs={Field.SEEDS: info("int64")}, outputs={Field.IMAGES: info("uint8", *self._shape)}
        )
        if self.card["class_names"]:
            sample.inputs[Field.LABELS].CopyFrom(info("int64"))
            sample.outputs[Field.VALID].CopyFrom(info("bool"))
        signatures = messages.SignatureDefMap(signature_def={Signature.SAMPLE: sample})
        reply = messages.GetModelMetadataResponse(
            model_spec=messages.ModelSpec(name=model, version=messages.Int64Value(value=1))
        )
        reply.metadata["signature_def"].value = signatures.SerializeToString()
        return reply


class _Answered:
    """A request that was answered at once."""

    def __init__(self, reply: Any, error: ServerError | None) -> None:
        self._reply = reply
        self._error = error

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._reply

    def arrived(self) -> bool:
        return self._error is None

    def cancel(self) -> None:
        """Do nothing."""


def _latents(seeds: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Uniform latents in [−1, 1], counter-based: SplitMix64 (Steele, Lea & Flood, 2014) of row seed and position."""
    positions = np.arange(_LATENT_SIZE).astype(np.uint64)
    with np.errstate(over="ignore"):
        state: Any = seeds.astype(np.uint64)[:, None] * np.uint64(_LATENT_SIZE) + positions
        state = (state + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return ((state >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - 1).astype(np.float32)
