"""What goes over the wire: messages, tensors, and the methods that exchange them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from digitforge_client.transport.wire import messages_pb2 as messages

__all__ = ["GET_METADATA", "GET_STATUS", "PREDICT", "Method", "messages"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One remote method: its path, and the type of its answer."""

    path: str
    reply: Any  # a message class


PREDICT: Final = Method(path="/tensorflow.serving.PredictionService/Predict", reply=messages.PredictResponse)
GET_METADATA: Final = Method(
    path="/tensorflow.serving.PredictionService/GetModelMetadata", reply=messages.GetModelMetadataResponse
)
GET_STATUS: Final = Method(
    path="/tensorflow.serving.ModelService/GetModelStatus", reply=messages.GetModelStatusResponse
)
