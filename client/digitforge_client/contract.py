"""The contract between generator, server and client: names, numbers and addresses.

The exporter, the server's configuration and the client all import these values, so they cannot disagree.

Every synthetic digit has an *address*: ``(generator_id, label, row seed)``. The same address gives the same
image on any engine, in any batch, at any position. Row *i* of a user's *seed* has the row seed
``seed · 2³² + i``. A row seed is below 2⁵³, so JSON holds it exactly.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

from digitforge_client.errors import InvalidInputError

CONTRACT_VERSION: Final = 1

MODEL_NAME: Final = "digits"
GRPC_PORT: Final = 8500
REST_PORT: Final = 8501

#: Two images of one address differ by at most this many gray levels on any pixel. The cause is float rounding, which
#: depends on batch size and device.
SAME_WITHIN: Final = 1
#: Two images of one address are equal on at least this share of their pixels.
SAME_SHARE: Final = 0.999

#: Rows of the largest request. The server's batching file has the same number as ``max_batch_size``.
MAX_ROWS: Final = 1024

#: Rows per seed: row numbers are 0 … 2³² − 1.
ROWS_PER_SEED: Final = 2**32
#: Number of seeds: a user's seed is 0 … 2²¹ − 1. This keeps every row seed below 2⁵³.
SEEDS: Final = 2**21


class Signature:
    """Names of the signatures of an exported generator."""

    SAMPLE: Final = "serving_default"  #: labels int64 [n], seeds int64 [n] => images uint8 [n, H, W, C], valid bool [n]
    PNG: Final = "png"  #: labels, seeds => image_bytes string [n], valid
    LATENTS: Final = "latents"  #: seeds => latents float32 [n, d]
    FROM_LATENTS: Final = "from_latents"  #: class_weights float32 [n, K], latents float32 [n, d] => images
    CARD: Final = "card"  #: rows int64 [n], ignored => card string [n]
    SEEN: Final = "seen"  #: hashes int64 [n] => seen bool [n]


class Field:
    """Names of the signatures' inputs and outputs."""

    LABELS: Final = "labels"
    SEEDS: Final = "seeds"
    IMAGES: Final = "images"
    VALID: Final = "valid"
    IMAGE_BYTES: Final = "image_bytes"  #: the suffix makes TensorFlow Serving's REST interface send base64
    LATENTS: Final = "latents"
    CLASS_WEIGHTS: Final = "class_weights"
    ROWS: Final = "rows"
    CARD: Final = "card"
    HASHES: Final = "hashes"
    SEEN: Final = "seen"


def check_seed(seed: int) -> int:
    """Return *seed* as an int.

    Raises:
        InvalidInputError: *seed* is not an integer from 0 to 2²¹ − 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < SEEDS:
        raise InvalidInputError(f"seed is {seed!r}; expected an integer from 0 to {SEEDS - 1}")
    return int(seed)


def row_seeds(seed: int, n: int, start: int = 0) -> npt.NDArray[np.int64]:
    """Row seeds of rows *start* … *start + n − 1* of a user's *seed*.

    Returns:
        (n,) int64, each ``seed · 2³² + row``.

    Raises:
        InvalidInputError: the seed, the start or the number of rows is out of range.
    """
    check_seed(seed)
    if start < 0 or n < 0 or start + n > ROWS_PER_SEED:
        raise InvalidInputError(
            f"rows {start} to {start + n - 1} were requested, but a seed only has rows 0 to {ROWS_PER_SEED - 1}; "
            "use another seed or another start"
        )
    return np.arange(start, start + n, dtype=np.int64) + np.int64(seed) * ROWS_PER_SEED


def balanced_labels(n: int, classes: int, start: int = 0) -> npt.NDArray[np.int64]:
    """Labels for a request without labels: row *i* has class ``i mod classes``.

    Returns:
        (n,) int64.
    """
    return np.arange(start, start + n, dtype=np.int64) % classes


def image_hashes(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Hash each image: the first 8 bytes of the SHA-256 of its pixels, as a big-endian int64.

    Args:
        images: (n, H, W, C) uint8, as published, before any resizing.

    Returns:
        (n,) int64.

    Raises:
        InvalidInputError: the array is not four-dimensional uint8.
    """
    if images.ndim != 4 or images.dtype != np.uint8:
        raise InvalidInputError(
            f"images have dtype {images.dtype} and shape {images.shape}; expected uint8 of shape (n, H, W, C)"
        )
    digests = b"".join(hashlib.sha256(image.tobytes()).digest()[:8] for image in images)
    return np.frombuffer(digests, dtype=">i8").astype(np.int64)
