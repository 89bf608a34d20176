"""The examples run unchanged."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "client" / "examples"


def run(server: Any, *command: str | Path) -> str:
    environment = os.environ | {
        "DIGITFORGE_SERVER": server.target,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, env=environment, timeout=240
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_scikit_learn_learns_a_rare_class(server: Any) -> None:
    pytest.importorskip("sklearn")
    example = EXAMPLES / "sklearn_fit_resample.py"
    arguments = ("--data", "digits", "--rare", "3", "--subsets", "3", "--server", server.target)
    before, after, legend = run(server, sys.executable, example, *arguments).splitlines()
    assert before.startswith("real only              recall of class 3: 0.0")
    assert after.startswith("with synthetic digits  recall of class 3: ")
    assert "over 3 training sets" in legend


def test_keras_trains_on_mixed_batches(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs in this process because a new one takes seconds to import TensorFlow."""
    pytest.importorskip("keras")
    example = EXAMPLES / "keras_mixed_batches.py"
    monkeypatch.setattr(sys, "argv", [str(example), "--server", server.target, "--epochs", "1"])
    runpy.run_path(str(example), run_name="__main__")
    assert "accuracy on 899 real images" in capsys.readouterr().out


def test_pytorch_trains_on_synthetic_digits(server: Any) -> None:
    pytest.importorskip("torch")
    example = EXAMPLES / "pytorch_dataloader.py"
    output = run(server, sys.executable, example, "--server", server.target, "--n", "500", "--epochs", "1")
    assert "accuracy on 1797 real images" in output


def test_digits_can_go_through_a_pipe(server: Any) -> None:
    lines = run(server, EXAMPLES / "shell_pipe.sh", "300").splitlines()
    assert [line.split()[0] for line in lines] == [str(digit) for digit in range(10)]


def test_examples_are_short() -> None:
    examples = [path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")]
    assert len(examples) >= 3
    assert all(len(path.read_text().splitlines()) < 60 for path in examples)
