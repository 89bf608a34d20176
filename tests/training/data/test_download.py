"""Downloads from real HTTP servers on this machine: resume, verification, mirrors, processes."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from digitforge_client.errors import DataError
from digitforge_training.data import download, idx, load, mnist
from digitforge_training.data.download import fetch

REMEDY = "name a folder with --data-dir"
CONTENT = np.random.default_rng(0).integers(0, 256, 400_000, dtype=np.uint8).tobytes()
PACKED = gzip.compress(CONTENT, mtime=0)
NAME = "train-images-idx3-ubyte.gz"
FILES_OF_MNIST = list(mnist.FILES)
FILES = {NAME: hashlib.sha256(CONTENT).hexdigest()}


@dataclass(kw_only=True)
class Mirror:
    """A server of files on loopback that can be told to misbehave."""

    files: dict[str, bytes]
    ranges: bool = True  # whether it supports range requests
    cut_after: list[int] = field(default_factory=list)  # one number per answer: bytes to send before it hangs up
    hold: threading.Event | None = None  # if set, the second half of an answer waits for this event
    status: int | None = None
    requests: list[str] = field(default_factory=list)  # path and range of each request
    address: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range", "")
        self.requests.append(f"{handler.path} {asked}".strip())
        content = self.files.get(handler.path.lstrip("/"))
        if self.status or content is None:
            handler.send_error(self.status or 404)
            return
        start = int(found[1]) if self.ranges and (found := re.fullmatch(r"bytes=(\d+)-", asked)) else 0
        if start >= len(content):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        body = content[start:]
        if self.cut_after:
            body = body[: self.cut_after.pop(0)]
        half = len(body) // 2
        handler.wfile.write(body[:half])
        handler.wfile.flush()
        if self.hold:
            self.hold.wait(30)
        handler.wfile.write(body[half:])


StartMirror = Callable[..., Mirror]


@pytest.fixture
def start_mirror() -> Iterator[StartMirror]:
    """Starts mirrors on free ports of this machine and stops them afterwards."""
    servers = []

    def start(**behavior: object) -> Mirror:
        mirror = Mirror(**{"files": {NAME: PACKED}, **behavior})  # type: ignore[arg-type]

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        mirror.address = f"http://127.0.0.1:{server.server_port}/"
        return mirror

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fetched(folder: Path, *mirrors: Mirror | str) -> bytes:
    addresses = [mirror if isinstance(mirror, str) else mirror.address for mirror in mirrors]
    fetch(FILES, folder, mirrors=addresses, unpack=idx.unpack, remedy=REMEDY)
    return gzip.decompress((folder / NAME).read_bytes())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_file_is_fetched_once_and_then_comes_from_the_cache(tmp_path: Path, start_mirror: StartMirror) -> None:
    mirror = start_mirror()
    assert fetched(tmp_path / "cache", mirror) == CONTENT
    assert fetched(tmp_path / "cache", mirror) == CONTENT
    assert mirror.requests == [f"/{NAME}"]
    assert names(tmp_path / "cache") == [NAME]


def test_a_broken_download_is_resumed_where_it_stopped(tmp_path: Path, start_mirror: StartMirror) -> None:
    mirror = start_mirror(cut_after=[100_000])
    with pytest.raises(DataError, match="cannot download"):
        fetched(tmp_path, mirror)
    assert not (tmp_path / NAME).exists()
    assert fetched(tmp_path, mirror) == CONTENT
    assert mirror.requests == [f"/{NAME}", f"/{NAME} bytes=100000-"]
    assert names(tmp_path) == [NAME]


def test_a_mirror_without_ranges_sends_the_whole_file_again(tmp_path: Path, start_mirror: StartMirror) -> None:
    mirror = start_mirror(cut_after=[100_000], ranges=False)
    with pytest.raises(DataError):
        fetched(tmp_path, mirror)
    assert fetched(tmp_path, mirror) == CONTENT


def test_a_part_that_does_not_fit_is_thrown_away(tmp_path: Path, start_mirror: StartMirror) -> None:
    mirror = start_mirror(cut_after=[100_000])
    with pytest.raises(DataError):
        fetched(tmp_path, mirror)
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(bytes(100_000))
    assert fetched(tmp_path, mirror) == CONTENT
    assert mirror.requests[1:] == [f"/{NAME} bytes=100000-", f"/{NAME}"]


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path: Path, start_mirror: StartMirror) -> None:
    mirror = start_mirror(cut_after=[10])
    with pytest.raises(DataError):
        fetched(tmp_path, mirror)
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(PACKED + b"more")
    assert fetched(tmp_path, mirror) == CONTENT


@pytest.mark.parametrize(
    ("behavior", "said"),
    [
        ({"files": {}}, "404"),
        ({"status": 503}, "503"),
        ({"files": {NAME: b"<html>please log in</html>"}}, "SHA-256"),
        ({"files": {NAME: gzip.compress(b"other digits")}}, "SHA-256"),
        ({"files": {NAME: PACKED[:-20]}}, "truncated"),
        ({"files": {NAME: PACKED[:5_000] + bytes(100) + PACKED[5_100:]}}, "damaged"),
    ],
)
def test_the_next_mirror_is_asked_when_one_fails(
    tmp_path: Path,
    start_mirror: StartMirror,
    caplog: pytest.LogCaptureFixture,
    behavior: dict[str, object],
    said: str,
) -> None:
    caplog.set_level(logging.INFO)
    bad, good = start_mirror(**behavior), start_mirror()
    assert fetched(tmp_path, bad, good) == CONTENT
    assert said in caplog.text
    assert names(tmp_path) == [NAME]


def test_a_silent_mirror_is_given_up_after_the_time_out(
    tmp_path: Path, start_mirror: StartMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 2.0)
    release = threading.Event()
    silent, good = start_mirror(hold=release), start_mirror()
    assert fetched(tmp_path, silent, good) == CONTENT
    release.set()


def test_a_mirror_that_failed_is_not_asked_for_the_next_file(tmp_path: Path, start_mirror: StartMirror) -> None:
    bad, good = start_mirror(status=500), start_mirror(files={"a": CONTENT, "b": CONTENT})
    files = dict.fromkeys(("a", "b"), hashlib.sha256(CONTENT).hexdigest())
    fetch(files, tmp_path, mirrors=[bad.address, good.address], unpack=idx.unpack, remedy=REMEDY)
    assert len(bad.requests) == 1
    assert names(tmp_path) == ["a", "b"]


def test_more_than_a_file_can_have_is_refused(
    tmp_path: Path, start_mirror: StartMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LARGEST_DOWNLOAD", 1000)
    with pytest.raises(DataError, match="more than 1000 bytes"):
        fetched(tmp_path, start_mirror())


def test_without_any_mirror_the_error_names_each_and_the_way_out(tmp_path: Path, start_mirror: StartMirror) -> None:
    bad = start_mirror(status=500)
    with pytest.raises(DataError) as caught:
        fetched(tmp_path, bad, "http://127.0.0.1:9/nothing", "ftp://127.0.0.1/")
    message = str(caught.value)
    assert bad.address in message
    assert "127.0.0.1:9" in message
    assert "http:// or https://" in message
    assert message.endswith(REMEDY)
    assert "\n" not in message


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path, start_mirror: StartMirror) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="DIGITFORGE_CACHE_DIR"):
        fetched(tmp_path / "file" / "cache", start_mirror())


SCRIPT = f"""
import sys
from pathlib import Path
from digitforge_training.data import idx
from digitforge_training.data.download import fetch
fetch({FILES!r}, Path(sys.argv[1]), mirrors=sys.argv[2:], unpack=idx.unpack, remedy="")
"""


def start_process(folder: Path, mirror: Mirror) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), mirror.address])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for a minute"
        time.sleep(0.02)


def test_of_two_processes_one_downloads_and_the_other_waits(tmp_path: Path, start_mirror: StartMirror) -> None:
    release = threading.Event()
    mirror = start_mirror(hold=release)
    processes = [start_process(tmp_path, mirror) for _ in range(2)]
    wait_until(lambda: len(mirror.requests) == 1)
    release.set()
    assert [process.wait(60) for process in processes] == [0, 0]
    assert mirror.requests == [f"/{NAME}"]
    assert fetched(tmp_path) == CONTENT


def test_a_killed_download_is_taken_up_by_the_next_process(tmp_path: Path, start_mirror: StartMirror) -> None:
    release = threading.Event()
    mirror = start_mirror(hold=release)
    process = start_process(tmp_path, mirror)
    half = len(PACKED) // 2
    wait_until(lambda: any(part.stat().st_size == half for part in tmp_path.glob("*.part")))
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert not (tmp_path / NAME).exists()
    release.set()
    assert fetched(tmp_path, mirror) == CONTENT
    assert mirror.requests[-1] == f"/{NAME} bytes={half}-"


def test_mnist_without_a_network_names_the_folder_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIGITFORGE_DATA_DIR", raising=False)
    monkeypatch.setenv("DIGITFORGE_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("DIGITFORGE_MIRRORS", "http://127.0.0.1:9/mnist http://127.0.0.1:9/other")
    with pytest.raises(DataError, match=r"--data-dir or DIGITFORGE_DATA_DIR.*--data digits"):
        load("mnist")


def test_the_cache_follows_its_two_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIGITFORGE_DATA_DIR", raising=False)
    monkeypatch.setenv("DIGITFORGE_MIRRORS", "http://127.0.0.1:9/")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("DIGITFORGE_CACHE_DIR", raising=False)
    with pytest.raises(DataError):
        load("mnist")
    assert (tmp_path / "xdg" / "digitforge" / "mnist").is_dir()
    monkeypatch.setenv("DIGITFORGE_CACHE_DIR", str(tmp_path / "own"))
    with pytest.raises(DataError):
        load("mnist")
    assert (tmp_path / "own" / "mnist").is_dir()


@pytest.mark.skipif("DIGITFORGE_DATA_DIR" not in os.environ, reason="needs MNIST: set DIGITFORGE_DATA_DIR")
def test_mnist_comes_from_a_mirror_and_then_from_the_cache(
    tmp_path: Path, start_mirror: StartMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = load("mnist", split="test")
    found = idx.find(Path(os.environ["DIGITFORGE_DATA_DIR"]))
    originals = [found.images["train"], found.labels["train"], found.images["test"], found.labels["test"]]
    packed = [gzip.compress(idx.read_bytes(path), compresslevel=1) for path in originals]
    mirror = start_mirror(files=dict(zip(FILES_OF_MNIST, packed, strict=True)), cut_after=[500_000])
    monkeypatch.delenv("DIGITFORGE_DATA_DIR")
    monkeypatch.setenv("DIGITFORGE_CACHE_DIR", str(tmp_path))
    # Named twice: the first try is cut off, the second completes the file.
    monkeypatch.setenv("DIGITFORGE_MIRRORS", f"{mirror.address} {mirror.address}")
    assert load("mnist", split="test").sha256 == local.sha256
    assert load("mnist", split="train").class_names == tuple("0123456789")
    assert [each.split()[0].lstrip("/") for each in mirror.requests] == [FILES_OF_MNIST[0], *FILES_OF_MNIST]

    cached = tmp_path / "mnist" / FILES_OF_MNIST[2]
    cached.write_bytes(gzip.compress(idx.read_bytes(originals[2])[:-1]))
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: truncated"):
        load("mnist", split="test")


def test_a_mirror_cannot_fill_the_memory(
    tmp_path: Path, start_mirror: Callable[..., Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a mirror sends is decompressed only up to the size of MNIST's files, before its hash is checked."""
    bomb = gzip.compress(bytes(mnist.LARGEST_FILE + 1), 1)
    monkeypatch.setenv(mnist.CACHE_DIR_VARIABLE, str(tmp_path))
    monkeypatch.delenv(mnist.DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setenv(mnist.MIRRORS_VARIABLE, start_mirror(files=dict.fromkeys(FILES_OF_MNIST, bomb)).address)
    with pytest.raises(DataError, match=f"more than {mnist.LARGEST_FILE} bytes after decompression"):
        load("mnist")
    assert [path.name for path in (tmp_path / "mnist").iterdir()] == [".lock"]
