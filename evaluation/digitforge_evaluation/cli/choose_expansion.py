"""``digitforge experiment choose-expansion``: which factor for the latents makes the best training digits?"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digitforge_client.cli.renamed import renamed
from digitforge_client.common.command import import_quietly, resumable
from digitforge_client.common.files import make_folder, replacing
from digitforge_client.common.json_text import parse_json
from digitforge_client.errors import DataError
from digitforge_evaluation.cli.experiment_options import FOLDER, RATIOS
from digitforge_training.data.cli import LAYOUTS, data_options

if TYPE_CHECKING:
    from digitforge_training.data.sources import Choice


@click.command("choose-expansion")
@click.option("--model", type=FOLDER, required=True, help="Folder of an exported generator, or of its versions.")
@data_options(default="mnist", describe=f"Real images, of which only the training split is used: {LAYOUTS}")
@click.option(
    "--factors", type=RATIOS, default="1,1.2,1.3,1.4,1.6", show_default=True, metavar="F,F,…", help="Factors to try."
)
@click.option(
    "--replicates", type=click.IntRange(min=3), default=5, show_default=True, help="Classifiers for each factor."
)
@click.option(
    "--n", type=click.IntRange(min=100), default=10_000, show_default=True, help="Generated images per classifier."
)
@click.option("--classifier", default="cnn", show_default=True, help="A classifier, as for `experiment run`.")
@click.option(
    "--steps", type=click.IntRange(min=1), default=500, show_default=True, help="Optimizer steps of each classifier."
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="JSON file for the results. Finished trials in it are kept.",
)
@renamed("--repeats", "--replicates")
def choose_expansion(
    *, model: Path, data: Choice, factors: tuple[float, ...], jobs: int, out: Path, **settings: Any
) -> None:
    """Choose how far to expand the latents, on real training images.

    For each factor, trains classifiers on generated images alone and counts their errors on the real training images.
    Takes the factor closest to 1 whose error is at most one standard error above the lowest. Test images are not used.

    The generator may have seen the training images, so the errors are too low. Use them only to compare factors. The
    same command continues an interrupted run.

    \b
    Examples:
      digitforge experiment choose-expansion --model models/digits --out runs/expansion.json
      digitforge experiment choose-expansion --model models/digits --factors 1,1.2,1.4 --jobs 2 --out e.json
    """
    from digitforge_client.common.versions import newest_version
    from digitforge_evaluation.classifiers.classifiers import check_classifier
    from digitforge_evaluation.experiment.expansion import Trial, Trials, choose, run_trials
    from digitforge_evaluation.experiment_folder import about
    from digitforge_training.data import load

    trials = Trials(factors=factors, **settings)
    check_classifier(trials.classifier)
    newest_version(model)
    real = load(data.source or "mnist", **data.options)
    if real.split_note:
        click.echo(real.split_note, err=True)
    import_quietly("tensorflow")
    from digitforge_evaluation.experiment.generators import Exported, check_fits

    source = Exported(model)
    check_fits(source.generator_for(real, seed=0), real)
    identity = {
        "n": trials.n,
        "classifier": trials.classifier,
        "steps": trials.steps,
        "generator_id": source.identity,
        "data": {"name": real.name, "split": real.split, "images": len(real), "sha256": real.sha256},
    }
    saved = _read(out, identity)
    done = [Trial(**values) for values in saved.get("trials", ())]
    origin = saved.get("about") or about(shlex.join(["digitforge", *sys.argv[1:]]))

    def save(**more: Any) -> None:
        found = sorted(done, key=lambda trial: (trial.factor, trial.repeat))
        values = {"identity": identity, "about": origin, "trials": [asdict(trial) for trial in found], **more}
        with replacing(out) as file:
            file.write(json.dumps(values, indent=1).encode() + b"\n")

    make_folder(out.parent)
    with resumable(lambda: f"{len(done)} trials are kept, and the same command continues"):
        for trial in run_trials(trials, real, source, done=done, jobs=jobs):
            done.append(trial)
            save()
    choice = choose([trial for trial in done if trial.factor in trials.factors and trial.repeat < trials.replicates])
    save(choice=asdict(choice))
    click.echo("factor  error on training images  above the lowest (± standard error)")
    for each in choice.tried:
        excess, spread = 100 * each.excess, 100 * each.standard_error
        click.echo(f"{each.factor:<6g}  {100 * each.error:23.2f} %  {excess:22.2f} ± {spread:.2f} %")
    click.echo(f"chosen: {choice.factor:g}")


def _read(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Read the results at *path*, or return nothing if it does not exist.

    Raises:
        DataError: *path* does not hold results of this command.
        InvalidInputError: *path* holds results with other settings.
    """
    from digitforge_evaluation.experiment.store import check_identity

    if not path.exists():
        return {}
    try:
        saved: dict[str, Any] = parse_json(path.read_bytes())
        stored = {**saved["identity"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a file of this command ({error!r}); give another file with --out") from error
    check_identity(stored, identity, path)
    return saved
