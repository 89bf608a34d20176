"""Experiments whose cells run on the workers of a Dask cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from digitforge_evaluation.cli.experiment import experiment

ARGUMENTS = (
    "run",
    "--data",
    "digits",
    "--classifier",
    "svm",
    "--steps",
    "4",
    "--n-per-class",
    "2",
    "--subsets",
    "2",
    "--arms",
    "real,smote,classical",
    "--json",
)


def test_an_experiment_on_a_cluster_gives_the_same_numbers_and_can_be_continued_here(
    scheduler: str, tmp_path: Path
) -> None:
    def run(*arguments: str) -> list[object]:
        result = CliRunner().invoke(experiment, [*ARGUMENTS, *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return [arm["confusion"] for arm in json.loads(result.stdout)["arms"]]

    on_cluster = run("--scheduler", scheduler, "--out", str(tmp_path / "a"))
    here = run("--out", str(tmp_path / "b"))
    assert on_cluster == here
    stored = (tmp_path / "a" / "results.jsonl").read_text()
    assert run("--out", str(tmp_path / "a")) == here
    assert (tmp_path / "a" / "results.jsonl").read_text() == stored


def test_no_scheduler_is_one_line_that_says_how_to_start_one(tmp_path: Path) -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "digitforge",
            "experiment",
            *ARGUMENTS,
            "--scheduler",
            "tcp://127.0.0.1:1",
            "--out",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in result.stderr
