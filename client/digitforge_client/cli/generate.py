"""The commands ``digitforge generate`` and ``digitforge verify``."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from digitforge_client.cli.sample import classes_of, progress, scaling_options
from digitforge_client.cli.scheduler_options import SCHEDULER, scheduler_of, scheduler_options
from digitforge_client.cli.server_options import (
    CONNECTION,
    Access,
    connection_options,
    old_model_option,
    server_option,
)
from digitforge_client.client import DigitClient
from digitforge_client.common.command import resumable
from digitforge_client.contract import SEEDS
from digitforge_client.datasets.hub import check_hub, push
from digitforge_client.datasets.manifest import FORMATS, NAME, Manifest, Plan
from digitforge_client.errors import DataError, InvalidInputError

#: Number of problems that an error lists.
_LISTED = 3


@click.command(short_help="Write a very large data set in shards; continue it after an interruption.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--n", "-n", type=int, help="Number of images.")
@click.option("--label", metavar="CLASS", help="Only this class, by name or number.  [default: balanced classes]")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Format of the shards.  [default: npz]")
@click.option("--rows-per-shard", type=int, help="Images per shard; the last shard may have fewer.  [default: 100000]")
@click.option(
    "--seed",
    type=int,
    help="Seed from 0 to 2097151. The same seed gives the same images.  [default: random, and reported]",
)
@click.option("--start", type=int, help="First row of the seed.  [default: 0]")
@scaling_options
@click.option("--jobs", "-j", type=int, default=-1, help="Number of parallel processes.  [default: one per core]")
@scheduler_options(
    "Use the workers of this Dask scheduler instead of processes. They need digitforge, FOLDER under the same path, "
    "and access to --server."
)
@click.option(
    "--push-to-hub",
    metavar="USER/NAME",
    help="Then upload the data set to Hugging Face's Hub. It needs --format parquet, and a token in HF_TOKEN or of "
    "`hf auth login`.",
)
@click.option("--private", is_flag=True, help="Make a new data set on the Hub private.")
@server_option
@connection_options
@old_model_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def generate(
    *,
    folder: Path,
    label: str | None,
    jobs: int,
    push_to_hub: str | None,
    private: bool,
    server: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Write a very large data set of labeled synthetic images into FOLDER, in shards.

    FOLDER gets a manifest.json with the generator, and with the addresses and the SHA-256 of each shard. To continue
    after an interruption, run the same command again, or run it with FOLDER alone. Finished shards are kept.

    With --format parquet, FOLDER is a data set for Hugging Face's `datasets`. It also gets a data card, README.md, and
    Croissant metadata, croissant.json.

    \b
    Examples:
      digitforge generate synthetic --n 10000000 --seed 0
      digitforge generate synthetic
      digitforge generate records --n 60000000 --format tfrecord --jobs 8
      digitforge generate shared --n 100000 --format parquet --push-to-hub me/digits
      digitforge generate records --n 60000000 --scheduler tcp://cluster:8786 --server digits:8500
    """
    if jobs == 0 or jobs < -1:
        raise InvalidInputError(f"--jobs is {jobs}; expected 1 or more, or -1 for one per core")
    from digitforge_client.datasets.generate import generate as write_shards

    if push_to_hub is not None:
        check_hub(push_to_hub)
    began = time.monotonic()
    scheduler = scheduler_of(**{name: given.pop(name) for name in SCHEDULER})
    access = Access.of(server, **{name: given.pop(name) for name in CONNECTION})
    with resumable(lambda: "finished shards are kept, and the same command continues"), access() as client:
        plan = _plan(client, folder, label=label, **given)
        if push_to_hub is not None and plan.format != "parquet":
            raise InvalidInputError(f"the data set has the format {plan.format}; --push-to-hub needs --format parquet")
        with progress(plan.n) as advance:
            manifest = write_shards(client, folder, plan, jobs=jobs, scheduler=scheduler, advance=advance)
    seconds = time.monotonic() - began
    page = None if push_to_hub is None else push(folder, push_to_hub, private=private)
    report = asdict(plan) | {
        "folder": str(folder),
        "generator_id": manifest.generator_id,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes or 0 for shard in manifest.shards),
        "seconds": round(seconds, 3),
        "hub": page,
    }
    click.echo(
        json.dumps(report)
        if as_json
        else f"{plan.n} images of generator {manifest.generator_id} (seed {plan.seed}, rows {plan.start} to "
        f"{plan.start + plan.n - 1}) in {len(manifest.shards)} shards, {seconds:.1f} s: {folder / NAME}"
        + (f"; uploaded to {page}" if page else "")
    )


def _plan(
    client: DigitClient,
    folder: Path,
    *,
    n: int | None,
    label: str | None,
    form: str | None,
    **options: Any,
) -> Plan:
    """Make the plan from the given options. Missing options come from the folder's manifest, if it has one."""
    number = None
    if label is not None:
        generator = client.generator()
        number = int(generator.class_numbers(classes_of(label, list(generator.class_names))))
    given = {"n": n, "label": number, "format": form} | options
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if (folder / NAME).exists():
        return Plan(**(asdict(Manifest.load(folder).plan) | wanted))
    if n is None:
        raise InvalidInputError(
            f"the number of images is missing, and {folder} holds no data set to continue; give --n"
        )
    return Plan(**({"seed": secrets.randbelow(SEEDS)} | wanted))


@click.command(short_help="Check a data set of `generate` against its manifest.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--regenerate",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also request the images of N evenly spread shards from the server and compare them. If N exceeds the number "
    "of shards, all are compared.",
)
@server_option
@connection_options
@old_model_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify(*, folder: Path, regenerate: int | None, server: str, as_json: bool, **connection: Any) -> None:
    """Check the data set that `digitforge generate` wrote into FOLDER.

    The command compares every file with its checksum. Regenerated images may differ from the stored ones by one gray
    level, on one pixel in a thousand, because float rounding depends on batch size and device.

    Exit status 4 means that files are damaged, missing or unfinished. To repair the data set, remove the damaged files
    that the error names, and run `digitforge generate FOLDER`.

    \b
    Examples:
      digitforge verify synthetic
      digitforge verify synthetic --regenerate 3
    """
    from digitforge_client.datasets.verify import compare, problem_of, spread

    manifest = Manifest.load(folder)
    problems, intact = [], []
    with progress(manifest.plan.n) as advance:
        for shard in manifest.shards:
            problem = problem_of(folder, shard) if shard.finished else None
            if problem is not None:
                problems.append(problem)
            elif shard.finished:
                intact.append(shard)
            advance(shard.n)
    differences = []
    if regenerate and intact:
        chosen = spread(intact, regenerate)
        with (
            Access.of(server, **connection)() as client,
            progress(sum(shard.n for shard in chosen)) as advance,
        ):
            for shard in chosen:
                differences.append(compare(client, folder, manifest, shard, advance=advance))
                if not differences[-1].tolerable:
                    problems.append(
                        f"{shard.file} does not match the server's images: {differences[-1].differing} of "
                        f"{differences[-1].pixels} pixels differ, by up to {differences[-1].largest} gray levels"
                    )
    if as_json:
        report = {
            "folder": str(folder),
            "generator_id": manifest.generator_id,
            "shards": len(manifest.shards),
            "finished": manifest.finished,
            "problems": problems,
            "regenerated": [
                {"file": each.shard.file, "pixels": each.pixels, "differing": each.differing, "largest": each.largest}
                for each in differences
            ],
        }
        click.echo(json.dumps(report))
    if problems:
        more = f", and {len(problems) - _LISTED} more problems" if len(problems) > _LISTED else ""
        raise DataError(
            f"{folder}: {'; '.join(problems[:_LISTED])}{more}; remove these files and run "
            f"`digitforge generate {folder}` to make them again"
        )
    if manifest.finished < len(manifest.shards):
        raise DataError(
            f"{folder}: only {manifest.finished} of {len(manifest.shards)} shards are finished, and these are correct; "
            f"run `digitforge generate {folder}` to make the other shards"
        )
    if not as_json:
        compared = f"; {len(differences)} of them match the server's images" if differences else ""
        click.echo(f"{len(manifest.shards)} shards with {manifest.plan.n} images match their checksums{compared}")
