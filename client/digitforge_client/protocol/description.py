"""What a server says about its generator: the model's metadata and the generator's card, read from replies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from digitforge_client.contract import CONTRACT_VERSION, Field, Signature
from digitforge_client.errors import InvalidInputError, UnexpectedReplyError
from digitforge_client.transport.wire import messages
from digitforge_client.transport.wire.tensors import decode, dtype_name


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One input or output of a signature."""

    dtype: str
    shape: tuple[int | None, ...] | None  # None in it: any size; None itself: any rank


@dataclass(frozen=True, kw_only=True)
class SignatureInfo:
    """One signature: what it takes and what it gives, by name."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a server serves under a model's name."""

    model: str
    version: int  # number of the folder in which the server keeps the generator; no part of its identity
    signatures: Mapping[str, SignatureInfo]


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A generator, as far as requests need to know it."""

    card: Mapping[str, Any]
    generator_id: str
    class_names: tuple[str, ...]  # empty for an unconditional generator
    image_shape: tuple[int, int, int]  # height, width, channels
    max_rows: int  # of one request

    @property
    def latent_distribution(self) -> str:
        """The distribution of its latents: ``"normal"`` or ``"uniform"``."""
        return str(self.card.get("latent_law", "normal"))

    @property
    def conditional(self) -> bool:
        """Whether its images have labels."""
        return bool(self.class_names)

    def class_numbers(self, labels: Any) -> npt.NDArray[np.int64]:
        """Turn labels into class numbers.

        Args:
            labels: class numbers 0 … K − 1 or class names, one or an array of them.

        Returns:
            int64, in the shape of *labels*.

        Raises:
            InvalidInputError: the generator has no classes, or not these.
        """
        given = np.asarray(labels)
        if not self.conditional:
            raise InvalidInputError(
                f"labels were given, but generator {self.generator_id} is unconditional: it has no classes; "
                "leave them out"
            )
        if given.dtype.kind in "OT":  # of pandas, or numpy's variable-width strings
            given = np.asarray(given.tolist())
        if given.dtype.kind == "U":
            numbers = {name: number for number, name in enumerate(self.class_names)}
            unknown = sorted(set(given.ravel().tolist()) - set(numbers))
            if unknown:
                raise self._unknown(unknown)
            return np.array([numbers[name] for name in given.ravel()], dtype=np.int64).reshape(given.shape)
        if given.dtype.kind not in "iu" and given.size:
            raise InvalidInputError(f"labels are {given.dtype}; expected integers (class numbers) or class names")
        outside = (given < 0) | (given >= len(self.class_names))
        if outside.any():
            raise self._unknown(sorted(set(given[outside].ravel().tolist())))
        return given.astype(np.int64)

    def _unknown(self, labels: list[Any]) -> InvalidInputError:
        shown = ", ".join(repr(label) for label in labels[:5]) + (", …" if len(labels) > 5 else "")
        classes = ", ".join(
            name if name == str(number) else f"{number} ({name})" for number, name in enumerate(self.class_names)
        )
        return InvalidInputError(f"generator {self.generator_id} has no class {shown}; its classes are {classes}")


def read_metadata(reply: messages.GetModelMetadataResponse) -> Metadata:
    """Read the answer to GetModelMetadata.

    Raises:
        UnexpectedReplyError: it holds no readable signatures.
    """
    try:
        # by hand: Any.Unpack would insist on TensorFlow's name for this message
        signatures = messages.SignatureDefMap.FromString(reply.metadata["signature_def"].value).signature_def
    except DecodeError as error:
        raise UnexpectedReplyError("the server's metadata cannot be read: no message of signatures") from error
    return Metadata(
        model=reply.model_spec.name,
        version=reply.model_spec.version.value,
        signatures={
            name: SignatureInfo(inputs=_infos(signature.inputs), outputs=_infos(signature.outputs))
            for name, signature in sorted(signatures.items())
        },
    )


def _infos(infos: Mapping[str, messages.TensorInfo]) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(
            dtype=dtype_name(info.dtype),
            shape=None
            if info.tensor_shape.unknown_rank
            else tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim),
        )
        for name, info in sorted(infos.items())
    }


def read_card(reply: messages.PredictResponse) -> dict[str, Any]:
    """Read the card from the answer of the `card` signature.

    Raises:
        UnexpectedReplyError: there is no card, or no JSON object in it.
    """
    if Field.CARD not in reply.outputs:
        raise UnexpectedReplyError(f"the server's answer has no output {Field.CARD!r}")
    rows = decode(reply.outputs[Field.CARD]).ravel()
    try:
        card = json.loads(rows[0])
    except (IndexError, TypeError, ValueError) as error:
        raise UnexpectedReplyError("the generator's card is not JSON") from error
    if not isinstance(card, dict):
        raise UnexpectedReplyError(f"the generator's card is a JSON {type(card).__name__}; expected an object")
    return card


def describe(metadata: Metadata, card: Mapping[str, Any]) -> Generator:
    """Check that metadata and card agree with the contract, and with each other.

    Raises:
        UnexpectedReplyError: they do not, or the generator follows another version of the contract.
    """
    if card.get("contract_version") != CONTRACT_VERSION:
        raise UnexpectedReplyError(
            f"the generator follows version {card.get('contract_version')!r} of the contract, this client version "
            f"{CONTRACT_VERSION}: install the digitforge release that exported it, or export it anew"
        )
    try:
        generator = Generator(
            card=card,
            generator_id=str(card["generator_id"]),
            class_names=tuple(str(name) for name in card["class_names"]),
            image_shape=_image_shape(card["image_shape"]),
            max_rows=int(card["max_rows"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedReplyError(
            f"the generator's card lacks something or has it in another form: {error}"
        ) from error
    if generator.max_rows < 1:
        raise UnexpectedReplyError(f"the generator's card allows {generator.max_rows} rows in a request")
    signature = metadata.signatures.get(Signature.SAMPLE)
    if signature is None or Field.SEEDS not in signature.inputs or Field.IMAGES not in signature.outputs:
        raise UnexpectedReplyError(
            f"model {metadata.model!r} is no generator of digitforge's: signature {Signature.SAMPLE!r} with "
            f"input {Field.SEEDS!r} and output {Field.IMAGES!r} was expected"
        )
    if (Field.LABELS in signature.inputs) != generator.conditional:
        raise UnexpectedReplyError(
            f"the card names {len(generator.class_names)} classes, but the signature "
            f"{'takes' if not generator.conditional else 'does not take'} labels; export the generator anew"
        )
    return generator


def _image_shape(shape: Any) -> tuple[int, int, int]:
    height, width, channels = (int(size) for size in shape)
    return height, width, channels
