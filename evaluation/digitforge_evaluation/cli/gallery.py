"""``digitforge gallery``: compare recipes on one page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from digitforge_client.common.command import import_quietly, resumable
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.cli.experiment_options import FOLDER
from digitforge_evaluation.cli.tables import print_table
from digitforge_training.cli.recipes import complete_recipe
from digitforge_training.data.cli import LAYOUTS, data_options
from digitforge_training.recipes import RECIPES, resolve

if TYPE_CHECKING:
    from digitforge_evaluation.gallery.exhibits import Exhibit, Shown
    from digitforge_evaluation.images.sources import SavedGenerator
    from digitforge_training.data.sources import Choice

#: Default lengths of recipes that would take much longer than two hours on two cores.
_STEPS = {"dcgan-rmsprop": "2000"}
_FULL = "full"


@click.command()
@click.option(
    "--recipe",
    "names",
    multiple=True,
    shell_complete=complete_recipe,
    help="Recipe to show; may be repeated.  [default: all]",
)
@click.option("--runs", type=FOLDER, default="runs/gallery", show_default=True, help="Folder for the training runs.")
@click.option(
    "--out",
    type=FOLDER,
    default="gallery",
    show_default=True,
    help="Folder for the page. An earlier page in it is replaced.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="FOLDER",
    shell_complete=FOLDER.shell_complete,
    help="Use the exported generator in FOLDER, or in its newest version, instead of training its recipe; may be "
    "repeated.",
)
@click.option(
    "--steps",
    "lengths",
    multiple=True,
    metavar="RECIPE=STEPS",
    help="Train RECIPE for STEPS steps; `full` is the recipe's own number. May be repeated. The default is 2000 for "
    "dcgan-rmsprop, and `full` for all other recipes.",
)
@click.option("--no-training", is_flag=True, help="Measure existing runs as they are. Leave out recipes without a run.")
@data_options(default="mnist", describe=f"Images to train on and compare with: {LAYOUTS}")
@click.option(
    "--n", type=click.IntRange(min=100), default=10_000, show_default=True, help="Images to measure per recipe."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**21 - 1),
    default=0,
    show_default=True,
    help="Random seed of trainings and measured images.",
)
def gallery(  # noqa: PLR0917 - click passes by name
    names: tuple[str, ...],
    runs: Path,
    out: Path,
    models: tuple[str, ...],
    lengths: tuple[str, ...],
    no_training: bool,
    data: Choice,
    n: int,
    seed: int,
) -> None:
    """Compare recipes on one page, with samples, training animations and a table of metrics.

    Trains or loads each recipe, and measures all of them in the same way. All recipes at their default lengths take
    many hours on two cores. Ctrl-C loses no finished work: the folder of the runs keeps it, and the same command
    continues.

    \b
    Examples:
      digitforge gallery --recipe dense-bn --recipe bp-gan
      digitforge gallery --model serving/models/digits
      digitforge gallery --steps dcgan-rmsprop=full --steps mlp=20000
    """
    from digitforge_client.common.versions import newest_version

    chosen = {name: resolve(name) for name in names or RECIPES}
    folders = [newest_version(_model_folder(value, chosen)) for value in models]
    steps = _STEPS | _pairs(lengths, "--steps", chosen)
    if folders:
        import_quietly("tensorflow")  # slow, so only after the arguments are checked
    loaded = _load(folders, chosen)
    recipes = {
        name: resolve(name, {"steps": steps[name]}) if steps.get(name, _FULL) != _FULL else recipe
        for name, recipe in chosen.items()
        if name in loaded or not no_training or (runs / name).is_dir()
    }
    if not recipes:
        raise InvalidInputError(
            f"the folder {runs} holds no run of {', '.join(chosen)}; leave out --no-training to train, or name another "
            "folder with --runs"
        )
    import_quietly("tensorflow")
    from rich.console import Console

    from digitforge_evaluation.features.choice import features_called
    from digitforge_evaluation.gallery.exhibits import Settings, measure_export, train_and_measure
    from digitforge_evaluation.gallery.page import write_gallery
    from digitforge_evaluation.quality.comparison import RealData

    real = RealData.load(data.source or "mnist", **data.options)
    if real.train.split_note:
        click.echo(real.train.split_note, err=True)
    shown: list[Shown] = []
    status = Console(stderr=True).status("starting")
    with resumable(lambda: "finished work is kept, and the same command continues"), status:
        network = features_called(train=real.train, progress=status.update)
        settings = Settings(real=real, network=network, n=n, seed=seed, on_progress=status.update)
        for name, recipe in recipes.items():
            run_dir = runs / name
            if name in loaded:
                one = measure_export(loaded[name], settings, record=run_dir / "exported.json")
            else:
                one = train_and_measure(recipe, settings, run_dir=run_dir, training=not no_training)
            shown.append(one)
    page = write_gallery(out, shown, real)
    _print([one.exhibit for one in shown])
    click.echo(page)


def _model_folder(value: str, recipes: Iterable[str]) -> Path:
    """The folder that ``--model`` names. One version of digitforge still accepts RECIPE=FOLDER."""
    name, equals, folder = value.partition("=")
    if not equals or name not in list(recipes) or Path(value).exists():
        return Path(value)
    click.echo(
        f"digitforge: --model {value} is now --model {folder}; the next version will not accept RECIPE=FOLDER", err=True
    )
    return Path(folder)


def _load(folders: list[Path], chosen: Iterable[str]) -> dict[str, SavedGenerator]:
    """Load exported generators. The keys are the names of the recipes on their cards."""
    if not folders:
        return {}
    from digitforge_evaluation.gallery.exhibits import recipe_of
    from digitforge_evaluation.images.sources import SavedGenerator

    loaded: dict[str, SavedGenerator] = {}
    for folder in folders:
        source = SavedGenerator(folder)
        name = recipe_of(source).name
        if name not in list(chosen):
            raise InvalidInputError(f"the generator in {folder} has recipe {name}; choose it too, with --recipe {name}")
        if name in loaded:
            raise InvalidInputError(f"two of the generators have recipe {name}; leave out one --model")
        loaded[name] = source
    return loaded


def _pairs(values: tuple[str, ...], option: str, known: Iterable[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or name not in list(known):
            raise click.BadParameter(
                f"{value!r}; expected RECIPE=…, with RECIPE one of {', '.join(known)}", param_hint=f"'{option}'"
            )
        pairs[name] = text
    return pairs


def _print(exhibits: list[Exhibit]) -> None:
    from rich.console import Console

    from digitforge_evaluation.gallery.page import TITLES, cells

    # A terminal only has room for the most important columns.
    shown = [TITLES.index(title) for title in ("steps", "feature distance", "÷ training floor", "precision", "recall")]
    rows = [(exhibit.name, *(cells(exhibit)[place] for place in shown)) for exhibit in exhibits]
    print_table(Console(stderr=True), ("recipe", *(TITLES[place] for place in shown)), rows, ruled=True)
