"""The wire format: messages, tensors and remote methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from digitforge_client.transport.wire import messages_pb2 as messages

__all__ = ["GET_METADATA", "GET_STATUS", "PREDICT", "Method", "messages"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One remote method."""

    path: str
    #: Message class of the answer.
    reply: Any


PREDICT: Final = Method(path="/tensorflow.serving.PredictionService/Predict", reply=messages.PredictResponse)
GET_METADATA: Final = Method(
    path="/tensorflow.serving.PredictionService/GetModelMetadata", reply=messages.GetModelMetadataResponse
)
GET_STATUS: Final = Method(
    path="/tensorflow.serving.ModelService/GetModelStatus", reply=messages.GetModelStatusResponse
)
