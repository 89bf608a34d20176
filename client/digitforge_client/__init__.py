"""digitforge's client: labeled synthetic digits over gRPC, without TensorFlow.

::

    from digitforge_client import DigitClient

    with DigitClient("localhost:8500") as client:
        batch = client.sample(1000, seed=7)  # batch.images (1000, 28, 28) uint8, batch.labels, batch.seeds
"""

from typing import TYPE_CHECKING, Any

from digitforge_client.aio import AsyncDigitClient
from digitforge_client.batch import Addresses, Batch
from digitforge_client.client import DigitClient
from digitforge_client.errors import (
    DataError,
    DigitforgeError,
    GeneratorChangedError,
    InvalidInputError,
    MissingExtraError,
    ModelNotFoundError,
    RequestRejectedError,
    ServerBusyError,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
    TLSError,
    UnexpectedReplyError,
)
from digitforge_client.options import TLS, Compression, Keepalive, Limits, Retry, Timeout
from digitforge_client.protocol.description import Generator, Metadata, SignatureInfo, TensorInfo

if TYPE_CHECKING:
    from digitforge_client.adapters.imblearn import GeneratedDigitsSampler

__all__ = [
    "TLS",
    "Addresses",
    "AsyncDigitClient",
    "Batch",
    "Compression",
    "DataError",
    "DigitClient",
    "DigitforgeError",
    "GeneratedDigitsSampler",
    "Generator",
    "GeneratorChangedError",
    "InvalidInputError",
    "Keepalive",
    "Limits",
    "Metadata",
    "MissingExtraError",
    "ModelNotFoundError",
    "RequestRejectedError",
    "Retry",
    "ServerBusyError",
    "ServerError",
    "ServerTimeoutError",
    "ServerUnavailableError",
    "SignatureInfo",
    "TLSError",
    "TensorInfo",
    "Timeout",
    "UnexpectedReplyError",
]


def __getattr__(name: str) -> Any:
    """Import the sampler on first use, because its module imports scikit-learn."""
    if name == "GeneratedDigitsSampler":
        from digitforge_client.adapters.imblearn import GeneratedDigitsSampler

        return GeneratedDigitsSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
