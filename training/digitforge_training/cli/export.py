"""The command ``digitforge export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from digitforge_client.cli.track_option import track_option
from digitforge_client.common.extras import check_extras
from digitforge_client.common.json_text import parse_json
from digitforge_training.data.cli import data_options
from digitforge_training.export import model_card

if TYPE_CHECKING:
    from digitforge_training.data.sources import Choice
    from digitforge_training.export.expansion import Expansion

_PATH = click.Path(path_type=Path)


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
