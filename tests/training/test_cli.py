"""The commands train, export and recipes, run as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from digitforge_training.cli.export import _read_metrics
from digitforge_training.export import model_card

COMMAND = [sys.executable, "-m", "digitforge"]


def _digitforge(*arguments: str | Path | int, command: list[str] = COMMAND) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_train_then_export_prints_the_folders_on_standard_output(tmp_path: Path) -> None:
    run, base = tmp_path / "run", tmp_path / "models" / "digits"
    tiny = [f"--set={field}" for field in ("width=8", "generator_blocks=1", "discriminator_blocks=1", "batch_size=32")]
    done = _digitforge("train", "--data", "digits", "--steps", 2, "--seed", 5, "--out", run, *tiny)
    assert (done.returncode, done.stdout.strip()) == (0, str(run)), done.stderr
    assert "359 of its 1797 images (20%) are set aside as test images, and 1438 are training images" in done.stderr
    publish = done.stderr.splitlines()[-1].removeprefix("done; publish it with: ")
    assert publish == f"digitforge export {run} --to models/digits"
    report = tmp_path / "report.json"
    floor = {"mean": 0.5, "standard_deviation": 0.1, "n": 1000, "held_out": 359, "repeats": 3}
    figure = {"value": 1.5, "n": 1000, "interval": [1.25, 1.75], "training_floor": floor, "unseen_floor": None}
    report.write_text(json.dumps({"figures": [{"name": "fd[ours]@1k", "key": "distance"} | figure]}))
    done = _digitforge("export", run, "--to", base, "--metrics", report, "--expansion", "auto", "--json")
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert (card["path"], card["seed"], card["images_seen"]) == (str(base / "1"), 5, 64)
    del figure["unseen_floor"]
    assert card["metrics"] == {"fd[ours]@1k": figure}
    text = (base / "1" / "MODEL_CARD.md").read_text("utf-8")
    assert text == model_card.model_card(card)
    assert "| `fd[ours]@1k` | 1.5 [1.25, 1.75] | 0.5 ± 0.1 (n = 1000) | – | 1000 |" in text
    (chosen,) = [line.split() for line in done.stderr.splitlines() if line.endswith("chosen")]
    assert card["expansion"] == {"factor": float(chosen[1]), "judge": "digitnet-64"}


def test_a_dry_run_prints_the_resolved_recipe_at_once_and_writes_nothing(
    without_tensorflow: list[str], tmp_path: Path
) -> None:
    done = _digitforge(
        "train",
        "--data",
        "digits",
        "--out",
        tmp_path / "run",
        "--set",
        "gamma=0.25",
        "--jit",
        "--dry-run",
        command=without_tensorflow,
    )
    assert done.returncode == 0, done.stderr
    described = json.loads(done.stdout)
    assert described["recipe"]["gamma"] == 0.25
    assert described["recipe"]["jit"] is True
    assert described["training_data"]["name"] == "digits"
    assert described["origin"] == {
        "source": "digits",
        "data_dir": None,
        "size": None,
        "fit": "crop",
        "channels": None,
        "transpose": False,
        "test_share": None,
    }
    assert "digits has no test images of its own: 359 of its 1797 images (20%) are set aside" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["train"], 2, "--out"),
        (["train", "--out", "x", "--recipe", "forj"], 2, "did you mean 'forge'"),
        (["train", "--out", "x", "--recipe", "dcgan"], 2, "did you mean 'dcgan-rmsprop'"),
        (["train", "--out", "x", "--set", "gamma"], 2, "FIELD=VALUE"),
        (["train", "--out", "x", "--set", "gama=1"], 2, "did you mean 'gamma'"),
        (["train", "--out", "x", "--steps", "0"], 2, "--steps"),
        (["train", "--out", "x", "--save-every", "0m"], 2, "expected a time above 0, such as 90s, 10m or 2h"),
        (["train", "--out", "x", "--save-every", "10"], 2, "expected a time above 0, such as 90s, 10m or 2h"),
        (["train", "--out", "x", "--save-every", "-1h"], 2, "expected a time above 0, such as 90s, 10m or 2h"),
        (["train", "--out", "x", "--data", "no/such/folder"], 4, "no/such/folder"),
        (["train", "--out", "x", "--set", "qqq=1"], 2, "`digitforge recipes show forge` lists them"),
        (["export", "no/such/run", "--to", "x", "--data", "digits"], 4, "digitforge train"),
        (["export", "no/such/run", "--to", "x"], 4, "digitforge train"),
        # Before any download:
        (["export", "no/such/run", "--to", "x", "--data", "no/such/data"], 4, "is not a run folder"),
        (["export", "no/such/run", "--to", "x", "--expansion", "much"], 2, "neither a number nor 'auto'"),
        (["export", "no/such/run", "--to", "x", "--expansion", "0"], 2, "expected a number above 0"),
        (["recipes", "show", "forj"], 2, "did you mean 'forge'"),
    ],
)
def test_a_wrong_argument_gets_one_line_and_its_exit_status_at_once(
    arguments: list[str], status: int, message: str, without_tensorflow: list[str]
) -> None:
    done = _digitforge(*arguments, command=without_tensorflow)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_recipes_lists_and_shows_every_recipe() -> None:
    listing = _digitforge("recipes")
    names = [line.split()[0] for line in listing.stdout.splitlines()]
    assert "forge" in names
    shown = json.loads(_digitforge("recipes", "show", "forge", "--json").stdout)
    assert shown["name"] == "forge"
    described = _digitforge("recipes", "show", "mlp").stdout
    assert "0.02" in described
    assert "--set learning_rate=0.0002" in described  # the fault and its fix


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_metrics_are_read_in_the_encodings_that_shells_write(tmp_path: Path, encoding: str) -> None:
    """PowerShell writes redirected output as UTF-16, or with a byte-order mark."""
    figures = [{"name": "fd[digitnet-64]@1k", "value": 1.5, "n": 1000}]
    (tmp_path / "report.json").write_text(json.dumps({"figures": figures}), encoding=encoding)
    assert _read_metrics(tmp_path / "report.json") == {"fd[digitnet-64]@1k": {"value": 1.5, "n": 1000}}


@pytest.mark.parametrize(
    "wrong",
    [{"value": None}, {"value": "good"}, {"n": None}, {"interval": [1.0]}, {"training_floor": {"mean": "low", "n": 1}}],
)
def test_a_report_without_the_numbers_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    figure = {"name": "fd", "value": 1.5, "n": 1000} | wrong
    (tmp_path / "report.json").write_text(json.dumps({"figures": [figure]}))
    with pytest.raises(click.BadParameter, match="is not a report"):
        _read_metrics(tmp_path / "report.json")
