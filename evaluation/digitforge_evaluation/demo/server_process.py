"""Start and stop the embedded server as a separate process."""

from __future__ import annotations

import json
import os
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

START_TIMEOUT_S: Final = 180.0  # on a busy machine, importing TensorFlow alone can take half a minute
STOP_TIMEOUT_S: Final = 20.0


@contextmanager
def serving(folder: Path | None = None) -> Iterator[str]:
    """Run ``digitforge serve`` on a free port of this machine while the block runs.

    Args:
        folder: folder of a generator's numbered versions; None for the shipped generator.

    Yields:
        The target, ``host:port``.

    Raises:
        DataError: the folder holds no version. The server would wait for one.
        ServerUnavailableError: the server did not start. The message contains its output.
    """
    if folder is not None and not any(folder.glob("[0-9]*/saved_model.pb")):
        raise DataError(
            f"{folder}: no generator here; expected folders named 1, 2 … that contain a saved_model.pb. "
            "`digitforge export` makes them"
        )
    # If this process is killed, the server ends too.
    program = (
        f"from digitforge_client.common import command, parallel; parallel.exit_with({os.getpid()}); command.main()"
    )
    command = [sys.executable, "-c", program, "serve", "--port", "0", "--json"]
    if folder is not None:
        command += ["--model", str(folder)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr:
        # In its own session, the server does not get Ctrl-C. This process gets it, and stops the server.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
        )
        try:
            yield _target(process, stderr)
        except BaseException:
            process.kill()  # after Ctrl-C or an error, nobody waits for requests in flight
            raise
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _target(process: subprocess.Popen[str], stderr: IO[str]) -> str:
    """Wait until the server is ready. Then it prints its address, which is returned."""
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
            continue  # a different line
    raise _failed(f"it was not ready after {START_TIMEOUT_S:.0f} s", stderr)


def _pass_on(stdout: Any, lines: queue.Queue[str]) -> None:
    """Read all lines, so that the server never blocks on a full pipe."""
    for line in stdout:
        lines.put(line)


def _failed(how: str, stderr: IO[str]) -> ServerUnavailableError:
    stderr.seek(0)
    written = stderr.read()[-2000:].strip() or "nothing"
    return ServerUnavailableError(f"the embedded server did not start: {how}. It wrote:\n{written}")
