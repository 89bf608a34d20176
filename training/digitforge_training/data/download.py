"""Fetches files that are known by their SHA-256 from one of several mirrors into a cache.

A file appears in the cache only when it is whole and verified. A download that was cut off is taken up again where
it stopped, and of several processes one downloads while the others wait.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from digitforge_client.common.files import sync
from digitforge_client.errors import DataError

TIMEOUT_S: Final = 8.0  # without a sign of life from a mirror: short, because a demonstration waits for it
LOCK_TIMEOUT_S: Final = 900.0  # for another process to finish the same download
CHUNK: Final = 1 << 18  # bytes
LARGEST_DOWNLOAD: Final = 1 << 27  # bytes: the largest file, a network, has under 90 MB, whatever a mirror sends

log = logging.getLogger(__name__)


def fetch(
    files: Mapping[str, str],
    folder: Path,
    *,
    mirrors: Sequence[str],
    unpack: Callable[[bytes, str], bytes],
    remedy: str,
) -> None:
    """Make sure that verified *files* lie in *folder*.

    Args:
        files: file name => SHA-256, hexadecimal, of what the file holds once unpacked.
        folder: the cache; made if need be.
        mirrors: addresses of folders that hold the files, tried in this order.
        unpack: (content, name for errors) => content without compression; raises DataError.
        remedy: what the user can do if nothing answers; ends the error message.

    Raises:
        DataError: no mirror gave a file with the right content, or the folder cannot be written.
    """
    if all((folder / name).exists() for name in files):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=LOCK_TIMEOUT_S):
            left = list(mirrors)
            for name, sha256 in files.items():
                if not (folder / name).exists():  # another process may have been here in the meantime
                    _fetch_one(name, sha256, folder, mirrors=left, unpack=unpack, remedy=remedy)
    except Timeout as error:
        raise DataError(
            f"{folder}: another process has held the download lock for {LOCK_TIMEOUT_S:.0f} s; end it, or {remedy}"
        ) from error
    except OSError as error:
        raise DataError(
            f"{folder}: the cache cannot be written ({error.strerror or error}); "
            f"set DIGITFORGE_CACHE_DIR to a folder that can, or {remedy}"
        ) from error


def _fetch_one(
    name: str,
    sha256: str,
    folder: Path,
    *,
    mirrors: list[str],
    unpack: Callable[[bytes, str], bytes],
    remedy: str,
) -> None:
    """Fetch one file; a mirror that fails is removed from *mirrors*, so that the next file does not wait for it."""
    failures: list[str] = []
    while mirrors:
        address = mirrors[0].rstrip("/") + "/" + name
        # One part per mirror: the same content may be compressed differently elsewhere.
        part = folder / f"{name}.{hashlib.sha256(address.encode()).hexdigest()[:8]}.part"
        resumed = part.exists()
        failure = _try_mirror(address, part, sha256, unpack=unpack)
        if failure and resumed and not part.exists():  # what lay there did not fit: begin anew
            failure = _try_mirror(address, part, sha256, unpack=unpack)
        if not failure:
            part.replace(folder / name)
            return
        log.info("%s: %s", address, failure)
        failures.append(f"{address}: {failure}")
        mirrors.pop(0)
    raise DataError(f"{name} cannot be downloaded; {'; '.join(failures)}. Without a network, {remedy}")


def _try_mirror(address: str, part: Path, sha256: str, *, unpack: Callable[[bytes, str], bytes]) -> str:
    """Download *address* to *part* and verify it; returns what went wrong, or nothing.

    *part* survives a broken connection, and nothing else that goes wrong.
    """
    try:
        _download(address, part)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
        return str(error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, OSError) and error.filename:
            raise  # the disk, not the network
        return str(getattr(error, "reason", None) or error) or type(error).__name__
    try:
        content = unpack(part.read_bytes(), "what it sent")
    except DataError as error:
        part.unlink()
        return str(error)
    if (received := hashlib.sha256(content).hexdigest()) != sha256:
        part.unlink()
        return f"what it sent has the SHA-256 {received}, expected {sha256}"
    return ""


def _download(address: str, part: Path) -> None:
    """Write the answer of *address* to *part*, behind what is there already."""
    if not address.startswith(("http://", "https://")):
        raise ValueError("the address of a mirror starts with http:// or https://")
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "digitforge", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
        continued = reply.status == http.HTTPStatus.PARTIAL_CONTENT
        if continued and not reply.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink(missing_ok=True)
            raise ValueError(f"it answered with the range {reply.headers.get('Content-Range')!r}")
        size = start if continued else 0
        with part.open("ab" if continued else "wb") as file:
            while chunk := reply.read1(CHUNK):
                file.write(chunk)
                file.flush()  # what has arrived outlives this process
                size += len(chunk)
                if size > LARGEST_DOWNLOAD:
                    file.truncate(0)
                    raise ValueError(f"it sent more than {LARGEST_DOWNLOAD} bytes")
            sync(file)
        if reply.length:  # bytes that were promised and did not come
            raise http.client.IncompleteRead(b"", reply.length)
