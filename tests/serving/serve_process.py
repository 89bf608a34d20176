"""Run `digitforge serve` in a separate process."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc (Linux)")
SERVE = [sys.executable, "-m", "digitforge", "serve"]


@dataclass
class Process:
    """A running `digitforge serve`."""

    popen: subprocess.Popen[str]
    stderr: Path

    def line(self) -> str:
        """Read the next line of its standard output."""
        assert self.popen.stdout is not None
        ready, _, _ = select.select([self.popen.stdout], [], [], 240)
        assert ready, self.stderr.read_text()
        return self.popen.stdout.readline()

    def end(self, *signals: int) -> int:
        """Send signals and return the exit status."""
        for number in signals:
            self.popen.send_signal(number)
        return self.popen.wait(timeout=60)


@contextmanager
def serving(tmp_path: Path, *arguments: str, **variables: str) -> Iterator[Process]:
    """Run `digitforge serve` with these arguments and environment variables."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"} | variables
    stderr = tmp_path / "stderr.txt"
    with stderr.open("w") as sink:
        popen = subprocess.Popen(
            [*SERVE, *arguments], stdout=subprocess.PIPE, stderr=sink, text=True, env=environment, cwd=tmp_path
        )
    try:
        yield Process(popen, stderr)
    finally:
        popen.kill()
        popen.wait()
        assert popen.stdout is not None
        popen.stdout.close()


def busy_s(process: int) -> float:
    """Processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> float:
    """Resident memory of a process in MB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
