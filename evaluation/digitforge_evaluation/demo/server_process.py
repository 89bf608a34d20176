"""The embedded server as a process of its own, started and stopped as a user would."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from digitforge_client.errors import DataError, ServerUnavailableError

START_TIMEOUT_S: Final = 180.0  # TensorFlow alone may take half a minute on a busy machine
STOP_TIMEOUT_S: Final = 20.0


@contextmanager
def serving(model_base_path: Path | None = None) -> Iterator[str]:
    """Run ``digitforge serve`` on a free port of this machine while the block runs.

    Args:
        model_base_path: folder with the generator's numbered versions; None for the shipped one.

    Yields:
        The target, ``host:port``.

    Raises:
        DataError: the folder holds no version, for which the server would wait.
        ServerUnavailableError: the server did not start; the message holds what it wrote.
    """
    if model_base_path is not None and not any(model_base_path.glob("[0-9]*/saved_model.pb")):
        raise DataError(
            f"{model_base_path}: no generator here; expected folders numbered 1, 2 … that hold a saved_model.pb, as "
            "`digitforge export` makes them"
        )
    command = [sys.executable, "-m", "digitforge", "serve", "--port", "0", "--json"]
    if model_base_path is not None:
        command += ["--model-base-path", str(model_base_path)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr:
        # Its own session: Ctrl-C reaches this process alone, which then stops the server in order.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
        )
        try:
            yield _target(process, stderr)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _target(process: subprocess.Popen[str], stderr: IO[str]) -> str:
    """Wait for the line with which the server says that it is ready."""
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_pass_on, args=(process.stdout, lines), daemon=True).start()
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        try:
            line = lines.get(timeout=0.2)
        except queue.Empty:
            if process.poll() is not None:
                raise _failed(f"it ended with exit status {process.returncode}", stderr) from None
            continue
        try:
            return str(json.loads(line)["grpc_target"])
        except (ValueError, KeyError, TypeError):
            continue  # some other line
    raise _failed(f"it was not ready after {START_TIMEOUT_S:.0f} s", stderr)


def _pass_on(stdout: Any, lines: queue.Queue[str]) -> None:
    """Read to the end, so that the server never waits for a reader."""
    for line in stdout:
        lines.put(line)


def _failed(how: str, stderr: IO[str]) -> ServerUnavailableError:
    stderr.seek(0)
    said = stderr.read()[-2000:].strip() or "nothing"
    return ServerUnavailableError(f"the embedded server did not start: {how}. It wrote:\n{said}")
