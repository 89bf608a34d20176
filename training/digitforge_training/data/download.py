"""Downloads files with a known SHA-256 from one of several mirrors into a cache.

A file appears in the cache only when it is complete and verified. An interrupted download resumes where it stopped.
If several processes need the same files, one downloads and the others wait.
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

from digitforge_client.common.files import sync
from digitforge_client.errors import DataError

TIMEOUT_S: Final = 8.0  # wait for a silent mirror; short, because `digitforge demo` waits too
LOCK_TIMEOUT_S: Final = 900.0  # wait for another process to finish the same download
CHUNK: Final = 1 << 18  # bytes
LARGEST_DOWNLOAD: Final = 1 << 27  # bytes; our largest file, a network, has less than 90 MB

log = logging.getLogger(__name__)


def fetch(
    files: Mapping[str, str],
    folder: Path,
    *,
    mirrors: Sequence[str],
    unpack: Callable[[bytes, str], bytes],
    remedy: str,
) -> None:
    """Make sure that *folder* holds verified *files*.

    Args:
        files: file name => hexadecimal SHA-256 of the unpacked content.
        folder: the cache folder, created if needed.
        mirrors: URLs of folders that hold the files, tried in this order.
        unpack: (content, name for errors) => uncompressed content; raises DataError.
        remedy: what the user can do if the download fails; ends the error message.

    Raises:
        DataError: no mirror sent a file with the expected content, or the folder cannot be written.
    """
    if all((folder / name).exists() for name in files):
        return
    from filelock import FileLock, Timeout  # late, because the help of commands needs no extra

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=LOCK_TIMEOUT_S):
            left = list(mirrors)
            for name, sha256 in files.items():
                if not (folder / name).exists():  # another process may have finished the download meanwhile
                    _fetch_one(name, sha256, folder, mirrors=left, unpack=unpack, remedy=remedy)
    except Timeout as error:
        raise DataError(
            f"{folder}: another process has held the download lock for {LOCK_TIMEOUT_S:.0f} s; stop it, or {remedy}"
        ) from error
    except OSError as error:
        raise DataError(
            f"{folder}: cannot write to the cache ({error.strerror or error}); "
            f"set DIGITFORGE_CACHE_DIR to a writable folder, or {remedy}"
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
    """Fetch one file. Removes a failing mirror from *mirrors*, so that the next file does not wait for it."""
    failures: list[str] = []
    while mirrors:
        address = mirrors[0].rstrip("/") + "/" + name
        # One partial file per mirror, because mirrors may compress the same content differently.
        part = folder / f"{name}.{hashlib.sha256(address.encode()).hexdigest()[:8]}.part"
        resumed = part.exists()
        failure = _try_mirror(address, part, sha256, unpack=unpack)
        if failure and resumed and not part.exists():  # the old partial file was unusable: start over
            failure = _try_mirror(address, part, sha256, unpack=unpack)
        if not failure:
            part.replace(folder / name)
            return
        log.info("%s: %s", address, failure)
        failures.append(f"{address}: {failure}")
        mirrors.pop(0)
    raise DataError(f"cannot download {name}: {'; '.join(failures)}. Without a network, {remedy}")


def _try_mirror(address: str, part: Path, sha256: str, *, unpack: Callable[[bytes, str], bytes]) -> str:
    """Download *address* to *part* and verify it. Returns what went wrong, or "".

    Keeps *part* after a broken connection and deletes it after any other error.
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
        content = unpack(part.read_bytes(), "the received file")
    except DataError as error:
        part.unlink()
        return str(error)
    if (received := hashlib.sha256(content).hexdigest()) != sha256:
        part.unlink()
        return f"the received file has the SHA-256 {received}, expected {sha256}"
    return ""


def _download(address: str, part: Path) -> None:
    """Append to *part* what *address* sends after the bytes that *part* already has."""
    if not address.startswith(("http://", "https://")):
        raise ValueError("the URL of a mirror must start with http:// or https://")
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "digitforge", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
        continued = reply.status == http.HTTPStatus.PARTIAL_CONTENT
        if continued and not reply.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink(missing_ok=True)
            raise ValueError(
                f"the mirror answered with the range {reply.headers.get('Content-Range')!r}; expected bytes {start}-"
            )
        size = start if continued else 0
        with part.open("ab" if continued else "wb") as file:
            while chunk := reply.read1(CHUNK):
                file.write(chunk)
                file.flush()  # keep what has arrived, even if this process is killed
                size += len(chunk)
                if size > LARGEST_DOWNLOAD:
                    file.truncate(0)
                    raise ValueError(f"the mirror sent more than {LARGEST_DOWNLOAD} bytes")
            sync(file)
        if reply.length:  # bytes announced but not sent
            raise http.client.IncompleteRead(b"", reply.length)
