"""Tests of the command ``digitforge experiment``."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol, cast

import click
import pytest
from click.testing import CliRunner

from digitforge_client.common.command import main
from digitforge_evaluation.cli.experiment import experiment
from digitforge_evaluation.experiment.plan import Plan
from digitforge_evaluation.experiment.store import RESULTS

SMALL = ["run", "--data=digits", "--classifier=svm", "--steps=4", "--n-per-class=1,2", "--subsets=2"]


class Command(Protocol):
    """Runs ``digitforge experiment``. Returns exit status, standard output and standard error."""

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]: ...


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command's entry point in this process."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["digitforge", "experiment", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
        return cast(int, done.value.code), *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    exported_model: Path,
    blank_plots: Callable[[], AbstractContextManager[None]],
) -> tuple[list[str], Path, str]:
    """The arguments, the folder and the standard output of a finished experiment with a generator."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = [*SMALL, "--arms=real,classical,classical+gan", f"--model={exported_model}", f"--out={folder}"]
    with blank_plots():
        result = CliRunner().invoke(experiment, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return arguments, folder, result.stdout


@pytest.mark.usefixtures("with_blank_plots")
def test_run_status_and_report_agree(
    finished: tuple[list[str], Path, str], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder, printed = finished
    assert "classical+gan (oracle)" in printed
    assert "With 1 real image per class (10 in total)" in printed.replace("\n", " ")
    status, out, _ = command("status", folder, "--json")
    assert (status, json.loads(out)) == (0, {"finished": 12, "planned": 12, "seconds_left": 0.0})
    assert command("status", folder) == (0, "12 of 12 cells are finished\n", "")
    monkeypatch.setenv("COLUMNS", "40")
    status, out, _ = command("report", folder, "--out", tmp_path)
    assert (tmp_path / "report.html").read_bytes() == (folder / "report.html").read_bytes()
    assert max(len(line) for line in out.splitlines() if not line.startswith("Report:")) <= 40
    assert "\x1b" not in out
    verdicts = [text[text.index("With 1 real") : text.index("Report:")].split() for text in (out, printed)]
    assert verdicts[0] == verdicts[1]


@pytest.mark.usefixtures("with_blank_plots")
def test_without_a_generator_the_other_arms_run(command: Command, tmp_path: Path) -> None:
    status, out, _ = command(*SMALL, "--n-per-class=1", "--subsets=1", "--json", "--out", tmp_path)
    assert status == 0
    analysis = json.loads(out)
    assert [arm["arm"] for arm in analysis["arms"]] == ["real", "oversampled", "noise", "smote", "classical"]
    assert {comparison["baseline"] for comparison in analysis["comparisons"]} == {"real"}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--arms", "real,gan"], 2, "needs generated images"),
        (["--arms", "flip"], 2, "expected one or more of real, oversampled"),
        (["--strict", "forj", "--data", "/nowhere"], 2, "did you mean 'forge'"),  # before any data is loaded
        (["--n-per-class", "1,x"], 2, "whole numbers separated by commas"),
        (["--n-per-class", "9999"], 2, "at least 9999 images per class"),
        (["--server", "127.0.0.1:1", "--model", "x"], 2, "a server and a model are given"),
        (["--n-per-class", ",".join(map(str, range(1, 27))), "--subsets=10", "--strict=forge"], 2, "--subsets 11"),
        (["--server", "127.0.0.1:1"], 3, "127.0.0.1:1"),
        (["--model", "/nowhere"], 4, "/nowhere"),
    ],
)
def test_bad_input_gives_one_line_and_its_exit_status(
    arguments: list[str], status: int, message: str, command: Command, tmp_path: Path
) -> None:
    returned, _, error = command(*SMALL, "--out", tmp_path / "e", *arguments)
    assert returned == status, error
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "e" / "report.html").exists()


def test_another_experiment_in_the_folder_is_refused(finished: tuple[list[str], Path, str], command: Command) -> None:
    status, _, error = command(*finished[0], "--seed=1")
    assert status == 2
    assert "its seed is 0, but yours is 1" in error


def test_a_folder_without_an_experiment_is_named(command: Command, tmp_path: Path) -> None:
    for name in ("status", "report"):
        status, _, error = command(name, tmp_path)
        assert status == 4
        assert "results.jsonl" in error


def test_a_missing_scheduler_gives_one_line_of_advice(tmp_path: Path) -> None:
    """Uses a separate process, so that nothing else writes to standard error."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "digitforge",
            "experiment",
            *SMALL,
            "--scheduler=tcp://127.0.0.1:1",
            f"--out={tmp_path}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 3
    split, advice = done.stderr.splitlines()
    assert split.startswith("digits has no test images of its own: 359 of its 1797 images")
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in advice


def test_the_command_has_the_same_defaults_as_the_plan() -> None:
    (run,) = (command for name, command in experiment.commands.items() if name == "run")
    options = {option.name: option for option in run.params}
    for field in dataclasses.fields(Plan):
        if field.name in options and field.name != "arms":
            option, default = options[field.name], getattr(Plan(), field.name)
            given = option.type_cast_value(click.Context(run), option.get_default(click.Context(run)))
            assert given == default, field.name


#: The command. It takes SIGINT even if the tests run in the background, where shells ignore it.
INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from digitforge_client.common.command import main; main()"
)


@contextmanager
def _started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", INTERRUPTIBLE, "experiment", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _cells(folder: Path) -> dict[str, dict[str, object]]:
    """The stored cells by key, without their times."""
    if not (folder / RESULTS).exists():
        return {}
    content = (folder / RESULTS).read_text()
    cells = map(json.loads, content[: content.rfind("\n") + 1].splitlines()[1:])
    return {json.dumps(cell.pop("key")): cell for cell in cells if cell.pop("seconds") >= 0}


def _workers(process: subprocess.Popen[str]) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(folder.name)) == process.pid and b"LokyProcess" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_that_the_same_command_continues_and_leaves_no_worker(number: int, tmp_path: Path) -> None:
    arguments = [*SMALL, "--subsets=200", "--arms=real,classical", "--jobs=2", f"--out={tmp_path}"]
    with _started(*arguments) as process:
        while not _cells(tmp_path):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)  # to this process alone
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        while _workers(process):
            time.sleep(0.02)
    *_, stopped, empty, last = errors.splitlines()
    said = re.fullmatch(r"stopped; (\d+) of 800 cells are finished and kept, and the same command continues", stopped)
    assert said, errors
    # The signal may come between the storage of a cell and its report.
    assert int(said[1]) in {len(_cells(tmp_path)), len(_cells(tmp_path)) - 1}
    assert (empty, last) == ("", "digitforge: interrupted")
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_experiment_killed_at_random_moments_ends_with_the_cells_of_an_uninterrupted_one(
    exported_model: Path, tmp_path: Path, kills: Callable[[int], range]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subsets = 10 * len(kills(10))
    arguments = [
        *("run", "--data=digits", "--classifier=svm", "--steps=20", "--n-per-class=5", f"--subsets={subsets}"),
        *("--arms=real,classical,gan", f"--model={exported_model}", "--jobs=2"),
    ]
    with _started(*arguments, f"--out={whole}") as process:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    moments = random.Random(0)
    for kill in kills(10):
        wanted = len(_cells(parts)) + moments.randrange(1, 10)
        with _started(*arguments, f"--out={parts}") as process:
            while len(_cells(parts)) < wanted:
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.3))
            assert process.poll() is None
            # Sometimes only the command is killed, and sometimes its workers too.
            (os.killpg if kill % 2 else os.kill)(process.pid, signal.SIGKILL)
    with _started(*arguments, f"--out={parts}") as process:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert len(_cells(whole)) == 3 * subsets
    assert _cells(parts) == _cells(whole)
    assert (parts / "report.json").exists()
