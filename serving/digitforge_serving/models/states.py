"""What becomes of a version of a model, in the words of ``GetModelStatus``."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from digitforge_serving.models import refusal
from digitforge_serving.models.saved_model import Served

START, LOADING, AVAILABLE, UNLOADING, END = 10, 20, 30, 40, 50  # ModelVersionStatus.State


@dataclass(kw_only=True)
class Version:
    """What became of a version, from the moment that it was wanted; never forgotten while the server runs."""

    state: int = START
    code: grpc.StatusCode = grpc.StatusCode.OK
    text: str = ""  # why it could not be loaded
    stamp: object = None  # of the folder that could not be loaded; another one is tried again
    served: Served | None = None


def failure(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Code and text of the reason why a version could not be loaded."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, refusal.RefusedError):
        return error.code, text
    number = getattr(error, "error_code", None)  # of TensorFlow's own errors
    return refusal.from_number(number, text).code if number else grpc.StatusCode.UNKNOWN, text
