"""Runs the command `digitforge` inside the test process. A new interpreter would take half a second per call."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import pytest

from digitforge_client.common.command import main


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `digitforge ARGUMENTS`, and return its output and exit status."""
    words = ["digitforge", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", words):  # noqa: SIM117
        with pytest.raises(SystemExit) as ended:
            main()
    return subprocess.CompletedProcess(words, int(ended.value.code or 0), out.getvalue(), err.getvalue())


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start a command in its own process. It reacts to Ctrl-C."""
    # a shell that runs the tests in the background makes child processes ignore Ctrl-C
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "import runpy; runpy.run_module('digitforge', run_name='__main__')"
    words = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """Check that a command printed one line of error and no result, and return the error."""
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    return result.stderr
