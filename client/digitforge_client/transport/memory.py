"""What the C library's malloc does with memory as large as an answer."""

from __future__ import annotations

import functools
from typing import Final

import numpy as np

_BYTES: Final = 16 * 2**20


@functools.cache
def keep_freed_memory() -> None:
    """Let malloc use freed memory again, up to twice 16 MiB of it, instead of giving it back at once.

    glibc takes what is larger than a threshold from the system and gives it back when it is freed; then every answer's
    memory has to be mapped anew, page by page, which is a third of a client's work where batches are small. The
    threshold rises to the largest block that was ever freed (mallopt(3), M_MMAP_THRESHOLD), so one is freed here, which
    nothing was ever written to. Elsewhere this does nothing.
    """
    np.empty(_BYTES, dtype=np.uint8)
