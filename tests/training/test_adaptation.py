"""`digitforge.adapt` starts from an exported generator, and its run resumes and exports like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from small_recipes import DENSE

from digitforge_client.contract import image_hashes
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.adaptation import ADAPTATION, adapt, read_parent, recipe_for
from digitforge_training.cli.adapt import adapt as adapt_command
from digitforge_training.data import Dataset
from digitforge_training.export.export import export
from digitforge_training.export.saved_model import DISCRIMINATOR_FILE, read_card
from digitforge_training.gan.parent import Parent
from digitforge_training.gan.trainer import State, Trainer
from digitforge_training.recipes import Recipe, resolve
from digitforge_training.runs import checkpoints, loop
from digitforge_training.runs.folder import read_run

pytestmark = pytest.mark.usefixtures("eagerly")

TINY = DENSE | {"clusters": 2, "batch_size": 8, "steps": 3}


@pytest.fixture(scope="module")
def theirs(digits: Dataset) -> Dataset:
    return digits.subset(np.arange(120))


@pytest.fixture(scope="module")
def mine(digits: Dataset) -> Dataset:
    return digits.subset(np.arange(120, 220))


@pytest.fixture(scope="module")
def version(theirs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported generator with clusters."""
    folder = tmp_path_factory.mktemp("parent")
    loop.train(resolve("forge", TINY), theirs, run_dir=folder / "run")
    return export(folder / "run", data=theirs, to=folder / "digits")


@pytest.fixture(scope="module")
def parent(version: Path) -> Parent:
    return read_parent(version.parent)


def _recipe(parent: Parent, **fields: float) -> Recipe:
    return recipe_for(parent, batch_size=8, images_per_checkpoint=8, images_per_sheet=64, **fields)


def _part(state: State, network: str) -> list[np.ndarray]:
    return [array for name, array in sorted(state.items()) if name.startswith(f"{network}/")]


def _changed(one: list[np.ndarray], other: list[np.ndarray]) -> list[bool]:
    return [not np.array_equal(a, b) for a, b in zip(one, other, strict=True)]


def test_an_export_holds_everything_that_an_adaptation_needs(parent: Parent, version: Path, theirs: Dataset) -> None:
    state = checkpoints.load(checkpoints.newest(version.parents[1] / "run") or Path())
    assert not any(_changed(list(parent.generator), _part(state, "averaged")))
    assert parent.discriminator is not None
    assert not any(_changed(list(parent.discriminator), _part(state, "discriminator")))
    assert set(parent.seen) == set(image_hashes(theirs.images))
    assert parent.card == read_card(version)
    assert (version / DISCRIMINATOR_FILE).stat().st_size < 8 << 20


def test_a_training_starts_from_the_networks_of_its_parent(parent: Parent, mine: Dataset) -> None:
    state = Trainer(_recipe(parent, steps=4), mine, seed=0, parent=parent).state()
    for network, weights in {
        "generator": parent.generator,
        "averaged": parent.generator,
        "discriminator": parent.discriminator,
    }.items():
        assert not any(_changed(list(weights or ()), _part(state, network))), network


def test_only_the_discriminator_learns_during_its_head_start(parent: Parent, mine: Dataset) -> None:
    trainer = Trainer(_recipe(parent, steps=4, discriminator_head_start=2), mine, seed=0, parent=parent)
    trainer.run(2)
    state = trainer.state()
    for network in ("generator", "averaged"):
        assert not any(_changed(list(parent.generator), _part(state, network)))
    assert any(_changed(list(parent.discriminator or ()), _part(state, "discriminator")))
    trainer.run(1)
    assert any(_changed(list(parent.generator), _part(trainer.state(), "generator")))


def test_fixed_layers_do_not_learn(parent: Parent, mine: Dataset) -> None:
    trainer = Trainer(_recipe(parent, steps=2, generator_fixed=3, discriminator_fixed=1), mine, seed=0, parent=parent)
    trainer.run(2)
    generator = _changed(list(parent.generator), _part(trainer.state(), "generator"))
    discriminator = _changed(list(parent.discriminator or ()), _part(trainer.state(), "discriminator"))
    # The clusters have integer counts, and the embeddings of class and cluster a kernel each.
    assert not any(generator[:3])
    assert any(generator[3:])
    assert not any(discriminator[:2])  # the first layer has a kernel and a bias
    assert any(discriminator[2:])


def test_a_generator_without_its_discriminator_gives_the_new_one_a_head_start(
    version: Path, mine: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(version, tmp_path / "1")
    (tmp_path / "1" / DISCRIMINATOR_FILE).unlink()
    parent = read_parent(tmp_path)
    assert parent.discriminator is None
    assert recipe_for(parent).discriminator_head_start > 0
    assert recipe_for(read_parent(version)).discriminator_head_start == 0
    adapt(parent, mine, out=tmp_path / "run", recipe=_recipe(parent, steps=1))
    assert checkpoints.newest(tmp_path / "run")


def test_a_stopped_adaptation_resumes_as_if_it_had_not_been_stopped(
    parent: Parent, mine: Dataset, tmp_path: Path
) -> None:
    recipe = _recipe(parent, steps=3, discriminator_head_start=1)

    def stop(_: loop.Progress) -> None:
        raise KeyboardInterrupt

    adapt(parent, mine, out=tmp_path / "whole", recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        adapt(parent, mine, out=tmp_path / "stopped", recipe=recipe, on_progress=stop)
    adapt(parent, mine, out=tmp_path / "stopped", recipe=recipe)
    whole, stopped = (checkpoints.load(checkpoints.newest(tmp_path / name) or Path()) for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys()
    assert [name for name in whole if not np.array_equal(whole[name], stopped[name])] == []


def test_the_export_names_the_parent_and_knows_the_images_of_both(
    parent: Parent, theirs: Dataset, mine: Dataset, tmp_path: Path
) -> None:
    run = adapt(parent, mine, out=tmp_path / "run", recipe=_recipe(parent, steps=1), judge="kernel", held_out=20)
    adapted = read_parent(export(run, to=tmp_path / "mine"))
    assert adapted.card["parent"] == {key: parent.card[key] for key in ("generator_id", "recipe", "training_data")}
    assert adapted.card["training_data"]["images"] == 80
    assert adapted.card["metrics"]["judge kernel"]["n"] >= 1000
    assert set(image_hashes(theirs.images)) < set(adapted.seen)
    assert len(set(adapted.seen) & set(image_hashes(mine.images))) == 80
    again = adapt(adapted, theirs, out=tmp_path / "again", recipe=_recipe(adapted, steps=1))
    assert read_run(again.folder).parent == adapted.described


def test_a_run_with_another_parent_is_another_run(parent: Parent, mine: Dataset, tmp_path: Path) -> None:
    recipe = _recipe(parent, steps=1)
    adapt(parent, mine, out=tmp_path, recipe=recipe)
    other = Parent(
        card=parent.card | {"generator_id": "0" * 16},
        generator=parent.generator,
        discriminator=parent.discriminator,
        seen=parent.seen,
    )
    with pytest.raises(DataError, match="holds another run"):
        adapt(other, mine, out=tmp_path, recipe=recipe)
    with pytest.raises(DataError, match="holds another run"):
        loop.train(recipe, mine, run_dir=tmp_path)


def test_the_judge_may_prefer_the_parent(parent: Parent, theirs: Dataset, tmp_path: Path) -> None:
    recipe = _recipe(parent, steps=3, learning_rate=1e-30)  # too small to change anything, so nothing gets better
    adapt(parent, theirs, out=tmp_path, recipe=recipe, judge="kernel", held_out=24)
    best = checkpoints.best(tmp_path)
    assert best is not None
    assert best.images_seen == 0


def test_images_that_do_not_fit_the_generator_are_refused(parent: Parent, mine: Dataset, tmp_path: Path) -> None:
    def changed(images: np.ndarray, names: tuple[str, ...]) -> Dataset:
        return Dataset(images=images, labels=mine.labels, class_names=names, name="changed", split="train")

    for images, names in (
        (mine.images[:, 2:-2, 2:-2], mine.class_names),
        (mine.images, tuple("abcdefghij")),
    ):
        with pytest.raises(InvalidInputError, match="expected the same"):
            adapt(parent, changed(images, names), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_shows_the_parent_and_the_held_out_images(version: Path, tmp_path: Path) -> None:
    arguments = [str(version), "--data", "digits", "--out", str(tmp_path / "run"), "--set", "gamma=0.25", "--dry-run"]
    done = CliRunner().invoke(adapt_command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    described = json.loads(done.stdout)
    assert described["parent"]["generator_id"] == read_card(version)["generator_id"]
    assert described["recipe"]["gamma"] == 0.25
    assert (described["held_out"], described["judge"]) == (288, "kernel")
    assert "1438 are training images" in done.stderr
    assert not (tmp_path / "run").exists()
    help_text = " ".join(CliRunner().invoke(adapt_command, ["--help"]).output.split())
    assert f"Number of training steps. [default: {ADAPTATION['steps']}]" in help_text
    done = CliRunner().invoke(adapt_command, [str(version), "--out", str(tmp_path / "run")])
    assert (done.exit_code, "Missing option '--data'" in done.stderr) == (2, True)
