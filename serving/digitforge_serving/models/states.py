"""The state of a version, as ``GetModelStatus`` reports it."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from digitforge_serving.models import refusal
from digitforge_serving.models.saved_model import Served

START, LOADING, AVAILABLE, UNLOADING, END = 10, 20, 30, 40, 50  # ModelVersionStatus.State


@dataclass(kw_only=True)
class Version:
    """The state of a version. Kept until the server ends or its model is removed."""

    state: int = START  #: number of a ``ModelVersionStatus.State``
    code: grpc.StatusCode = grpc.StatusCode.OK  #: status code of the last attempt to load the version
    text: str = ""  #: why it could not be loaded
    stamp: object = None  #: stamp of the folder when loading failed; the server retries when it changes
    served: Served | None = None  #: the loaded version, while it serves


def failure(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Status code and message for an error while loading a version."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, refusal.RefusedError):
        return error.code, text
    number = getattr(error, "error_code", None)  # TensorFlow's errors have one
    return refusal.from_number(number, text).code if number else grpc.StatusCode.UNKNOWN, text
