"""Answers to Predict, whose large tensors are read where they lie.

protobuf would copy the pixels twice, from the bytes that came into the message, and from the message into bytes again.
Here only the small parts of a message are given to it; https://protobuf.dev/programming-guides/encoding/ describes how
they are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from digitforge_client.transport.wire import messages_pb2 as messages

# Wire types.
_VARINT: Final = 0
_FIXED_64: Final = 1
_LENGTH: Final = 2
_FIXED_32: Final = 5
# Fields of messages.proto.
_OUTPUTS: Final = 1  # of PredictResponse
_KEY: Final = 1  # of a map's entry
_VALUE: Final = 2
_CONTENT: Final = 4  # of Tensor


class Held(NamedTuple):
    """A tensor in two parts."""

    tensor: messages.Tensor  # all but the content
    content: memoryview


@dataclass(frozen=True, kw_only=True)
class Reply:
    """As messages.PredictResponse, as far as the client reads it."""

    outputs: Mapping[str, messages.Tensor | Held] = field(default_factory=dict)

    @classmethod
    def FromString(cls, data: bytes) -> Reply | messages.PredictResponse:  # noqa: N802 - as protobuf names it
        """Read an answer; what is written in a way that nobody writes is left to protobuf.

        Raises:
            DecodeError: the bytes are no such message.
        """
        try:
            outputs = _outputs(data)
        except DecodeError:
            outputs = None
        return messages.PredictResponse.FromString(data) if outputs is None else cls(outputs=outputs)


def _outputs(data: bytes) -> dict[str, messages.Tensor | Held] | None:
    """The outputs of an answer; None, or a DecodeError, where protobuf has to say what the bytes mean."""
    outputs: dict[str, messages.Tensor | Held] = {}
    view = memoryview(data)
    for number, kind, begin, end in _fields(data, 0, len(data)):
        if (number, kind) != (_OUTPUTS, _LENGTH):
            continue
        entry: dict[int, list[int]] = {}
        for part, part_kind, *place in _fields(data, begin, end):
            if part_kind != _LENGTH or part in entry:
                return None
            entry[part] = place
        if entry.keys() != {_KEY, _VALUE}:
            return None
        try:
            name = str(view[slice(*entry[_KEY])], "utf-8")
        except UnicodeDecodeError:
            return None
        outputs[name] = _held(data, view, *entry[_VALUE])
    return outputs


def _held(data: bytes, view: memoryview, begin: int, end: int) -> Held:
    """The tensor that lies here."""
    content, rest, last = memoryview(b""), b"", begin
    for number, kind, first, stop in _fields(data, begin, end):
        if (number, kind) == (_CONTENT, _LENGTH):
            content = view[first:stop]
        else:
            rest += data[last:stop]
        last = stop
    return Held(messages.Tensor.FromString(rest), content)


def _fields(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number and wire type of each field of a message, and where its value begins and ends."""
    position = begin
    while position < end:
        tag, position = _varint(data, position, end)
        kind, first = tag & 7, position
        if kind == _LENGTH:
            length, first = _varint(data, position, end)
            position = first + length
        elif kind == _VARINT:
            _, position = _varint(data, position, end)
        elif kind in (_FIXED_32, _FIXED_64):
            position += 4 if kind == _FIXED_32 else 8
        else:
            raise DecodeError(f"wire type {kind} at byte {position}")
        if position > end:
            raise DecodeError(f"a field ends at byte {position}, its message at {end}")
        yield tag >> 3, kind, first, position


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """An integer of seven bits a byte, lowest first, and where it ends."""
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise DecodeError(f"an integer does not end at byte {position}")
