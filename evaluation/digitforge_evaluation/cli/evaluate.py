"""``digitforge evaluate``: measures generated images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from digitforge_client.cli.server_options import Access, connection_options, optional_access
from digitforge_client.common.command import import_quietly
from digitforge_client.errors import InvalidInputError
from digitforge_client.latent_space import Scaling
from digitforge_evaluation.cli.quality_table import print_report
from digitforge_training.data.cli import LAYOUTS, data_options

if TYPE_CHECKING:
    from digitforge_evaluation.images.sources import Source
    from digitforge_evaluation.quality.assess import Pictures, Report
    from digitforge_evaluation.quality.comparison import RealData
    from digitforge_evaluation.quality.neighbors import Neighborhood
    from digitforge_training.data.dataset import DataSource
    from digitforge_training.data.sources import Choice

NEIGHBORS_PAGE = "Nearest training images"


@click.command()
@click.option("--server", metavar="HOST:PORT", help="A running server: TensorFlow Serving or `digitforge serve`.")
@connection_options
@click.option(
    "--model",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of an exported generator, or of its numbered versions.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Existing images: everything that --data takes, also without labels, such as a folder of PNG files.",
)
@click.option(
    "--n",
    type=click.IntRange(min=2),
    help="Number of images.  [default: 10000, or half as many as there are training images if that is fewer, so that "
    "training images can be measured in their place]",
)
@data_options(
    default=None,
    describe=f"Real images to measure against: {LAYOUTS} Without this option, distances use the shipped statistics of "
    "MNIST's test images, and metrics that need real images are left out. --size, --fit and --channels also apply to "
    "--images. If the generator was trained on this data set, the images are fitted as for its training.",
    variable=False,
)
@click.option(
    "--k",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Number of nearest neighbors for precision, recall, density and coverage.",
)
@click.option(
    "--features",
    metavar="NAME",
    help="Features to compare images by: digitnet-64; own, a small network that is trained on your real training "
    "images in minutes and kept in the cache, or pca if there are few images; pca, principal components of pixels; "
    "inception, the network of the FID paper (from the cache, by download, or from a file with inception:FILE), "
    "unverified until somebody has run `make verify-fid`; or MODULE:NAME, your own function from images to rows of "
    "numbers. All except digitnet-64 need --data.  [default: digitnet-64 if it recognizes the real images, else own]",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**21 - 1), default=0, show_default=True, help="Seed for drawing the images."
)
@click.option(
    "--expansion",
    type=float,
    help="Multiply the generator's latents by this factor. 1.2 gives more variety.  [default: none]",
)
@click.option(
    "--accuracy",
    is_flag=True,
    help="Train classifiers too: on generated images, tested on real ones, and vice versa. Needs --data.",
)
@click.option(
    "--neighbors",
    "--neighbours",
    "neighbors",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a page with generated images and the training images nearest to them into this folder, in place of an "
    "earlier one. Needs --data.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the report as a page: the same figures with samples, nearest training images and a row for each class.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def evaluate(
    *,
    server: str | None,
    model: Path | None,
    images: Path | None,
    n: int | None,
    data: Choice,
    k: int,
    features: str | None,
    seed: int,
    expansion: float | None,
    accuracy: bool,
    neighbors: Path | None,
    out: Path | None,
    as_json: bool,
    **connection: Any,
) -> None:
    """Measure generated images: how close to real ones, how varied, how well labeled, and whether they are copies.

    Give one source of images: --server, --model or --images. Images are drawn in the class proportions of the held-out
    real images: the test split of --data, or MNIST's test images. The table shows each metric with its sample size, a
    95 % interval where it has one, and two floors, which are values of real images in place of the generated ones:
    subsets of the training images, as a good generator scores them, and held-out images that no generator has seen, as
    new real images score them.

    A distance depends on the features and the sample size, so its name has both: fd[digitnet-64]@10k. The network
    digitnet-64 was trained on MNIST's training images. For other images, a network of the same kind is trained on your
    real training images. A generator that was trained on a held-out image is refused.

    \b
    Examples:
      digitforge evaluate --server localhost:8500
      digitforge evaluate --model serving/models/digits --data mnist
      digitforge evaluate --images digits.npz --data digits --json
      digitforge evaluate --model models/pets --data pets --size 32 --out report.html
    """
    if sum(option is not None for option in (server, model, images)) != 1:
        raise InvalidInputError("give exactly one source of images: --server, --model or --images")
    access = optional_access(server, **connection)
    if data.source is None and "data_dir" in data.options:
        data = replace(data, source="mnist")
    if data.source is None:
        _refuse_options_of_real_images(
            {
                "--size, --transpose and similar options need": bool(data.options) and images is None,
                "--neighbors needs": neighbors is not None,
                "--accuracy needs": accuracy,
                "--features own needs": features == "own",
                "--features pca needs": features == "pca",
            }
        )
    # Check what is quick to check before TensorFlow is imported.
    Scaling(expansion=expansion)
    if model is not None:
        from digitforge_client.common.versions import newest_version

        newest_version(model)
    import_quietly("tensorflow")
    from digitforge_evaluation.features.choice import features_called
    from digitforge_evaluation.quality.assess import assess
    from digitforge_evaluation.quality.comparison import IMAGES, RealData
    from digitforge_evaluation.quality.suitability import matched, refuse_unsuitable

    shown: list[Pictures] = []
    with ExitStack() as stack:
        progress = stack.enter_context(_stages())
        source = _open(access, model, images, stack, data)
        wanted = _fitted_as_trained(data, source)
        real = RealData.load(wanted) if wanted else None
        if real and real.train.split_note:
            click.echo(real.train.split_note, err=True)
        refuse_unsuitable(matched(source, real), real)  # before a network is trained
        report = assess(
            source,
            network=features_called(features, train=real.train if real else None, progress=progress),
            n=IMAGES if n is None and images is not None else n,
            seed=seed,
            expansion=expansion,
            k=k,
            real=real,
            progress=progress,
            show=shown.append if neighbors or out else None,
            train_classifiers=accuracy,
        )
        pages: dict[str, Path] = {}
        if out is not None:
            from digitforge_evaluation.quality.page import write_page

            write_page(out, report, shown[0], real)
            pages["Report"] = out
        if neighbors is not None and real is not None and (near := shown[0].neighborhood):
            pages[NEIGHBORS_PAGE] = _write_neighbors(neighbors, near, source, real, report)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        print_report(report)
    for title, page in pages.items():
        click.echo(f"{title}: {page}", err=as_json)
    if neighbors is not None and NEIGHBORS_PAGE not in pages:
        click.echo(f"no page of nearest training images: {report.left_out['authenticity']}", err=True)


def _refuse_options_of_real_images(given: dict[str, bool]) -> None:
    for options, are_given in given.items():
        if are_given:
            raise InvalidInputError(f"{options} real images: give --data as well")


def _write_neighbors(folder: Path, found: Neighborhood, source: Source, real: RealData, report: Report) -> Path:
    from digitforge_evaluation.quality.neighbors import Origin, write_neighbors

    notes = [] if source.card else [f"{source.name} does not say what its generator was trained on."]
    if report.expansion is not None:
        notes.append(f"The generator's latents were multiplied by {report.expansion:g}.")
    return write_neighbors(
        folder,
        found,
        Origin(
            source=source.name,
            training=f"{real.train.name} {real.train.split}",
            held_out=f"{real.test.name} {real.test.split}",
            features=report.features,
            seed=report.seed,
            class_names=real.train.class_names,
            notes=tuple(notes),
        ),
    )


def _fitted_as_trained(data: Choice, source: Source) -> DataSource | None:
    """The real images. If the generator was trained on this data set, missing options are those of its training."""
    from digitforge_evaluation.images.seen import fitted
    from digitforge_training.data.sources import name_of

    wanted, then = data.over(), fitted(source.card)
    if wanted is None or then is None or source.card is None:
        return wanted
    if name_of(wanted) != source.card["training_data"]["name"]:
        return wanted
    again = data.over_fitting(then)
    if again != wanted:
        click.echo(f"{data.source}: images are fitted as for the generator's training: {then.options}", err=True)
    return again


def _open(access: Access | None, model: Path | None, images: Path | None, stack: ExitStack, data: Choice) -> Source:
    from digitforge_evaluation.images import sources

    if access is not None:
        return sources.ServedGenerator(stack.enter_context(access()), access.target)
    if model is not None:
        return sources.SavedGenerator(model)
    assert images is not None  # `evaluate` checks that one of the three is given
    options = {name: value for name, value in data.options.items() if name in ("size", "fit", "channels")}
    return sources.ImageSet.read(images, **options)


@contextmanager
def _stages() -> Iterator[Any]:
    """Show the current stage on the terminal. If standard error is not a terminal, show nothing."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:
        yield status.update
