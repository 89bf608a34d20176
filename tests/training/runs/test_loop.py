"""The loop: the run folder, resuming to the same weights, and unsuitable data."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence
from small_recipes import DENSE

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data import Dataset, load
from digitforge_training.gan.trainer import on_gpu
from digitforge_training.recipes import Recipe, resolve
from digitforge_training.runs import checkpoints, loop, views
from digitforge_training.runs.folder import read_run
from digitforge_training.runs.loop import Progress, train

pytestmark = pytest.mark.usefixtures("eagerly")

TINY = {"clusters": 1, "width": 8, "generator_blocks": 1, "discriminator_blocks": 1, "batch_size": 32}


def _tiny(**overrides: str | float) -> Recipe:
    return resolve("forge", {**TINY, "images_per_checkpoint": 64, "images_per_sheet": 64, **overrides})


def _quick(**overrides: str | float) -> Recipe:
    return resolve("forge", {**DENSE, **overrides})


def _frames(gif: Path) -> int:
    with Image.open(gif) as opened:
        return len(list(ImageSequence.Iterator(opened)))


def test_a_run_folder_holds_recipe_checkpoints_statistics_sheets_and_the_gif(digits: Dataset, tmp_path: Path) -> None:
    reports: list[Progress] = []
    run = train(_tiny(steps=5), digits, run_dir=tmp_path, seed=3, on_progress=reports.append)
    assert read_run(tmp_path) == run
    assert run.training_data["images"] == len(digits)
    assert [path.stem for path in sorted((tmp_path / "checkpoints").iterdir())] == ["000000000128", "000000000160"]
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [64, 128, 160] == [report.images_seen for report in reports]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert [report.statistics["roughness"] > 0 for report in reports] == [True] * 3  # each had a sheet
    assert lines[0]["coverage"] == pytest.approx(reports[0].statistics["coverage"], abs=1e-5)
    walks = Image.open(tmp_path / "walks.png")
    assert walks.height == 10 * 30 + 2
    assert walks.width > 12 * 30 + 2  # names on the left
    assert len(list((tmp_path / "tensorboard").glob("*.tfevents.*"))) == 1
    assert (
        _frames(tmp_path / "training.gif") == len(list((tmp_path / "sheets").glob("*.png"))) == 4
    )  # 0, 64, 128 and 160 images


def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(digits: Dataset, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.images_seen == 128:
            raise StopError

    recipe = _quick(steps=6)
    train(recipe, digits, run_dir=tmp_path / "whole")
    with pytest.raises(StopError):
        train(recipe, digits, run_dir=tmp_path / "parts", on_progress=stop)
    # The report at 128 images was written, its checkpoint was not. Both are made again from 64 images.
    assert checkpoints.newest(tmp_path / "parts").stem == "000000000064"  # type: ignore[union-attr]
    train(recipe, digits, run_dir=tmp_path / "parts")
    whole, parts = (checkpoints.load(checkpoints.newest(tmp_path / name)) for name in ("whole", "parts"))  # type: ignore[arg-type]
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)
    images = [
        [json.loads(line)["images"] for line in (tmp_path / name / "stats.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    assert images[0] == images[1]


def test_checkpoints_by_time_lie_between_two_reports_and_do_not_change_the_training(
    digits: Dataset, tmp_path: Path
) -> None:
    recipe = _quick(steps=10, images_per_checkpoint=10_000, images_per_sheet=160)
    train(recipe, digits, run_dir=tmp_path / "whole")

    class StopError(Exception):
        pass

    saved: list[tuple[int, int]] = []

    def stop(progress: Progress) -> None:
        newest = checkpoints.newest(tmp_path / "parts")
        saved.append((progress.images_seen, checkpoints.images_of(newest) if newest else 0))
        raise StopError

    for save_every_s in (1e9, 1e-9, 1e-9):
        with pytest.raises(StopError):
            train(recipe, digits, run_dir=tmp_path / "parts", save_every_s=save_every_s, on_progress=stop)
    # By number of images, there is no checkpoint. By time, there is one after every step but the reported one.
    assert saved == [(160, 0), (160, 128), (160, 128)]
    train(recipe, digits, run_dir=tmp_path / "parts")
    whole, parts = (checkpoints.load(checkpoints.newest(tmp_path / name)) for name in ("whole", "parts"))  # type: ignore[arg-type]
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)
    with pytest.raises(InvalidInputError, match="save_every_s is 0; expected seconds above 0"):
        train(recipe, digits, run_dir=tmp_path / "parts", save_every_s=0)


def test_another_recipe_seed_or_data_set_does_not_go_into_the_same_folder(digits: Dataset, trained_run: Path) -> None:
    recipe = read_run(trained_run).recipe
    for other in (
        {"recipe": dataclasses.replace(recipe, learning_rate=1.0)},
        {"seed": 1},
        {"dataset": digits.subset(np.arange(500))},
    ):
        with pytest.raises(DataError, match="another run"):
            train(**{"recipe": recipe, "dataset": digits, "run_dir": trained_run, **other})  # type: ignore[arg-type]


def test_what_is_left_to_the_device_is_decided_and_recorded_where_a_run_begins(digits: Dataset, tmp_path: Path) -> None:
    assert _quick(steps=1).jit is None
    train(_quick(steps=1, bfloat16="true"), digits, run_dir=tmp_path)
    train(_quick(steps=2), digits, run_dir=tmp_path)  # resumes with the same settings
    recipe = read_run(tmp_path).recipe
    assert (recipe.steps, recipe.jit, recipe.bfloat16) == (2, on_gpu(), True)
    with pytest.raises(DataError, match="another run"):
        train(_quick(steps=2, bfloat16="false"), digits, run_dir=tmp_path)


def test_a_finished_run_is_not_trained_again(digits: Dataset, trained_run: Path) -> None:
    before = checkpoints.newest(trained_run).stat().st_mtime_ns  # type: ignore[union-attr]
    reports: list[Progress] = []
    train(read_run(trained_run).recipe, digits, run_dir=trained_run, on_progress=reports.append)
    assert not reports
    assert checkpoints.newest(trained_run).stat().st_mtime_ns == before  # type: ignore[union-attr]


def test_a_run_folder_with_the_former_names_of_fields_goes_on(digits: Dataset, tmp_path: Path) -> None:
    recipe = _quick(steps=2)
    train(recipe, digits, run_dir=tmp_path / "now")
    shutil.copytree(tmp_path / "now", tmp_path / "then")
    former = {
        "optimizer": "optimiser",
        "latent_distribution": "latent_law",
        "generator_normalization": "generator_normalisation",
        "discriminator_normalization": "discriminator_normalisation",
        "normalization_momentum": "normalisation_momentum",
    }
    described = json.loads((tmp_path / "then" / "recipe.json").read_text())
    described["recipe"] = {former.get(field, field): value for field, value in described["recipe"].items()}
    assert described["recipe"].keys() >= set(former.values())
    (tmp_path / "then" / "recipe.json").write_text(json.dumps(described))
    newest = checkpoints.newest(tmp_path / "then")
    assert newest is not None
    state = {name.replace("optimizer", "optimiser"): value for name, value in checkpoints.load(newest).items()}
    assert "generator_optimiser/000" in state
    checkpoints.write_npz(newest, state)

    longer = dataclasses.replace(recipe, steps=3)
    for name in ("now", "then"):
        train(longer, digits, run_dir=tmp_path / name)
    now, then = (checkpoints.load(checkpoints.newest(tmp_path / name)) for name in ("now", "then"))  # type: ignore[arg-type]
    assert now.keys() == then.keys()
    for name, value in now.items():
        np.testing.assert_array_equal(value, then[name], err_msg=name)


def test_a_finished_run_is_prolonged_by_more_steps(digits: Dataset, tmp_path: Path) -> None:
    recipe = _quick(steps=4)
    train(recipe, digits, run_dir=tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "twin")
    longer = dataclasses.replace(recipe, steps=8)
    run = train(longer, digits, run_dir=tmp_path / "run")
    assert (run.earlier_steps, run.recipe.steps) == ((4,), 8)
    assert read_run(tmp_path / "run").earlier_steps == (4,)
    lines = [json.loads(line)["images"] for line in (tmp_path / "run" / "stats.jsonl").read_text().splitlines()]
    assert lines == [64, 128, 192, 256]

    class StopError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.images_seen == 192:
            raise StopError

    # An interrupt changes neither the history nor the weights.
    with pytest.raises(StopError):
        train(longer, digits, run_dir=tmp_path / "twin", on_progress=stop)
    assert train(longer, digits, run_dir=tmp_path / "twin").earlier_steps == (4,)
    one, two = (checkpoints.load(checkpoints.newest(tmp_path / name)) for name in ("run", "twin"))  # type: ignore[arg-type]
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], err_msg=name)


def test_a_constant_learning_rate_makes_a_prolonged_training_that_of_all_its_steps(
    digits: Dataset, tmp_path: Path
) -> None:
    recipe = _quick(steps=4, schedule="constant", gamma_end=0.1, images_per_checkpoint=128)
    longer = dataclasses.replace(recipe, steps=8)
    for steps, name in ((recipe, "parts"), (longer, "parts"), (longer, "whole")):
        train(steps, digits, run_dir=tmp_path / name)
    parts, whole = (checkpoints.load(checkpoints.newest(tmp_path / name)) for name in ("parts", "whole"))  # type: ignore[arg-type]
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], err_msg=name)


def test_only_a_finished_run_is_prolonged_and_none_is_shortened(digits: Dataset, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(_quick(steps=6), digits, run_dir=tmp_path, on_progress=stop)
    with pytest.raises(DataError, match=r"not finished; finish them with --steps 6"):
        train(_quick(steps=8), digits, run_dir=tmp_path)
    with pytest.raises(DataError, match=r"6 steps, which is more than --steps 4; use --steps 6 or more"):
        train(_quick(steps=4), digits, run_dir=tmp_path)
    assert train(_quick(steps=6), digits, run_dir=tmp_path).earlier_steps == ()


def test_a_class_without_images_is_named(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no image of class 3"):
        train(_tiny(), digits.subset(np.flatnonzero(digits.labels != 3)), run_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_image_is_too_few(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="at least 2"):
        train(_tiny(), digits.subset([0]), run_dir=tmp_path)


def test_a_folder_that_is_a_file_is_one_clear_error(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another folder"):
        train(_tiny(), digits, run_dir=tmp_path / "file")


def test_temporary_files_of_a_killed_process_are_removed(digits: Dataset, tmp_path: Path) -> None:
    train(_quick(steps=2), digits, run_dir=tmp_path)
    left = [tmp_path / "checkpoints/.9.npz.0a.tmp", tmp_path / "sheets/.9.png.0a.tmp", tmp_path / ".recipe.json.0a.tmp"]
    for path in left:
        path.touch()
    (tmp_path / "models" / ".1.tmp").mkdir(parents=True)  # of a running export, perhaps
    train(_quick(steps=2), digits, run_dir=tmp_path)
    assert [path.name for path in tmp_path.rglob(".*")] == [".1.tmp"]


def test_a_damaged_checkpoint_is_named_with_the_remedy(digits: Dataset, tmp_path: Path) -> None:
    train(_quick(steps=2), digits, run_dir=tmp_path)
    newest = checkpoints.newest(tmp_path)
    assert newest is not None
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(DataError, match=f"{newest.name}.*remove it"):
        train(_quick(steps=2), digits, run_dir=tmp_path)


def test_a_recipe_that_asks_for_equilibrium_stops_there_and_stays_stopped(digits: Dataset, tmp_path: Path) -> None:
    # Almost any accuracy counts as equilibrium here, so the training reaches it within a few rounds.
    recipe = resolve("bp-gan", {"equilibrium": 0.49, "batch_size": 32, "learning_rate": 1e-3, "steps": 200})
    reports: list[Progress] = []
    train(recipe, digits, run_dir=tmp_path, on_progress=reports.append)
    *before, last = reports
    assert last.at_equilibrium
    assert 0.01 <= last.statistics["accuracy_generated"] <= 0.99
    assert not any(report.at_equilibrium for report in before)
    assert int(checkpoints.newest(tmp_path).stem) == last.images_seen < 200 * recipe.images_per_step  # type: ignore[union-attr]
    assert json.loads((tmp_path / "stats.jsonl").read_text().splitlines()[-1])["ended"] == "equilibrium"
    reports.clear()
    train(recipe, digits, run_dir=tmp_path, on_progress=reports.append)
    assert not reports


def test_an_interrupt_at_the_equilibrium_does_not_lose_it(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = resolve("bp-gan", {"equilibrium": 0.49, "batch_size": 32, "learning_rate": 1e-3, "steps": 200})
    draw_sheet = views.draw_sheet

    def interrupt(trainer: Any, *arguments: Any) -> None:
        if 0 < trainer.images_seen < 200 * recipe.images_per_step:
            signal.raise_signal(signal.SIGINT)
        draw_sheet(trainer, *arguments)

    monkeypatch.setattr(loop, "draw_sheet", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(recipe, digits, run_dir=tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    ended = json.loads((tmp_path / "stats.jsonl").read_text().splitlines()[-1])
    assert ended["ended"] == "equilibrium"
    reports: list[Progress] = []
    train(recipe, digits, run_dir=tmp_path, on_progress=reports.append)
    assert not reports
    assert checkpoints.images_of(checkpoints.newest(tmp_path)) == ended["images"]  # type: ignore[arg-type]


def test_an_unconditional_recipe_needs_no_image_of_each_class(digits: Dataset, tmp_path: Path) -> None:
    recipe = resolve("dense-bn", {"generator_widths": "8", "discriminator_widths": "8", "steps": 2})
    run = train(recipe, digits.subset(np.flatnonzero(digits.labels != 3)), run_dir=tmp_path)
    assert run.class_names == ()


def test_color_images_of_an_odd_size_and_labels_with_gaps_simply_work(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 17, 17, 3)).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", x=images, y=np.arange(40) % 2 * 4 + 3)
    run = train(_quick(steps=2), load(str(tmp_path / "mine.npz")), run_dir=tmp_path / "run")
    assert (run.class_names, run.image_shape) == (("3", "7"), (17, 17, 3))
    walks = Image.open(tmp_path / "run" / "walks.png")
    assert walks.height == 2 * 19 + 2
    assert walks.width > 12 * 19 + 2  # names on the left
    assert _frames(tmp_path / "run" / "training.gif") == 2


@pytest.mark.parametrize("conditioning", ["both", "none"])
def test_a_walk_leads_from_one_generated_digit_to_another(conditioning: str, digits: Dataset, tmp_path: Path) -> None:
    from digitforge_training.gan.trainer import Trainer

    few = digits.subset(np.flatnonzero(digits.labels < 3))
    trainer = Trainer(_quick(conditioning=conditioning, latent_distribution="uniform"), few, seed=0)
    names, rows = (digits.class_names, 10) if conditioning == "both" else ((), 10)
    views.draw_walks(trainer, names, tmp_path / "walks.png")
    picture = np.asarray(Image.open(tmp_path / "walks.png")).astype(int)[:, -12 * 30 - 2 :]  # without names
    cells = picture[:-2, :-2].reshape(rows, 30, 12, 30)[:, 2:, :, 2:].transpose(0, 2, 1, 3)
    ends = views.draw_latents(trainer, views._WALKS_SEED, 2 * rows)
    labels = np.arange(rows)
    for step, latents, of in ((0, ends[::2], labels), (11, ends[1::2], (labels + 1) % 10)):
        there = trainer.sample(of, latents)[..., 0].astype(int)
        assert np.abs(cells[:, step] - there).max() <= 1
    assert np.abs(np.diff(cells, axis=1)).max(axis=(2, 3)).min() > 0  # every step changes the image


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A 12 MiB disk."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this user may not mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_without_room_for_the_checkpoints_is_one_error_before_training(
    digits: Dataset, small_disk: Path
) -> None:
    reports: list[Progress] = []
    wide = _quick(generator_widths="256", discriminator_widths="256", steps=2)
    with pytest.raises(DataError, match=r"MiB free, but the run needs \d+ MiB; free some space, or choose another"):
        train(wide, digits, run_dir=small_disk / "run", on_progress=reports.append)
    assert not reports


def test_a_disk_that_fills_up_is_one_error_and_what_was_kept_stays(digits: Dataset, small_disk: Path) -> None:
    def fill(progress: Progress) -> None:
        if progress.images_seen == 128:
            with (small_disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass

    recipe = _quick(steps=5)
    with pytest.raises(DataError, match="No space left on device"):
        train(recipe, digits, run_dir=small_disk / "run", on_progress=fill)
    (small_disk / "filler").unlink()
    train(recipe, digits, run_dir=small_disk / "run")  # goes on
    lines = [json.loads(line) for line in (small_disk / "run" / "stats.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == [64, 128, 160]
