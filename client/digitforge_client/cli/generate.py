"""The commands ``digitforge generate`` and ``digitforge verify``."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from digitforge_client.cli.sample import (
    classes_of,
    model_option,
    progress,
    scaling_options,
    server_option,
    timeout_option,
)
from digitforge_client.client import DigitClient
from digitforge_client.contract import SEEDS
from digitforge_client.datasets.manifest import FORMATS, NAME, Manifest, Plan
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_client.options import Timeout

#: Problems that are named in an error.
_NAMED = 3


@click.command(short_help="Write very large data sets, in shards, resumably.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--n", "-n", type=int, help="How many digits.")
@click.option("--label", metavar="CLASS", help="Only this class, by name or number. Otherwise classes are balanced.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Of the shards.  [default: npz]")
@click.option("--rows-per-shard", type=int, help="Digits in each shard but the last.  [default: 100000]")
@click.option("--seed", type=int, help="Same seed, same digits: 0 to 2097151.  [default: a new one, which is reported]")
@click.option("--start", type=int, help="Row of the seed to begin with.  [default: 0]")
@scaling_options
@click.option("--jobs", "-j", type=int, default=-1, help="Processes side by side.  [default: one for each core]")
@click.option(
    "--scheduler",
    metavar="tcp://HOST:PORT",
    help="Use the workers of this Dask scheduler instead. They need digitforge, FOLDER under the same name, and a way "
    "to --server.",
)
@server_option
@model_option
@timeout_option
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def generate(
    *,
    folder: Path,
    label: str | None,
    jobs: int,
    scheduler: str | None,
    server: str,
    model: str,
    timeout_s: float,
    as_json: bool,
    **given: Any,
) -> None:
    """Write a very large data set of labeled synthetic digits into FOLDER, in shards.

    FOLDER gets a manifest.json, which names the generator, and for each shard its addresses and the SHA-256 of its
    file. To go on after an interruption of any kind, give the same command again, or only FOLDER: what is finished is
    kept.

    \b
    Examples:
      digitforge generate synthetic --n 10000000 --seed 0
      digitforge generate synthetic
      digitforge generate records --n 60000000 --format tfrecord --jobs 8
      digitforge generate records --n 60000000 --scheduler tcp://cluster:8786 --server digits:8500
    """
    if jobs == 0 or jobs < -1:
        raise InvalidInputError(f"--jobs is {jobs}; expected 1 or more, or -1 for one on each core")
    from digitforge_client.datasets.generate import (
        generate as make,
    )  # joblib is imported when all arguments are known to be right

    began = time.monotonic()
    with DigitClient(server, model=model, timeout=Timeout(request_s=timeout_s)) as client:
        plan = _plan(client, folder, label=label, **given)
        with progress(plan.n) as advance:
            manifest = make(client, folder, plan, jobs=jobs, scheduler=scheduler, advance=advance)
    seconds = time.monotonic() - began
    report = asdict(plan) | {
        "folder": str(folder),
        "generator_id": manifest.generator_id,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes or 0 for shard in manifest.shards),
        "seconds": round(seconds, 3),
    }
    click.echo(
        json.dumps(report)
        if as_json
        else f"{plan.n} digits of generator {manifest.generator_id} (seed {plan.seed}, rows {plan.start} to "
        f"{plan.start + plan.n - 1}) in {len(manifest.shards)} shards, {seconds:.1f} s: {folder / NAME}"
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
    """What was asked for; what was not given is as in the folder's manifest, if there is one."""
    number = None
    if label is not None:
        generator = client.generator()
        number = int(generator.class_numbers(classes_of(label, list(generator.class_names))))
    given = {"n": n, "label": number, "format": form} | options
    wanted: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if (folder / NAME).exists():
        return Plan(**(asdict(Manifest.load(folder).plan) | wanted))
    if n is None:
        raise InvalidInputError(f"say how many digits with --n: {folder} holds no data set that could be continued")
    return Plan(**({"seed": secrets.randbelow(SEEDS)} | wanted))


@click.command(short_help="Check a data set of `generate` against its manifest.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--regenerate",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also ask the server for the digits of N shards, evenly spread, and compare; a large number means all.",
)
@server_option
@model_option
@timeout_option
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def verify(*, folder: Path, regenerate: int | None, server: str, model: str, timeout_s: float, as_json: bool) -> None:
    """Check the data set that `digitforge generate` wrote into FOLDER.

    Every file is read and compared with its checksum. Digits that are regenerated may differ from the stored ones by
    one gray level, on one pixel in a thousand: float rounding differs with batch size and device.

    Exit status 4 means that something is not as it should be; `digitforge generate FOLDER` mends it after the files
    that are named were removed.

    \b
    Examples:
      digitforge verify synthetic
      digitforge verify synthetic --regenerate 3
    """
    from digitforge_client.datasets.verify import compare, problem_of, spread

    manifest = Manifest.load(folder)
    problems, whole = [], []
    with progress(manifest.plan.n) as advance:
        for shard in manifest.shards:
            problem = problem_of(folder, shard) if shard.finished else None
            if problem is not None:
                problems.append(problem)
            elif shard.finished:
                whole.append(shard)
            advance(shard.n)
    differences = []
    if regenerate and whole:
        chosen = spread(whole, regenerate)
        with (
            DigitClient(server, model=model, timeout=Timeout(request_s=timeout_s)) as client,
            progress(sum(shard.n for shard in chosen)) as advance,
        ):
            for shard in chosen:
                differences.append(compare(client, folder, manifest, shard, advance=advance))
                if not differences[-1].tolerable:
                    problems.append(
                        f"{shard.file} holds other digits than the server gives: {differences[-1].differing} of "
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
        more = f", and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise DataError(
            f"{folder}: {'; '.join(problems[:_NAMED])}{more}; remove such files and run "
            f"`digitforge generate {folder}`, which makes them anew"
        )
    if manifest.finished < len(manifest.shards):
        raise DataError(
            f"{folder}: {manifest.finished} of {len(manifest.shards)} shards are finished, and those are as they "
            f"should be; `digitforge generate {folder}` makes the rest"
        )
    if not as_json:
        compared = f"; {len(differences)} of them hold the digits that the server gives" if differences else ""
        click.echo(f"{len(manifest.shards)} shards with {manifest.plan.n} digits are as their checksums say{compared}")
