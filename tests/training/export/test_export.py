"""``digitforge export`` finds the data of the run."""

from __future__ import annotations

import dataclasses
import json
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data import load
from digitforge_training.data.dataset import DataSource
from digitforge_training.export.card import make_card
from digitforge_training.export.export import training_data
from digitforge_training.recipes import resolve
from digitforge_training.runs.folder import RUN_FILE, claim, describe, read_run

RNG = np.random.default_rng(0)
RECIPE = resolve("forge", {"clusters": 1})


def _archive(path: Path, channels: int = 1, n: int = 132) -> Path:
    images = RNG.integers(0, 256, (n, 16, 16, channels), dtype=np.uint8)
    np.savez(path, x=images, y=np.arange(n) % 2)
    return path


def _pictures(folder: Path) -> Path:
    for i in range(12):
        (folder / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / f"class{i % 2}" / f"{i}.png")
    return folder


def _idx(prefix: Path) -> Path:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", 20), ("test", 10)):
        images = RNG.integers(0, 256, (n, 16, 16), dtype=np.uint8)
        header = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in images.shape)
        Path(f"{prefix}-{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(n) % 2).astype(np.uint8)
        header = b"\0\0\x08\x01" + n.to_bytes(4, "big")
        Path(f"{prefix}-{split}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return prefix


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("make", ["archive", "pictures", "idx", "digits"])
def test_a_run_remembers_its_data(make: str, transpose: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources: dict[str, Callable[[], str]] = {
        "archive": lambda: str(_archive(Path("mine.npz"))),
        "pictures": lambda: str(_pictures(Path("pictures"))),
        "idx": lambda: str(_idx(Path("sets/ours"))),
        "digits": lambda: "digits",
    }
    data = load(sources[make](), transpose=transpose)
    claim(tmp_path / "run", describe(RECIPE, data, seed=0, held_out=3), None)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert training_data(tmp_path / "run").sha256 == data.sha256


def test_a_run_remembers_how_its_images_were_fitted(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=RNG.integers(0, 256, (60, 40, 70, 3), dtype=np.uint8), y=np.arange(60) % 2)
    data = load(tmp_path / "mine.npz", size=16, fit="pad", channels="gray", transpose=True, test_share=0.5)
    assert len(data) == 30
    run = claim(tmp_path / "run", describe(RECIPE, data, seed=0), None)
    assert training_data(tmp_path / "run").sha256 == data.sha256
    assert training_data(tmp_path / "run", size=32).images.shape == (30, 32, 32, 1)
    moved = shutil.move(tmp_path / "mine.npz", tmp_path / "moved.npz")
    assert training_data(tmp_path / "run", moved).sha256 == data.sha256
    card = make_card(run, weights=[], images_seen=0, metrics={})
    assert card["training_data"]["fitted"] == {"size": 16, "fit": "pad", "channels": "gray", "transpose": True}


def test_a_run_remembers_the_folder_with_mnist(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    origin = DataSource(source="mnist", data_dir=str(tmp_path / "empty"))
    run = dataclasses.replace(describe(RECIPE, load("digits"), seed=0), origin=origin)
    claim(tmp_path / "run", run, None)
    with pytest.raises(DataError, match=str(tmp_path / "empty")):
        training_data(tmp_path / "run")


def test_data_that_have_moved_are_named_and_their_new_place_is_remembered(tmp_path: Path) -> None:
    old = load(_archive(tmp_path / "old.npz"))
    claim(tmp_path / "run", describe(RECIPE, old, seed=0), None)
    new = shutil.move(tmp_path / "old.npz", tmp_path / "new.npz")
    with pytest.raises(DataError, match=r"old\.npz.*The run .* was trained on this; if it has moved, give its place"):
        training_data(tmp_path / "run")
    assert training_data(tmp_path / "run", new).sha256 == old.sha256
    moved = load(new)
    claim(tmp_path / "run", describe(RECIPE, moved, seed=0), None)  # a resumed training
    assert training_data(tmp_path / "run").sha256 == old.sha256
    by_hand = dataclasses.replace(moved, origin=None)
    run = claim(tmp_path / "run", describe(RECIPE, by_hand, seed=0), None)
    assert (run.origin, run.training_data["name"]) == (moved.origin, "old")


def test_a_run_of_an_earlier_version_needs_its_data_unless_the_name_says_it(tmp_path: Path) -> None:
    for name, data in (("named", load("digits")), ("unnamed", load(_archive(tmp_path / "mine.npz")))):
        claim(tmp_path / name, describe(RECIPE, data, seed=0), None)
        described = json.loads((tmp_path / name / RUN_FILE).read_text())
        del described["origin"]
        (tmp_path / name / RUN_FILE).write_text(json.dumps(described))
    assert training_data(tmp_path / "named").name == "digits"
    with pytest.raises(InvalidInputError, match=r"does not say where its 106 images of mine are; give .* --data"):
        training_data(tmp_path / "unnamed")


def test_a_subset_is_not_taken_for_the_whole_source(tmp_path: Path) -> None:
    claim(tmp_path, describe(RECIPE, load("digits").subset(np.arange(100)), seed=0), None)
    assert read_run(tmp_path).origin is None


def test_the_command_that_a_training_prints_exports_it(tmp_path: Path) -> None:
    _archive(tmp_path / "colour.npz", channels=3)
    tiny = ["network=dense", "generator_widths=8", "discriminator_widths=8", "clusters=1", "batch_size=16"]
    train = [
        "train",
        "--data",
        "colour.npz",
        "--out",
        "runs/colour",
        "--steps",
        "1",
        *(f"--set={each}" for each in tiny),
    ]

    def digitforge(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "digitforge", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)

    trained = digitforge(*train)
    assert trained.returncode == 0, trained.stderr
    split = "colour has no test images of its own: 26 of its 132 images (20%) are set aside as test images"
    assert split in trained.stderr
    assert "on colour (106 images, 2 classes)" in trained.stderr
    _, *export = shlex.split(trained.stderr.splitlines()[-1].removeprefix("done; publish it with: "))
    exported = digitforge(*export)
    assert (exported.returncode, exported.stdout) == (0, "models/digits/1\n"), exported.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_export_killed_at_random_moments_never_publishes_half_a_version(
    trained_run: Path, tmp_path: Path, kills: Callable[[int], range]
) -> None:
    from digitforge_training.export.saved_model import read_card

    def start(to: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "digitforge", "export", str(trained_run), "--to", str(to)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def seconds_until(done: Callable[[], bool], process: subprocess.Popen[bytes]) -> float:
        began_s = time.monotonic()
        while not done() and process.poll() is None:
            time.sleep(0.001)
        assert process.poll() in {None, 0}
        return time.monotonic() - began_s

    def unfinished_in(folder: Path) -> set[Path]:
        return set(folder.glob(".version.*.tmp"))

    whole, base = tmp_path / "whole", tmp_path / "digits"
    with start(whole) as process:
        seconds_until(lambda: bool(unfinished_in(whole)), process)
        writing_s = seconds_until((whole / "1").is_dir, process)
    card = read_card(whole / "1")
    moments, published, unfinished = random.Random(0), 0, 0
    for kill in kills(10):
        before = unfinished_in(base)  # of the previous kill
        with start(base) as process:
            seconds_until(lambda: bool(unfinished_in(base) - before), process)  # noqa: B023
            # The last kills come too late: the version is published.
            time.sleep((kill + moments.random()) / len(kills(10)) * 1.3 * writing_s)
            process.kill()
        numbers = sorted(int(path.name) for path in base.glob("[0-9]*"))
        published = max(numbers, default=0)
        assert numbers == list(range(1, published + 1))
        unfinished += len(unfinished_in(base))
    assert unfinished
    with start(base) as process:
        pass
    assert {path.name for path in base.iterdir()} == {str(number + 1) for number in range(published + 1)}
    files = {path.relative_to(whole / "1") for path in (whole / "1").rglob("*")}
    for path in base.iterdir():
        assert read_card(path) == card
        assert {each.relative_to(path) for each in path.rglob("*")} == files
