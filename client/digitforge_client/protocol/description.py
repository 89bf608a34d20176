"""Reads what a server says about its generator: the model's metadata and the generator's card."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from digitforge_client.common.json_text import parse_json
from digitforge_client.contract import CONTRACT_VERSION, Field, Signature
from digitforge_client.errors import InvalidInputError, UnexpectedReplyError
from digitforge_client.protocol.labels import label_array
from digitforge_client.transport.rpc_errors import printable
from digitforge_client.transport.wire import messages
from digitforge_client.transport.wire.tensors import dtype_name, output_of

#: Largest image, in pixels times channels. A larger one does not fit into a message.
_MAX_PIXELS: Final = 2**26
_MAX_CLASSES: Final = 2**16
_MAX_LATENT_SIZE: Final = 2**16
_ID: Final = re.compile(r"[0-9A-Za-z_.-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One input or output of a signature."""

    dtype: str
    #: A size of None means any size. A shape of None means any rank.
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, kw_only=True)
class SignatureInfo:
    """The inputs and outputs of one signature, by name."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The model that a server serves."""

    model: str
    #: Number of the model's folder on the server. It does not identify the generator.
    version: int
    signatures: Mapping[str, SignatureInfo]


@dataclass(frozen=True, kw_only=True)
class Generator:
    """The properties of a generator that requests depend on."""

    card: Mapping[str, Any]
    generator_id: str
    #: Empty for an unconditional generator.
    class_names: tuple[str, ...]
    #: Height, width and channels.
    image_shape: tuple[int, int, int]
    #: Largest number of rows in one request.
    max_rows: int
    #: Components of a latent. None if the card does not say.
    latent_size: int | None = None
    #: Distribution of the latents: ``"normal"`` or ``"uniform"``.
    latent_distribution: str = "normal"

    @property
    def conditional(self) -> bool:
        """Whether the generator has classes."""
        return bool(self.class_names)

    def class_numbers(self, labels: Any) -> npt.NDArray[np.int64]:
        """Turn labels into class numbers.

        Args:
            labels: class numbers 0 … K − 1 or class names: a single one, or an array.

        Returns:
            int64, with the shape of *labels*.

        Raises:
            InvalidInputError: the generator has no classes, or lacks one of these.
        """
        if not self.conditional:
            raise InvalidInputError(
                f"labels were given, but generator {self.generator_id} is unconditional and has no classes; "
                "leave out the labels"
            )
        given = label_array(labels)
        if given.dtype.kind == "U":
            numbers = {name: number for number, name in enumerate(self.class_names)}
            unknown = sorted(set(given.ravel().tolist()) - set(numbers))
            if unknown:
                raise self._unknown_class(unknown)
            return np.array([numbers[name] for name in given.ravel()], dtype=np.int64).reshape(given.shape)
        outside = (given < 0) | (given >= len(self.class_names))
        if outside.any():
            raise self._unknown_class(sorted(set(given[outside].ravel().tolist())))
        return given.astype(np.int64)

    def _unknown_class(self, labels: list[Any]) -> InvalidInputError:
        shown = ", ".join(repr(label) for label in labels[:5]) + (", …" if len(labels) > 5 else "")
        classes = ", ".join(
            name if name == str(number) else f"{number} ({name})" for number, name in enumerate(self.class_names)
        )
        return InvalidInputError(
            f"generator {self.generator_id} has no class {shown}; its classes are {printable(classes)}"
        )


def read_metadata(reply: messages.GetModelMetadataResponse) -> Metadata:
    """Read the answer to GetModelMetadata.

    Raises:
        UnexpectedReplyError: the signatures are not readable.
    """
    try:
        # Any.Unpack does not work here, because it requires TensorFlow's name for this message
        signatures = messages.SignatureDefMap.FromString(reply.metadata["signature_def"].value).signature_def
    except DecodeError as error:
        raise UnexpectedReplyError(
            "the server's metadata cannot be read: expected a message with signatures; is it TensorFlow Serving?"
        ) from error
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
    """Read the card from the answer of the signature ``card``.

    Raises:
        UnexpectedReplyError: the answer has no card, or the card is not a JSON object.
    """
    (text,) = output_of(reply, Field.CARD, dtype="string", shape=(1,))
    try:
        card = parse_json(text)
    except (TypeError, ValueError) as error:
        raise UnexpectedReplyError(
            f"the generator's card cannot be read ({printable(str(error))}); export the generator again"
        ) from error
    if not isinstance(card, dict):
        raise UnexpectedReplyError(
            f"the generator's card is a JSON {type(card).__name__}; expected an object: export the generator again"
        )
    return card


def describe_card(card: Mapping[str, Any]) -> Generator:
    """Make the description of a generator from its card.

    Raises:
        UnexpectedReplyError: the card breaks the contract, or has another contract version.
    """
    if card.get("contract_version") != CONTRACT_VERSION:
        raise UnexpectedReplyError(
            f"the generator has contract version {_short(card.get('contract_version'))}, but this client needs version "
            f"{CONTRACT_VERSION}; install the digitforge release that exported it, or export it again"
        )

    def field(name: str, expected: str, valid: Callable[[Any], bool], *default: Any) -> Any:
        value = card.get(name, *default)
        if not valid(value) and (value, *default) != (None, None):
            raise UnexpectedReplyError(
                f"the generator's card has a missing or invalid field: {name} is {_short(value)}; expected {expected}: "
                "export the generator again"
            )
        return value

    def names(value: Any) -> bool:
        return (
            isinstance(value, list) and len(value) <= _MAX_CLASSES and all(isinstance(one, str | int) for one in value)
        )

    def shape(value: Any) -> bool:
        return (
            isinstance(value, list) and len(value) == 3 and all(map(_count, value)) and math.prod(value) <= _MAX_PIXELS
        )

    return Generator(
        card=card,
        generator_id=field(
            "generator_id", "letters and digits", lambda value: isinstance(value, str) and bool(_ID.fullmatch(value))
        ),
        class_names=tuple(map(str, field("class_names", f"a list of up to {_MAX_CLASSES} names", names))),
        image_shape=tuple(field("image_shape", "height, width and channels", shape)),
        max_rows=field("max_rows", "1 or more", _count),
        latent_size=field(
            "latent_size", f"1 to {_MAX_LATENT_SIZE}", lambda size: _count(size) and size <= _MAX_LATENT_SIZE, None
        ),
        latent_distribution=field("latent_law", "normal or uniform", ("normal", "uniform").__contains__, "normal"),
    )


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _short(value: Any) -> str:
    """The value in at most 100 characters."""
    return reprlib.repr(value)[:100]


def describe(metadata: Metadata, card: Mapping[str, Any]) -> Generator:
    """Make the description of a generator. Check metadata and card against the contract and against each other.

    Raises:
        UnexpectedReplyError: metadata or card break the contract, contradict each other, or have another contract
            version.
    """
    generator = describe_card(card)
    signature = metadata.signatures.get(Signature.SAMPLE)
    if signature is None or Field.SEEDS not in signature.inputs or Field.IMAGES not in signature.outputs:
        raise UnexpectedReplyError(
            f"model {metadata.model!r} is not a digitforge generator; expected signature {Signature.SAMPLE!r} with "
            f"input {Field.SEEDS!r} and output {Field.IMAGES!r}: export it with `digitforge export`"
        )
    if (Field.LABELS in signature.inputs) != generator.conditional:
        raise UnexpectedReplyError(
            f"the card names {len(generator.class_names)} classes, but the signature "
            f"{'takes' if not generator.conditional else 'does not take'} labels; export the generator again"
        )
    return generator
