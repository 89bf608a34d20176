"""Tests of the gallery: it trains, loads, measures and shows recipes, resumes, and refuses wrong arguments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import commands
import pytest
from PIL import Image

from digitforge_training.data import load
from digitforge_training.recipes import resolve
from digitforge_training.runs.loop import train


def _gallery(*arguments: object, data: str | Path = "digits") -> subprocess.CompletedProcess[str]:
    return commands.run("gallery", "--data", data, *arguments)


@pytest.mark.usefixtures("eagerly")
def test_a_gallery_shows_trained_and_loaded_recipes_and_measures_nothing_twice(
    exported_model: Path, few_npz: Path, tmp_path: Path
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    narrow: dict[str, str | float] = {
        "generator_widths": "8",
        "discriminator_widths": "8",
        "batch_size": 32,
        "steps": 4,
        "jit": "false",
    }
    train(resolve("dense-bn", narrow), load(str(few_npz)), run_dir=runs / "dense-bn")
    arguments = [
        "--recipe",
        "dense-bn",
        "--recipe",
        "forge",
        "--model",
        exported_model,
        "--no-training",
        "--runs",
        runs,
        "--out",
        out,
        "--n",
        "200",
    ]
    done = _gallery(*arguments, data=few_npz)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out / "index.html")

    dense, forge = json.loads((out / "gallery.json").read_text())
    assert (dense["name"], dense["images_seen"], forge["name"], forge["minutes"]) == ("dense-bn", 128, "forge", None)
    assert dense["minutes"] > 0
    assert dense["parameters"] == 101 * 8 + 2 * 8 + 9 * 784  # one hidden layer, its normalization, the image
    assert "agreement" not in dense["figures"]
    assert dense["figures"]["distance"]["n"] == 200
    page = (out / "index.html").read_text()
    assert page.count("data:image/gif") == 1  # the loaded generator has no training animation
    assert page.count("data:image/png") == 2
    table = (out / "table.md").read_text()
    assert "| `dense-bn generator_widths=8 discriminator_widths=8 jit=false` | 4 of 30\u00a0000 |" in table
    assert Image.open(out / "dense-bn.png").size == Image.open(out / "forge.png").size

    measured = (runs / "dense-bn" / "exhibit.json").stat().st_mtime_ns
    for name in (str(2**63), "1.old"):  # not version numbers
        (runs / "dense-bn" / "models" / name).mkdir()
    exports = sorted((runs / "dense-bn" / "models").iterdir())
    assert _gallery(*arguments, data=few_npz).returncode == 0
    assert (runs / "dense-bn" / "exhibit.json").stat().st_mtime_ns == measured
    assert sorted((runs / "dense-bn" / "models").iterdir()) == exports


@pytest.mark.usefixtures("eagerly")
def test_a_gallery_trains_missing_recipes(few_npz: Path, tmp_path: Path) -> None:
    folders = ["--runs", tmp_path / "runs", "--out", tmp_path / "out"]
    done = _gallery("--recipe", "bp-gan", "--steps", "bp-gan=2", "--n", "200", *folders, data=few_npz)
    assert done.returncode == 0, done.stderr
    (exhibit,) = json.loads((tmp_path / "out" / "gallery.json").read_text())
    assert exhibit["images_seen"] <= 2 * 1_000
    assert (tmp_path / "runs" / "bp-gan" / "training.gif").is_file()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--recipe", "forj"], 2, "did you mean 'forge'"),
        (["--recipe", "mlp", "--steps", "mlp"], 2, "expected RECIPE="),
        (["--recipe", "mlp", "--steps", "forge=3"], 2, "one of mlp"),
        (["--recipe", "mlp", "--steps", "mlp=few"], 2, "expected a number"),
        (["--recipe", "mlp", "--model", "no/such/model"], 4, "no/such/model"),
        (["--no-training", "--runs", "no/such/runs"], 2, "--no-training"),
    ],
)
def test_a_wrong_argument_gives_one_line_and_its_exit_status_at_once(
    arguments: list[str], status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # refusals must not wait for its import
    done = _gallery(*arguments)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
