"""The commands ``digitforge train``, ``digitforge adapt``, ``digitforge export`` and ``digitforge recipes``."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem
from rich.console import Console

from digitforge_client.cli.track_option import track_option
from digitforge_client.common.command import Group, import_quietly, resumable
from digitforge_client.common.extras import check_extras
from digitforge_client.common.interrupts import announcing
from digitforge_client.common.json_text import parse_json
from digitforge_client.contract import MODEL_NAME
from digitforge_training.data.cli import data_options
from digitforge_training.export import model_card
from digitforge_training.recipes import FIXED, RECIPES, resolve, written
from digitforge_training.recipes.descriptions import field_descriptions

if TYPE_CHECKING:
    from digitforge_training.data.sources import Choice
    from digitforge_training.export.expansion import Expansion
    from digitforge_training.runs.folder import Run
    from digitforge_training.runs.loop import Progress

_PATH = click.Path(path_type=Path)
C = TypeVar("C", bound=Callable[..., Any])


def complete_recipe(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The recipes that a shell suggests."""
    return [
        CompletionItem(name, help=recipe.summary) for name, recipe in RECIPES.items() if name.startswith(incomplete)
    ]


class _Duration(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """A time such as ``90s``, ``10m`` or ``2h``, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", str(value).strip())
        seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
        if seconds <= 0:
            self.fail(f"{value!r}; expected a time above 0, such as 90s, 10m or 2h", param, ctx)
        return seconds


def _run_options(*, keep: str, judge: str, held_out: int | None) -> Callable[[C], C]:
    """The options that every command has that trains, with its own defaults.

    Args:
        keep: default of ``--keep``.
        judge: default of ``--judge``.
        held_out: default of ``--held-out``; None: a fifth of the images.
    """
    options = (
        click.option(
            "--out", type=_PATH, required=True, help="Run folder. Repeat the command to resume a stopped run."
        ),
        click.option(
            "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all random numbers."
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="FIELD=VALUE",
            help="Override a field of the recipe. Repeatable.",
        ),
        click.option(
            "--keep",
            type=click.Choice(["last", "best"]),
            default=keep,
            show_default=True,
            help="Checkpoint to export later: the last one, or the one that the judge scores best on held-out images.",
        ),
        click.option(
            "--judge", default=judge, show_default=True, help="Judge that scores the checkpoints with --keep best."
        ),
        click.option(
            "--held-out",
            type=click.IntRange(min=1),
            default=held_out,
            show_default=True if held_out else "a fifth",
            help="Number of training images to hold out for the judge with --keep best.",
        ),
        click.option(
            "--save-every",
            "save_every_s",
            type=_Duration(),
            default="10m",
            show_default=True,
            metavar="TIME",
            help="Write a checkpoint at least this often: 90s, 10m, 2h. The recipe's "
            "images_per_checkpoint adds others.",
        ),
        click.option("--dry-run", is_flag=True, help="Print the resolved recipe and the data set without training."),
    )

    def add(command: C) -> C:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.command()
@click.option(
    "--recipe",
    "recipe_name",
    default="forge",
    show_default=True,
    shell_complete=complete_recipe,
    help="Recipe to train. `digitforge recipes` lists them.",
)
@data_options(default="mnist")
@_run_options(keep="last", judge="digitnet-64", held_out=5_000)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Number of training steps. Default: the recipe's. A larger number extends a finished run.",
)
@track_option("parameters, statistics and sheets")
@click.option("--jit/--no-jit", default=None, help="Compile the training step with XLA. Default: as the recipe says.")
def train(  # noqa: PLR0917 – click passes by name
    recipe_name: str,
    data: Choice,
    out: Path,
    steps: int | None,
    seed: int,
    overrides: tuple[str, ...],
    keep: str,
    judge: str,
    held_out: int,
    save_every_s: float,
    track: str | None,
    jit: bool | None,
    dry_run: bool,
) -> None:
    """Train a generator on labeled images, or with forge-unlabeled on images without labels.

    \b
    Examples:
      digitforge train --out runs/forge
      digitforge train --recipe forge-small --data mine.npz --out runs/mine
      digitforge train --recipe forge-unlabeled --data scans --size 28 --out runs/scans
      digitforge train --recipe forge-small --data photos --size 32 --out runs/photos
      digitforge train --steps 200 --set learning_rate=1e-4 --out runs/try
      digitforge train --track mlflow --out runs/forge

    Ctrl-C (exit status 130) and SIGTERM (143) write a checkpoint. Repeat the command to resume from it. Publish the
    finished run with `digitforge export RUN --to FOLDER`.
    """
    check_extras("training", "`digitforge train`")
    from digitforge_training import data as data_module
    from digitforge_training.runs.folder import describe
    from digitforge_training.runs.train import train as begin

    recipe = resolve(recipe_name, _parse_overrides(overrides, steps=steps, jit=jit))
    dataset = data_module.load(data.source or "mnist", **data.options, need_labels=recipe.conditional)
    choice: dict[str, Any] = {"judge": judge, "held_out": held_out} if keep == "best" else {}
    if dataset.split_note:
        click.echo(dataset.split_note, err=True)
    run = describe(recipe, dataset, seed=seed, **choice)
    if dry_run:
        click.echo(json.dumps(run.as_dict(), indent=2))
        return

    with _stoppable(run, out) as show_progress:
        trained = begin(
            recipe,
            dataset,
            out=out,
            seed=seed,
            save_every_s=save_every_s,
            track=track,
            on_progress=show_progress,
            **choice,
        )
    click.echo(f"{out}")
    if recipe.equilibrium and trained.last is not None:
        how = "at equilibrium" if trained.last.at_equilibrium else "without an equilibrium"
        click.echo(f"ended {how}, after {trained.last.images_seen // recipe.images_per_step} rounds", err=True)
    _say_done(out)


@click.command()
@click.argument("generator", type=_PATH, required=False)
@data_options(default=None)
@_run_options(keep="best", judge="kernel", held_out=None)
@click.option("--steps", type=click.IntRange(min=1), help="Number of training steps.  [default: 150]")
def adapt(  # noqa: PLR0917 – click passes by name
    generator: Path | None,
    data: Choice,
    out: Path,
    steps: int | None,
    seed: int,
    overrides: tuple[str, ...],
    keep: str,
    judge: str,
    held_out: int | None,
    save_every_s: float,
    dry_run: bool,
) -> None:
    """Fine-tune an exported generator on a few images of your own.

    GENERATOR is a folder that `digitforge export` wrote, or the folder of its versions. Default: the generator that
    comes with digitforge. Your images need its size and its classes. A hundred images take a few minutes.

    \b
    Examples:
      digitforge adapt --data mine.npz --out runs/mine
      digitforge adapt models/digits --data photos --size 28 --channels gray --out runs/photos

    Ctrl-C and SIGTERM write a checkpoint, as in `digitforge train`. Repeat the command to resume from it. Publish the
    finished run with `digitforge export RUN --to FOLDER`. Its card names the generator that it was adapted from.
    """
    check_extras("training", "`digitforge adapt`")
    from digitforge_client.common.shipped import shipped_models
    from digitforge_training import adaptation
    from digitforge_training import data as data_module
    from digitforge_training.runs.folder import describe

    if data.source is None:
        raise click.UsageError("Missing option '--data'.")
    dataset = data_module.load(data.source, **data.options)
    if dataset.split_note:
        click.echo(dataset.split_note, err=True)
    parent = adaptation.read_parent(generator or shipped_models() / MODEL_NAME)
    adaptation.check_fits(parent, dataset)
    recipe = adaptation.recipe_for(parent, **_parse_overrides(overrides, steps=steps))
    choice: dict[str, Any] = {}
    if keep == "best":
        choice = {"judge": judge, "held_out": held_out or adaptation.held_out_of(dataset)}
    run = describe(recipe, dataset, seed=seed, parent=parent.described, **choice)
    if dry_run:
        click.echo(json.dumps(run.as_dict(), indent=2))
        return
    with _stoppable(run, out) as show_progress:
        adaptation.adapt(
            parent,
            dataset,
            out=out,
            recipe=recipe,
            seed=seed,
            save_every_s=save_every_s,
            on_progress=show_progress,
            **choice,
        )
    click.echo(f"{out}")
    _say_done(out)


@contextlib.contextmanager
def _stoppable(run: Run, out: Path) -> Iterator[Callable[[Progress], None]]:
    """Announce a training into *out*, show its progress, and say how to continue if it is stopped."""
    from digitforge_training.runs import checkpoints

    def kept() -> str:
        how = (
            "there is no checkpoint yet, so the same command starts over"
            if checkpoints.newest(out) is None
            else f"the same command resumes from the checkpoint in {out}"
        )
        return f"{how}:\n  {shlex.join(['digitforge', *sys.argv[1:]])}"

    recipe, data = run.recipe, run.training_data
    parent = f", from generator {run.parent['generator_id']}" if run.parent else ""
    classes = f"{len(run.class_names)} classes" if recipe.conditional else "labels not used"
    held = f"; {run.held_out} others held out for the judge" if run.held_out else ""
    with resumable(kept):
        click.echo(
            f"{recipe.name}{parent}: {recipe.steps} steps of {recipe.batch_size} images on {data['name']} "
            f"({data['images']} images, {classes}{held}), seed {run.seed}, into {out}",
            err=True,
        )
        import_quietly("tensorflow")  # before the progress line appears, which TensorFlow's log would break
        with _live_line() as show_progress, announcing(_say_stopping):
            yield show_progress


def _say_done(out: Path) -> None:
    publish = shlex.join(["digitforge", "export", str(out), "--to", "models/digits"])
    click.echo(f"done; publish it with: {publish}", err=True)


def _say_stopping() -> None:
    click.echo(
        "\nstopping: the current step ends first, then a checkpoint is written. "
        "A second Ctrl-C or SIGTERM stops at once, without a checkpoint.",
        err=True,
    )


def _parse_overrides(overrides: tuple[str, ...], **options: float | None) -> dict[str, str | float]:
    changes: dict[str, str | float] = {field: value for field, value in options.items() if value is not None}
    for override in overrides:
        field, equals, value = override.partition("=")
        if not equals:
            raise click.BadParameter(
                f"{override!r} has no equals sign; expected FIELD=VALUE, for example batch_size=32",
                param_hint="'--set'",
            )
        changes[field.strip()] = value.strip()
    return changes


@contextlib.contextmanager
def _live_line() -> Iterator[Callable[[Progress], None]]:
    """Report progress on one live line of a terminal, elsewhere as a plain line every 5 %."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("compiling the training step") as status:

            def live(progress: Progress) -> None:
                status.update(_describe(progress))
                for line in _warnings(progress):
                    console.print(line, markup=False, highlight=False, soft_wrap=True)

            yield live
        return
    printed = -1

    def plain(progress: Progress) -> None:
        nonlocal printed
        twentieth = 20 * progress.images_seen // progress.images_total
        if twentieth > printed:
            printed = twentieth
            click.echo(_describe(progress), err=True)
        for line in _warnings(progress):
            click.echo(line, err=True)

    yield plain


def _warnings(progress: Progress) -> Iterator[str]:
    for trouble in progress.troubles:
        yield f"after {progress.images_seen} images: {trouble.seen}. To fix it, {trouble.remedy}"


def _describe(progress: Progress) -> str:
    left = (progress.images_total - progress.images_seen) / progress.images_per_second
    values = progress.statistics
    return (
        f"{progress.images_seen / progress.images_total:4.0%}  D {values['discriminator_loss']:.2f}  "
        f"G {values['generator_loss']:.2f}  real {values['accuracy_real']:.0%}  "
        f"generated {values['accuracy_generated']:.0%}  "
        f"{progress.images_per_second:.0f} images/s  {left / 60:.0f} min left"
    )


@click.command()
@click.argument("run", type=_PATH)
@click.option(
    "--to",
    type=_PATH,
    required=True,
    help="Model folder, for example models/digits. The export becomes its next numbered version.",
)
@data_options(default=None, otherwise="the data set of the run")
@click.option(
    "--metrics",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Report of `digitforge evaluate --json` on an earlier export of this run. Its metrics and floors go onto the "
    "card.",
)
@click.option(
    "--expansion",
    default="1",
    show_default=True,
    metavar="FACTOR|auto",
    help="Multiply latents by FACTOR inside the model. Above 1: more variety, less density. auto: the factor that "
    "the judge scores best on held-out images, or on training images if none were held out.",
)
@click.option(
    "--judge", default="digitnet-64", show_default=True, help="Judge that chooses the factor with --expansion auto."
)
@track_option("the exported model, as a version in its registry,")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def export(  # noqa: PLR0917 – click passes by name
    run: Path,
    to: Path,
    data: Choice,
    metrics: Path | None,
    expansion: str,
    judge: str,
    track: str | None,
    as_json: bool,
) -> None:
    """Publish a trained generator as the next version of a model that TensorFlow Serving can load.

    RUN is the run folder of `digitforge train`. The run remembers its images: where they are, and --size and the other
    options. Give --data if they have moved.
    The new version has a MODEL_CARD.md, which describes the generator.
    The model carries hashes of its training images, so that nobody evaluates on them by accident.

    \b
    Examples:
      digitforge export runs/forge --to models/digits
      digitforge export runs/mine --to models/mine --expansion auto
    """
    check_extras("training", "`digitforge export`")
    from digitforge_training.export.export import export as publish
    from digitforge_training.export.export import training_data

    factor = _parse_factor(expansion)
    figures = _read_metrics(metrics) if metrics else {}
    dataset = training_data(run, data.source, **data.options)

    def show(chosen: Expansion) -> None:
        for tried, value in chosen.values:
            click.echo(f"expansion {tried:<6}{judge} {value:.4g}{'  chosen' * (tried == chosen.factor)}", err=True)

    version = publish(
        run, data=dataset, to=to, metrics=figures, expansion=factor, judge=judge, track=track, on_expansion=show
    )
    if as_json:
        from digitforge_training.export.saved_model import read_card

        click.echo(json.dumps({"path": str(version), **read_card(version)}, indent=2))
    else:
        click.echo(version)
        click.echo(f"serve it with: digitforge serve --model {to}", err=True)


def _parse_factor(expansion: str) -> float | Literal["auto"]:
    from digitforge_training.export.expansion import Expansion

    if expansion == "auto":
        return "auto"
    try:
        factor = float(expansion)
    except ValueError as error:
        raise click.BadParameter(f"{expansion!r} is neither a number nor 'auto'", param_hint="'--expansion'") from error
    return Expansion(factor=factor).factor


#: What the card takes over of a metric in a report, besides its name.
_OF_METRIC = {"value": float, "n": int, "interval": list, "training_floor": dict, "unseen_floor": dict}


def _read_metrics(path: Path) -> dict[str, dict[str, Any]]:
    try:
        figures = parse_json(path.read_bytes())["figures"]  # also UTF-16, as PowerShell writes it
        metrics = {
            figure["name"]: {key: make(figure[key]) for key, make in _OF_METRIC.items() if figure.get(key) is not None}
            for figure in figures
        }
        for figure in metrics.values():
            model_card.row(figure)  # raises an error if a number is missing
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise click.BadParameter(
            f"{path} is not a report that `digitforge evaluate --json` wrote ({error!r})", param_hint="'--metrics'"
        ) from error
    return metrics


@click.group(cls=Group, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def recipes(context: click.Context, as_json: bool) -> None:
    """List the recipes. `digitforge recipes show NAME` describes one.

    \b
    Examples:
      digitforge recipes
      digitforge recipes show forge
    """
    if context.invoked_subcommand is not None:
        return
    if as_json:
        click.echo(json.dumps({key: recipe.as_dict() for key, recipe in RECIPES.items()}, indent=2))
        return
    width = max(map(len, RECIPES))
    for recipe in RECIPES.values():
        click.echo(f"{recipe.name:<{width}}  {recipe.summary}")


@recipes.command()
@click.argument("name", shell_complete=complete_recipe)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def show(name: str, as_json: bool) -> None:
    """Show the notes of recipe NAME and the fields that --set overrides.

    \b
    Examples:
      digitforge recipes show forge
      digitforge recipes show mlp --json
    """
    recipe = resolve(name)
    fields = recipe.as_dict()
    if as_json:
        click.echo(json.dumps(fields, indent=2))
        return
    click.echo(f"{recipe.name}: {recipe.summary}")
    for note in recipe.notes:
        click.echo("\n" + click.wrap_text(note, initial_indent="  * ", subsequent_indent="    "))
    meanings = field_descriptions()
    click.echo()
    for field, value in fields.items():
        if field not in FIXED:
            click.echo(f"{field:<28}{written(value) or '(none)'}")
            click.echo(click.wrap_text(meanings[field], initial_indent="    ", subsequent_indent="    "))
