"""The command `digitforge experiment`, as a user runs it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from digitforge_evaluation.cli.experiment import experiment
from digitforge_evaluation.experiment.plan import Plan

SMALL = [
    "run",
    "--data",
    "digits",
    "--classifier",
    "svm",
    "--steps",
    "4",
    "--n-per-class",
    "1,2",
    "--subsets",
    "2",
]


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "digitforge", "experiment", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(experiment, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_run_status_and_report_agree(tmp_path: Path, exported_model: Path) -> None:
    out = str(tmp_path / "e")
    printed = _run(*SMALL, "--arms", "real,classical,classical+gan", "--model", str(exported_model), "--out", out)
    assert "classical+gan (oracle)" in printed
    assert "With 1 real image per class (10 in all)" in printed.replace("\n", " ")
    assert json.loads(_run("status", out, "--json")) == {"finished": 12, "planned": 12, "seconds_left": 0.0}
    assert _run("status", out) == "12 of 12 cells are finished\n"
    before = (tmp_path / "e" / "report.html").read_bytes()
    analysis = json.loads(_run("report", out, "--out", str(tmp_path / "elsewhere"), "--json"))
    assert len(analysis["arms"]) == 6
    assert (tmp_path / "elsewhere" / "report.html").read_bytes() == before
    again = _run(*SMALL, "--arms", "real,classical,classical+gan", "--model", str(exported_model), "--out", out)
    assert again == printed


def test_without_a_generator_the_other_arms_run(tmp_path: Path) -> None:
    analysis = json.loads(_run(*SMALL, "--json", "--out", str(tmp_path)))
    assert {result["arm"] for result in analysis["arms"]} == {"real", "oversampled", "noise", "smote", "classical"}


def test_output_fits_forty_columns_and_has_no_color(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    printed = _run(*SMALL, "--arms", "real,classical", "--out", str(tmp_path))
    lines = printed.splitlines()
    assert max(len(line) for line in lines if not line.startswith("Report:")) <= 40
    assert "\x1b" not in printed


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--arms", "real,gan"], 2, "needs generated digits"),
        (["--arms", "flip"], 2, "expected some of real, oversampled"),
        (["--strict", "forj", "--data", "/nowhere"], 2, "did you mean 'forge'"),  # said before any data is asked for
        (["--n-per-class", "1,x"], 2, "whole numbers separated by commas"),
        (["--n-per-class", "9999"], 2, "9999 images per class"),
        (["--server", "127.0.0.1:1", "--model", "x"], 2, "--server or --model"),
        (["--server", "127.0.0.1:1"], 3, "127.0.0.1:1"),
        (["--model", "/nowhere"], 4, "/nowhere"),
    ],
)
def test_bad_input_gets_one_line_and_its_exit_status(
    arguments: list[str], status: int, message: str, tmp_path: Path
) -> None:
    result = _command(*SMALL, "--out", str(tmp_path / "e"), *arguments)
    assert result.returncode == status, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "e" / "report.html").exists()


def test_another_experiment_in_the_folder_is_refused(tmp_path: Path) -> None:
    _run(*SMALL, "--arms", "real", "--out", str(tmp_path))
    result = _command(*SMALL, "--arms", "real", "--out", str(tmp_path), "--seed", "1")
    assert result.returncode == 2
    assert "whose seed is 0, this one's is 1" in result.stderr


def test_a_folder_without_an_experiment_is_named(tmp_path: Path) -> None:
    for command in ("status", "report"):
        result = _command(command, str(tmp_path))
        assert result.returncode == 4
        assert "results.jsonl" in result.stderr


def test_the_commands_defaults_are_the_plans() -> None:
    (run,) = (command for name, command in experiment.commands.items() if name == "run")
    options = {option.name: option for option in run.params}
    for field in dataclasses.fields(Plan):
        if field.name in options and field.name != "arms":
            option, default = options[field.name], getattr(Plan(), field.name)
            given = option.type_cast_value(click.Context(run), option.get_default(click.Context(run)))
            assert given == default, field.name
