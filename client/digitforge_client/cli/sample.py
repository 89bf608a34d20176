"""The command ``digitforge sample``."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from digitforge_client.cli.server_options import Access, connection_options, old_model_option, server_option
from digitforge_client.common.files import open_descriptor
from digitforge_client.datasets.writers import STANDARD_OUTPUT, WRITERS, writer_for
from digitforge_client.errors import InvalidInputError
from digitforge_client.protocol.rows import SampleSpec

BATCH_ROWS = 1024

# Options of the commands that write digits.
_scaling_options = (
    click.option(
        "--truncation",
        type=float,
        help="Get more typical images and less variety: try 1.0 or 0.5.  [default: no truncation]",
    ),
    click.option(
        "--expansion",
        type=float,
        help="Get more unusual images and more variety, but also more images that do not look like their label: try "
        "1.2. Cannot be combined with --truncation.  [default: no expansion]",
    ),
)
C = TypeVar("C", bound=Callable[..., Any])


def scaling_options(command: C) -> C:
    """Add the options that scale latents. They are named like the fields of `Scaling`."""
    for option in reversed(_scaling_options):
        command = option(command)
    return command


@click.command(short_help="Request labeled images from a server and write them to files.")
@click.option("--n", "-n", type=int, help="Number of images.")
@click.option("--label", metavar="CLASS", help="Only this class, by name or number.  [default: balanced classes]")
@click.option("--labels", metavar="CLASS,CLASS,…", help="One class for each image, instead of --n.")
@click.option(
    "--out",
    "-o",
    "outs",
    type=click.Path(path_type=Path, allow_dash=True),
    multiple=True,
    required=True,
    help="Output: a .npz archive, a .tfrecord or .parquet file, a .png picture of all images, or - for NumPy arrays "
    "on standard output, which must not be a terminal. An existing file is replaced. May be given several times.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(WRITERS)),
    help="Format of the output. idx makes a folder with the two files of MNIST's training set; most loaders also need "
    "the two files of a real test set beside them. files makes one PNG file per image, in folders named by class.  "
    "[default: from the file name]",
)
@click.option(
    "--seed",
    type=int,
    help="Seed from 0 to 2097151. The same seed gives the same images.  [default: random, and reported]",
)
@click.option("--start", type=int, default=0, show_default=True, help="First row of the seed.")
@scaling_options
@server_option
@connection_options
@old_model_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def sample(
    *,
    n: int | None,
    label: str | None,
    labels: str | None,
    outs: tuple[Path, ...],
    form: str | None,
    seed: int | None,
    start: int,
    server: str,
    truncation: float | None,
    expansion: float | None,
    as_json: bool,
    **connection: Any,
) -> None:
    """Request labeled synthetic images from a server and write them to files.

    Start a server with `digitforge serve` or `docker compose up`, or use any TensorFlow Serving with an exported
    generator. The same --seed and --start give the same images from any server with the same generator.

    \b
    Examples:
      digitforge sample --n 1000 --out digits.npz
      digitforge sample --n 1000 --label 7 --out sevens.npz --out sevens.png
      digitforge sample --labels 3,1,4,1,5 --seed 0 --out pi.png
      digitforge sample --n 60000 --out synthetic --format idx
      digitforge sample --n 60000 --out synthetic.tfrecord
      digitforge sample --n 10 --out digits.png --server digits:8500 --tls-ca ca.crt --wait 60
    """
    if label is not None and labels is not None:
        raise InvalidInputError(
            "--label and --labels were both given; give --label for one class for all images, or --labels for one "
            "class for each image"
        )
    scaling: dict[str, Any] = {"truncation": truncation, "expansion": expansion}
    access = Access.of(server, **connection)
    wanted = label if labels is None else [name.strip() for name in labels.split(",") if name.strip()]
    spec = SampleSpec.of(n, labels=wanted, seed=seed, start=start, **scaling)
    if spec.n == 0:
        raise InvalidInputError("--n is 0 or --labels is empty, so there is nothing to write; request 1 image or more")
    writers = [writer_for(out, form) for out in outs]
    to_stdout = [str(out) == STANDARD_OUTPUT or open_descriptor(out) == 1 for out in outs]
    places = ["standard output" if stdout else str(out.resolve()) for out, stdout in zip(outs, to_stdout, strict=True)]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise InvalidInputError(f"--out names {twice} more than once; give each output once")
    began, counts = time.monotonic(), Counter[int]()
    with ExitStack() as stack, access() as client:
        adds = [stack.enter_context(writer(out, spec.n)) for writer, out in zip(writers, outs, strict=True)]
        class_names = client.generator().class_names
        options = replace(spec, labels=classes_of(wanted, class_names)).options
        stream = client.stream(spec.n, batch_size=BATCH_ROWS, **options)
        with progress(spec.n) as advance:
            for batch in stream:
                for add in adds:
                    add(batch)
                counts.update(batch.labels.tolist())
                advance(len(batch))
    seconds = time.monotonic() - began
    summary: dict[str, Any] = {
        "n": spec.n,
        "generator_id": batch.generator_id,
        "seed": spec.seed,
        "start": spec.start,
        **scaling,
        "classes": {class_names[number]: count for number, count in sorted(counts.items()) if number >= 0},
        "files": [str(out) for out in outs],
        "seconds": round(seconds, 3),
    }
    click.echo(
        json.dumps(summary) if as_json else _sentence(summary),
        err=any(to_stdout),
    )


def classes_of(wanted: list[str] | str | None, class_names: Sequence[str]) -> Any:
    """Convert class numbers to int, unless the generator has classes with such names."""
    given = [wanted] if isinstance(wanted, str) else wanted or []
    if not given or set(given) & set(class_names) or not all(one.isdecimal() for one in given):
        return wanted
    return int(wanted) if isinstance(wanted, str) else [int(one) for one in given]


def _sentence(summary: dict[str, Any]) -> str:
    last = summary["start"] + summary["n"] - 1
    rows = f"row {last}" if summary["n"] == 1 else f"rows {summary['start']} to {last}"
    return (
        f"{summary['n']} images of generator {summary['generator_id']} (seed {summary['seed']}, {rows}) in "
        f"{summary['seconds']:.1f} s: {', '.join(summary['files'])}"
    )


@contextmanager
def progress(n: int) -> Iterator[Any]:
    """Show a progress bar if standard error is a terminal. Provides a function that takes the number of new digits."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("images", total=n)
        yield lambda done: bar.update(task, advance=done)
