"""Reading configuration files in protobuf text, and the compiled messages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_serving.config import messages, messages_pb2

#: Number of a protobuf type in a descriptor => its name.
NAMES = {FieldDescriptor.TYPE_INT64: "int64", FieldDescriptor.TYPE_STRING: "string", FieldDescriptor.TYPE_BOOL: "bool"}


def test_the_compiled_messages_match_the_proto_file() -> None:
    text = Path(messages.__file__).with_suffix(".proto").read_text("utf-8")
    declared = {
        (message, *field)
        for message, body in re.findall(r"^message (\w+) {(.*?)^}", text, re.DOTALL | re.MULTILINE)
        for field in re.findall(r"(repeated )?([\w.]+) (\w+) = (\d+);", body)
    }
    compiled = set()
    for message in messages_pb2.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            written = field.message_type and field.message_type.full_name.removeprefix(f"{message.file.package}.")
            kept = ("repeated " if field.is_repeated else "", written or NAMES[field.type])
            compiled.add((message.name, *kept, field.name, str(field.number)))
    assert compiled == declared
    assert f"\npackage {messages_pb2.DESCRIPTOR.package};" in text


def test_the_messages_do_not_conflict_with_tensorflow_servings_definitions() -> None:
    code = """
from google.protobuf import descriptor_pb2, descriptor_pool
theirs = descriptor_pb2.FileDescriptorProto(name="ssl_config.proto", package="tensorflow.serving")
theirs.message_type.add(name="SSLConfig")
descriptor_pool.Default().Add(theirs)
import digitforge_serving.config.messages_pb2
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        (None, DataError, "cannot be read"),
        (b"\xff", DataError, "cannot be read"),
        (
            b"path: '/metrics'",
            InvalidInputError,
            "Error parsing text-format tensorflow.serving.MonitoringConfig: 1:1 : ",
        ),
    ],
)
def test_an_invalid_file_is_rejected(text: bytes | None, error: type[Exception], said: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "file").write_bytes(text)
    with pytest.raises(error, match=said):
        messages.read(tmp_path / "file", messages_pb2.MonitoringConfig)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbfprometheus_config {\r\n  enable: true\r\n}\r\n")
    assert messages.read(tmp_path / "file", messages_pb2.MonitoringConfig).prometheus_config.enable
