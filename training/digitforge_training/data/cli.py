"""The options of every command that reads images."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from digitforge_training.data.fitting import FITS, LARGEST_SIDE, MODES, SMALLEST_SIDE
from digitforge_training.data.sources import NAMED, OPTIONS, Choice

LAYOUTS: Final = (
    "mnist, digits (ships with scikit-learn, needs no download), a folder with four IDX files, a folder of CLASS/*.png "
    "(or .jpg, .webp), or an .npz, .csv or .parquet file."
)


def complete_data(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The data sets that a shell suggests, and paths."""
    names = [CompletionItem(name) for name in NAMED if name.startswith(incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


def data_dir_option(*, variable: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the option for MNIST's folder. Without *variable*, it does not read the environment variable."""
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="DIGITFORGE_DATA_DIR" if variable else None,
        show_envvar=True,
        help="Folder with the four MNIST files. Default: the cache, filled by a download if needed."
        if variable
        else "Folder with MNIST's four files. Implies --data mnist.  [default: DIGITFORGE_DATA_DIR, the cache, or a "
        "download]",
    )


def data_options(
    *, default: str | None, otherwise: str = "", describe: str = LAYOUTS, variable: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a decorator that adds the options that select a data set. The command gets them as one `Choice`, ``data``.

    Args:
        default: the default of ``--data``.
        otherwise: what a command without a default does if the option is missing.
        describe: the help text of ``--data``.
        variable: whether ``--data-dir`` has the default DIGITFORGE_DATA_DIR.
    """
    options = (
        click.option(
            "--data",
            metavar="SOURCE",
            default=default,
            show_default=otherwise or default is not None,
            shell_complete=complete_data,
            help=describe,
        ),
        data_dir_option(variable=variable),
        click.option(
            "--size",
            type=click.IntRange(SMALLEST_SIDE, LARGEST_SIDE),
            help="Resize images to squares of this many pixels.  [default: as they are]",
        ),
        click.option(
            "--fit",
            type=click.Choice(FITS),
            help="How --size makes images square: cut off both ends, add stripes, or distort.  [default: crop]",
        ),
        click.option(
            "--channels",
            type=click.Choice(list(MODES)),
            help="Convert images to gray or to red-green-blue.  [default: as they are]",
        ),
        click.option(
            "--transpose/--no-transpose",
            default=None,
            help="Swap rows and columns of every image. EMNIST needs this.  [default: no]",
        ),
        click.option(
            "--test-share",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            help="Share of test images, if the data set has none of its own.  [default: 0.2]",
        ),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def collected(*args: Any, data: str | None, **others: Any) -> Any:
            given = {name: others.pop(name) for name in ("data_dir", *OPTIONS)}
            chosen = Choice(source=data, options={name: value for name, value in given.items() if value is not None})
            return command(*args, data=chosen, **others)

        return functools.reduce(lambda decorated, option: option(decorated), reversed(options), collected)

    return decorate
