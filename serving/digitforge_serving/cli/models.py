"""The command ``digitforge models``: list, publish, withdraw and remove versions of a model."""

from __future__ import annotations

import json
from pathlib import Path

import click

from digitforge_serving.models import publication

_FOLDER = click.Path(path_type=Path)
_BASE = Path("models/digits")


@click.group()
def models() -> None:
    """List, publish, withdraw and remove versions in a model folder.

    Every change is atomic: a server that watches the folder never sees part of a version. It loads the new highest
    version before it unloads the old one.
    """


@models.command(name="list")
@click.argument("base_path", type=_FOLDER, default=_BASE)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_versions(base_path: Path, as_json: bool) -> None:
    """List the versions in a model folder, highest first.

    BASE_PATH is the model folder; default: models/digits.
    """
    found = publication.versions(base_path)
    if as_json:
        rows = [{"version": info.version, "bytes": info.bytes, "complete": info.complete} for info in found]
        click.echo(json.dumps(rows))
        return
    for info in found:
        click.echo(
            f"{info.version:>6}  {info.bytes / 1e6:8.1f} MB  {'' if info.complete else 'no saved_model.pb'}".rstrip()
        )


@models.command()
@click.argument("version_folder", type=_FOLDER)
@click.option("--to", "base_path", type=_FOLDER, default=_BASE, show_default=True, help="Model folder to publish in.")
def promote(version_folder: Path, base_path: Path) -> None:
    """Publish a copy of VERSION_FOLDER as the highest version."""
    click.echo(publication.promote(version_folder, base_path).path)


@models.command()
@click.argument("base_path", type=_FOLDER, default=_BASE)
def rollback(base_path: Path) -> None:
    """Withdraw the highest version in a model folder.

    BASE_PATH is the model folder; default: models/digits. Servers go back to the version before the withdrawn one.
    The files of the withdrawn version N stay in the folder as .N.withdrawn.
    """
    click.echo(publication.rollback(base_path).path)


@models.command()
@click.argument("version", type=click.IntRange(min=0))
@click.option(
    "--from", "base_path", type=_FOLDER, default=_BASE, show_default=True, help="Model folder to delete from."
)
def remove(version: int, base_path: Path) -> None:
    """Delete VERSION from a model folder."""
    click.echo(f"removed {publication.remove(base_path, version)}", err=True)
