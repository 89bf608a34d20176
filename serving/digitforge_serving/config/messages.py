"""Read TensorFlow Serving's configuration files (protobuf text).

``messages.proto`` defines the messages that the package ``tensorflow-serving-api`` lacks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from digitforge_client.errors import DataError, InvalidInputError

AnyMessage = TypeVar("AnyMessage", bound=Message)


def read_text(path: Path) -> str:
    """Read a file of protobuf text, without the byte-order mark with which editors on Windows begin it.

    Line ends stay as they are.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def read(path: Path, message_type: type[AnyMessage]) -> AnyMessage:
    """Read a file of protobuf text.

    Args:
        path: the file.
        message_type: the type of message that the file contains.

    Raises:
        DataError: the file cannot be read.
        InvalidInputError: the text is not a valid message of that type.
    """
    text = read_text(path)
    try:
        return text_format.Parse(text, message_type())
    except text_format.ParseError as error:
        # The first words are TensorFlow Serving's, for programs that look for them.
        own, published = message_type.DESCRIPTOR.full_name, f"tensorflow.serving.{message_type.DESCRIPTOR.name}"
        raise InvalidInputError(
            f"Error parsing text-format {published}: {str(error).replace(own, published)} "
            f"Invalid protobuf file: '{path}'; correct it at this line and column"
        ) from error
