"""The command `digitforge`: hidden output of imports, mistyped commands, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOISE = "import os; os.write(2, b'note of a library\\n')\n"


def _import_quietly(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    (folder / "noisy.py").write_text(NOISE + code)
    program = "from digitforge_client.common.command import import_quietly; import_quietly('noisy'); print('imported')"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def test_output_of_an_import_is_hidden(tmp_path: Path) -> None:
    done = _import_quietly(tmp_path, "")
    assert (done.stdout, done.stderr) == ("imported\n", "")


def test_output_of_a_failed_import_is_shown(tmp_path: Path) -> None:
    done = _import_quietly(tmp_path, "raise RuntimeError('broken')\n")
    assert done.returncode == 1
    assert "note of a library" in done.stderr
    assert "RuntimeError: broken" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_an_import_works_with_a_closed_standard_error() -> None:
    """A program that uses digitforge as a library may have closed it."""
    program = "from digitforge_client.common.command import import_quietly; import_quietly('wave'); print('imported')"
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, program], stdout=subprocess.PIPE, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"imported\n")


def test_the_error_of_a_mistyped_command_suggests_a_similar_one() -> None:
    done = subprocess.run([sys.executable, "-m", "digitforge", "trian"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'trian'; did you mean 'train'?" in done.stderr


@contextmanager
def _waiting(body: str, before: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run the command with a subcommand of this body, until the body calls `wait`."""
    program = f"""
import os, signal, sys, time, click
from digitforge_client.common import command
{before}
def wait():
    print("waits", flush=True)
    while True:
        time.sleep(0.01)
def work():
{body}
command.LazyGroup.get_command = lambda self, context, name: click.Command(name, callback=work)
sys.argv = ["digitforge", "work"]
command.main()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "waits\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_like_ctrl_c(number: int) -> None:
    with _waiting("    try: wait()\n    finally: print('cleaned up')") as process:
        process.send_signal(number)
        assert process.communicate(timeout=60) == ("cleaned up\n", "\ndigitforge: interrupted\n")
        assert process.returncode == 128 + number


def test_an_interrupted_command_closes_what_is_open_and_skips_the_teardown() -> None:
    before = """
import atexit
class Slow:
    def __del__(self):
        print("torn down")
slow = Slow()
"""
    with _waiting("    atexit.register(print, 'closed')\n    wait()", before) as process:
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[0] == "closed\n"
        assert process.returncode == 143


def test_a_duplicate_signal_is_ignored_and_a_later_signal_ends_at_once() -> None:
    body = """
    try: wait()
    except KeyboardInterrupt:
        signal.raise_signal(signal.SIGTERM)
        wait()
"""
    with _waiting(body) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"  # from the second wait()
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        assert process.returncode == 143


def test_a_closed_terminal_may_send_any_number_of_signals() -> None:
    body = """
    try: wait()
    except KeyboardInterrupt:
        time.sleep(1.5)  # longer than duplicate signals take
        signal.raise_signal(signal.SIGHUP)
        print("still here", flush=True)
"""
    with _waiting(body) as process:
        process.send_signal(signal.SIGHUP)
        assert process.communicate(timeout=60)[0] == "still here\n"


def test_a_signal_during_a_finalizer_is_not_lost() -> None:
    """Python cannot raise an exception from a finalizer."""
    body = """
    class Interrupted:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)
    Interrupted()
    wait()
"""
    with _waiting(body) as process:
        assert process.communicate(timeout=60) == ("", "\ndigitforge: interrupted\n")
        assert process.returncode == 143


def test_signals_that_nohup_ignores_stay_ignored() -> None:
    with _waiting("    wait()", before="signal.signal(signal.SIGHUP, signal.SIG_IGN)") as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[1] == "\ndigitforge: interrupted\n"
        assert process.returncode == 143  # from the second signal


def test_signals_during_a_long_computation_are_announced_and_the_second_one_ends_it() -> None:
    # The computation takes minutes in C. Python cannot raise KeyboardInterrupt meanwhile. If the signal comes just
    # before, the computation begins again. So the block must wait for signals as soon as it says so.
    body = """
    import hashlib
    from digitforge_client.common import interrupts
    with interrupts.announcing(lambda: print('stopping', flush=True)):
        said = False
        while True:
            try:
                if not said: print('waits', flush=True)
                hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)
            except KeyboardInterrupt: said = True
"""
    with _waiting(body) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping\n"
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        assert process.returncode == 143


def test_a_signal_that_is_held_back_comes_after_the_block() -> None:
    body = """
    from digitforge_client.common import interrupts
    try:
        with interrupts.held_back():
            signal.raise_signal(signal.SIGTERM)
            print('completed', file=sys.stderr)
        print('not reached', file=sys.stderr)
    finally:
        wait()
"""
    with _waiting(body) as process:
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (143, "", "completed\n")
