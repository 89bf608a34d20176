"""The root command: what imports may write, and what a missing extra is answered with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NOISE = "import os; os.write(2, b'a note from the depths\\n')\n"


def _import_quietly(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    (folder / "noisy.py").write_text(NOISE + code)
    program = "from digitforge_client.command import import_quietly; import_quietly('noisy'); print('imported')"
    return subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )


def test_what_a_library_writes_while_it_is_imported_is_held_back(tmp_path: Path) -> None:
    done = _import_quietly(tmp_path, "")
    assert (done.stdout, done.stderr) == ("imported\n", "")


def test_what_it_wrote_is_shown_when_the_import_fails(tmp_path: Path) -> None:
    done = _import_quietly(tmp_path, "raise RuntimeError('broken')\n")
    assert done.returncode == 1
    assert "a note from the depths" in done.stderr
    assert "RuntimeError: broken" in done.stderr


def test_a_mistyped_command_is_answered_with_the_nearest() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "digitforge_client.command", "trian"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "'trian'; did you mean 'train'?" in done.stderr
