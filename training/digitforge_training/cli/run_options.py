"""The options of the commands that train: ``train`` and ``adapt``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])


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


def run_options(*, keep: str, judge: str, held_out: int | None) -> Callable[[C], C]:
    """The options that every command has that trains, with its own defaults.

    Args:
        keep: default of ``--keep``.
        judge: default of ``--judge``.
        held_out: default of ``--held-out``; None: a fifth of the images.
    """
    options = (
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            required=True,
            help="Run folder. Repeat the command to resume a stopped run.",
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


def parse_overrides(overrides: tuple[str, ...], **options: float | None) -> dict[str, str | float]:
    """The fields of a recipe to override, from the values of ``--set`` and from options of their own.

    Raises:
        click.BadParameter: an override has no equals sign.
    """
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
