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


def read(path: Path, message_type: type[AnyMessage]) -> AnyMessage:
    """Read a file of protobuf text.

    Args:
        path: the file.
        message_type: the type of message that the file contains.

    Raises:
        DataError: the file cannot be read.
        InvalidInputError: the text is not a valid message of that type.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    try:
        return text_format.Parse(text, message_type())
    except text_format.ParseError as error:
        # The first words are TensorFlow Serving's, for programs that look for them.
        own, published = message_type.DESCRIPTOR.full_name, f"tensorflow.serving.{message_type.DESCRIPTOR.name}"
        raise InvalidInputError(
            f"Error parsing text-format {published}: {str(error).replace(own, published)} "
            f"Invalid protobuf file: '{path}'; correct it at this line and column"
        ) from error
