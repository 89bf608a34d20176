"""TensorFlow Serving's configuration messages that the package of its API leaves out, for reading protobuf text.

They live in a pool of their own: the same names may be defined elsewhere in the process. Field numbers play no part in
protobuf text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from digitforge_client.errors import DataError, InvalidInputError

_PACKAGE: Final = "tensorflow.serving"
_FIELD = descriptor_pb2.FieldDescriptorProto
_INT64, _STRING_VALUE = ".google.protobuf.Int64Value", ".google.protobuf.StringValue"

#: message => field => its type: a message's name, or a scalar type; "repeated" where so marked.
_MESSAGES: Final[dict[str, dict[str, Any]]] = {
    "BatchingParameters": {
        "max_batch_size": _INT64,
        "batch_timeout_micros": _INT64,
        "max_enqueued_batches": _INT64,
        "num_batch_threads": _INT64,
        "thread_pool_name": _STRING_VALUE,
        "allowed_batch_sizes": (_FIELD.TYPE_INT64, "repeated"),
        "pad_variable_length_inputs": _FIELD.TYPE_BOOL,
        "enable_large_batch_splitting": ".google.protobuf.BoolValue",
        "max_execution_batch_size": _INT64,
    },
    "SSLConfig": {
        "server_key": _FIELD.TYPE_STRING,
        "server_cert": _FIELD.TYPE_STRING,
        "custom_ca": _FIELD.TYPE_STRING,
        "client_verify": _FIELD.TYPE_BOOL,
    },
    "PrometheusConfig": {"enable": _FIELD.TYPE_BOOL, "path": _FIELD.TYPE_STRING},
    "MonitoringConfig": {"prometheus_config": f".{_PACKAGE}.PrometheusConfig"},
}


def read(path: Path, kind: str) -> Any:
    """Read a file of protobuf text.

    Args:
        path: the file.
        kind: ``BatchingParameters``, ``SSLConfig`` or ``MonitoringConfig``.

    Raises:
        DataError: the file cannot be read.
        InvalidInputError: it is no such text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    try:
        return text_format.Parse(text, _CLASSES[kind]())
    except text_format.ParseError as error:
        raise InvalidInputError(f"{path} is not a {kind} in protobuf text: {error}") from error


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="digitforge_serving/config_messages.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, declared) in enumerate(fields.items(), start=1):
            kind, repeated = (declared[0], True) if isinstance(declared, tuple) else (declared, False)
            added = message.field.add(name=field, number=number)
            added.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if isinstance(kind, str):
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, kind
            else:
                added.type = kind
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


_CLASSES: Final = _classes()
