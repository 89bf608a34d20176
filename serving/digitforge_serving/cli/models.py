"""The command ``digitforge models``: list, publish, label, withdraw and remove versions of a model."""

from __future__ import annotations

import json
from pathlib import Path

import click

from digitforge_client.cli.renamed import renamed
from digitforge_client.common.command import Group
from digitforge_serving.models import publication

_FOLDER = click.Path(path_type=Path)
_BASE = Path("models/digits")


@click.group(cls=Group)
def models() -> None:
    """List, publish, label, withdraw and remove versions in a model folder.

    Every change is atomic: a server that watches the folder never sees part of a version. It loads the new highest
    version before it unloads the old one.

    \b
    Examples:
      digitforge models list models/digits
      digitforge models promote models/digits/2
      digitforge models rollback models/digits
    """


@models.command(name="list")
@click.argument("base_path", type=_FOLDER, default=_BASE)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_versions(base_path: Path, as_json: bool) -> None:
    """List the versions in a model folder, highest first.

    BASE_PATH is the model folder; default: models/digits.

    \b
    Examples:
      digitforge models list
      digitforge models list serving/models/digits --json
    """
    found = publication.versions(base_path)
    if as_json:
        rows = [{"version": info.version, "bytes": info.bytes, "complete": info.complete} for info in found]
        click.echo(json.dumps(rows))
        return
    if not found:
        click.echo(f"{base_path} holds no version; `digitforge export RUN --to {base_path}` makes one", err=True)
    for info in found:
        click.echo(
            f"{info.version:>6}  {info.bytes / 1e6:8.1f} MB  {'' if info.complete else 'no saved_model.pb'}".rstrip()
        )


@models.command()
@click.argument("version")
@click.option(
    "--to",
    "base_path",
    type=_FOLDER,
    help="The model folder.",
    show_default=f"{_BASE}, or with --label the base_path in the configuration",
)
@click.option("--label", help="Let this label name the version.")
@click.option("--config", type=_FOLDER, help="With --label: the model configuration file to change.")
@click.option("--model-name", help="With --label: the model, if the configuration lists several.")
@renamed("--model", "--model-name")
def promote(
    version: str, base_path: Path | None, label: str | None, config: Path | None, model_name: str | None
) -> None:
    """Publish a copy of a version as the highest one, or let a label name a version.

    Without --label, VERSION is the folder of a version of any model. Servers load the copy and answer with it.

    With --label, VERSION is a number in the model folder. Only the label in the configuration file changes, in one
    step and without touching comments. Servers that run with --model_config_file_poll_wait_seconds notice it.

    \b
    Examples:
      digitforge models promote models/digits/2
      digitforge models promote candidates/5 --to models/digits
      digitforge models promote 3 --label stable --config models.config
    """
    if label is None:
        if config is not None or model_name is not None:
            raise click.UsageError("--config and --model-name need --label; add it, for example --label stable")
        click.echo(publication.promote(Path(version), base_path or _BASE).path)
        return
    if config is None:
        raise click.UsageError("--label needs --config: the model configuration file to change")
    if not version.isdecimal():
        raise click.UsageError(f"VERSION is {version!r}; with --label, give the number of a version, for example 3")
    from digitforge_serving.models.labels import move_label

    kept = move_label(config, label, int(version), model=model_name, base_path=base_path)
    click.echo(f"{label} is version {version} in {config}")
    if not kept:
        click.echo(f"{config} was written again without its comments", err=True)


@models.command()
@click.argument("base_path", type=_FOLDER, default=_BASE)
def rollback(base_path: Path) -> None:
    """Withdraw the highest version in a model folder.

    BASE_PATH is the model folder; default: models/digits. Servers go back to the version before the withdrawn one.
    The files of the withdrawn version N stay in the folder as .N.withdrawn.

    \b
    Examples:
      digitforge models rollback models/digits
    """
    click.echo(publication.rollback(base_path).path)


@models.command()
@click.argument("version", type=click.IntRange(min=0))
@click.option(
    "--from", "base_path", type=_FOLDER, default=_BASE, show_default=True, help="Model folder to delete from."
)
def remove(version: int, base_path: Path) -> None:
    """Delete VERSION from a model folder.

    \b
    Examples:
      digitforge models remove 1 --from models/digits
    """
    click.echo(f"removed {publication.remove(base_path, version)}", err=True)
