"""The options of ``digitforge experiment run``, and its settings file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any, Final

import click

from digitforge_client.cli.scheduler_options import SCHEDULER, scheduler_options
from digitforge_client.cli.server_options import CONNECTION, connection_options
from digitforge_client.cli.track_option import track_option
from digitforge_client.errors import InvalidInputError
from digitforge_training.cli.recipes import complete_recipe
from digitforge_training.data.cli import LAYOUTS, data_options

FOLDER: Final = click.Path(file_okay=False, path_type=Path)


class _List(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """Values separated by commas, or a list in a file."""

    def __init__(self, convert_one: Callable[[str], Any], example: str) -> None:
        self.name = f"{convert_one.__name__} list"
        self._convert_one, self._example = convert_one, example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        try:
            parts = value if isinstance(value, list | tuple) else str(value).split(",")
            return tuple(self._convert_one(str(part).strip()) for part in parts)
        except ValueError:
            self.fail(f"{value!r}; expected {self._example}", param, ctx)


class _Shares(click.ParamType):  # type: ignore[type-arg]
    """Names with shares, such as ``8=0.01,9=0.1``, or a table in a file."""

    name = "shares"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        try:
            pairs = value if isinstance(value, dict) else dict(part.rsplit("=", 1) for part in str(value).split(","))
            return {str(name).strip(): float(share) for name, share in pairs.items()}
        except (TypeError, ValueError):
            self.fail(f"{value!r}; expected classes with the share to keep, such as 8=0.01,9=0.1", param, ctx)


class _Fields(click.ParamType):  # type: ignore[type-arg]
    """Fields with values, such as ``steps=200,learning_rate=1e-4``, or a table in a file."""

    name = "fields"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        try:
            pairs = value if isinstance(value, dict) else dict(part.split("=", 1) for part in str(value).split(","))
            return {str(name).strip(): str(each).strip() for name, each in pairs.items()}
        except (TypeError, ValueError):
            self.fail(f"{value!r}; expected fields with values, such as steps=200,learning_rate=1e-4", param, ctx)


_SIZES = _List(int, "whole numbers separated by commas, such as 10,100")
RATIOS = _List(float, "numbers separated by commas, such as 0.5,1,5,50")
_ARMS = _List(str, "names separated by commas")
_COUNT = click.IntRange(min=1)
_SHARE = click.FloatRange(0, 1, max_open=True)


def read_config_file(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    """Use the file's settings as defaults of this call. Options on the command line override them."""
    if value is not None:
        from digitforge_evaluation.experiment.configuration import read_config

        given = (option for option in context.command.params if isinstance(option, click.Option))
        options = {option.name for option in given if option.expose_value}
        known = {name for name in options if name and name not in _NOT_IN_A_FILE}
        context.default_map = read_config(value, known=known)
    return value


def check_origin(context: click.Context) -> None:
    """Check that no code runs only because the settings file names it. The file may be somebody else's.

    Raises:
        InvalidInputError: the file names a classifier to import, or a scheduler, and the command line does not.
    """
    for name in ("classifier", "scheduler"):
        value = context.params[name]
        from_file = context.get_parameter_source(name) is click.core.ParameterSource.DEFAULT_MAP
        if from_file and (name == "scheduler" or ":" in value):
            raise InvalidInputError(
                f"{context.params['config']} names the {name} {value}, which can run any code on this machine; if you "
                f"trust it, name it on the command line: --{name} {value}"
            )


#: Options that only the command line can set.
_NOT_IN_A_FILE = ("as_json", "header")
#: Options that choose a generator of the server.
_GENERATOR: Final = {"model_name", "model_version", "model_label"}
#: Options that do not affect results. They are not saved with them.
NOT_KEPT = ("config", "out", "as_json", "jobs", "data_dir", "track", *SCHEDULER, *(set(CONNECTION) - _GENERATOR))

_shown = partial(click.option, show_default=True)
_OPTIONS: Final = (
    click.option("--server", metavar="HOST:PORT", help="Server whose generator makes the images."),
    connection_options,
    click.option(
        "--model",
        type=FOLDER,
        multiple=True,
        help="Use an exported generator instead of a server: its folder, or the folder of its versions. Repeat the "
        "option to compare several.",
    ),
    click.option(
        "--strict",
        metavar="RECIPE",
        shell_complete=complete_recipe,
        help="Also train a generator of this recipe on each subset's images alone. This is slow. The generators are "
        "kept in the output folder.",
    ),
    click.option(
        "--strict-steps", type=_COUNT, help="Training steps of the --strict generators.  [default: the recipe's]"
    ),
    _shown(
        "--strict-copies",
        type=click.IntRange(min=0),
        default=0,
        help="Train the --strict generators on so many copies of each image too, changed as in classical augmentation.",
    ),
    click.option(
        "--adapt",
        is_flag=True,
        help="Also adapt the --model generator to each subset's images, as `digitforge adapt` does. This takes minutes "
        "for each subset. The generators are kept in the output folder.",
    ),
    click.option(
        "--adapt-fields",
        type=_Fields(),
        default={},
        metavar="FIELD=VALUE,…",
        help="Override fields of the recipe of --adapt, such as steps=200,learning_rate=1e-4.",
    ),
    data_options(default="mnist", describe=f"Real images: {LAYOUTS}"),
    click.option("--arms", type=_ARMS, metavar="ARM,ARM,…", help="Arms to run.  [default: all that are possible]"),
    _shown("--n-per-class", type=_SIZES, default="10", metavar="N,N,…", help="Real images per class."),
    click.option(
        "--curve",
        type=_SIZES,
        default=(),
        metavar="N,N,…",
        help="Extra sizes for the baseline alone. Its learning curve shows how many real images the generated images "
        "are worth. Use --passes with it.",
    ),
    _shown(
        "--subsets",
        type=_COUNT,
        default=10,
        help="Subsets per size. A verdict needs at least 10, and more for many sizes and generators. Fix their number "
        "before you see results.",
    ),
    _shown("--replicates", type=_COUNT, default=1, help="Classifier seeds and generator draws per subset."),
    _shown(
        "--classifier",
        default="cnn",
        help="cnn, cnn-large, logistic, svm, forest, or MODULE:NAME of a class with fit and predict.",
    ),
    _shown(
        "--steps",
        type=_COUNT,
        default=500,
        help="Least number of optimizer steps of a cnn, each on 64 images. Other classifiers train on as many images, "
        "at most 4000.",
    ),
    _shown(
        "--passes",
        type=click.FloatRange(min=0),
        default=0.0,
        help="Least number of passes over the real images: large subsets get more steps than --steps. All arms of a "
        "subset get the same number.",
    ),
    _shown(
        "--ratio",
        type=click.FloatRange(min=0, min_open=True),
        default=10.0,
        help="Generated images, or pseudo-labeled images, per real image.",
    ),
    _shown(
        "--generated-share",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.5,
        help="Share of generated images, or pseudo-labeled images, among the training rows, in arms with both.",
    ),
    click.option(
        "--sweep",
        type=RATIOS,
        default=(),
        metavar="R,R,…",
        help="Also run arms with these ratios instead of --ratio, such as 0.5,1,2,5,20,50.",
    ),
    click.option(
        "--shares",
        type=RATIOS,
        default=(),
        metavar="S,S,…",
        help="Also run arms with these shares instead of --generated-share, such as 0.1,0.2.",
    ),
    click.option(
        "--expansions",
        type=RATIOS,
        default=(),
        metavar="F,F,…",
        help="Also run arms with more varied images: multiply their latents by each of these factors, such as 1.2,1.5.",
    ),
    click.option("--fresh", is_flag=True, help="Also run arms that use each generated digit only once. Slow."),
    click.option(
        "--filtered",
        is_flag=True,
        help="Also run arms that keep a generated digit only if a classifier agrees with its label. The classifier is "
        "trained on the subset alone.",
    ),
    click.option(
        "--gafi",
        type=float,
        default=None,
        metavar="F",
        help="Also run arms that do all three, as in GaFi (arXiv:2305.10118): latents multiplied by F, filtered, each "
        "image used only once.",
    ),
    _shown(
        "--confidence",
        type=_SHARE,
        default=0.0,
        help="A classifier trained on the subset labels unlabeled images, and the images of generators without "
        "classes. Use only those with at least this confidence; 0 keeps all. The confidence of an svm is always 1.",
    ),
    click.option(
        "--confidences",
        type=RATIOS,
        default=(),
        metavar="C,C,…",
        help="Also run arms with these confidences instead of --confidence, such as 0,0.5,0.99.",
    ),
    click.option(
        "--cut",
        type=_Shares(),
        default={},
        metavar="CLASS=SHARE,…",
        help="Make classes unbalanced: keep only this share of their images, such as 8=0.01.",
    ),
    _shown("--noisy-labels", type=_SHARE, default=0.0, help="Share of the real images that get a wrong label."),
    _shown(
        "--elastic",
        type=click.FloatRange(min=0),
        default=0.7,
        help="Elastic distortion in classical augmentation, as a displacement in pixels; 0 for none.",
    ),
    click.option(
        "--distances",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Measure each generator's feature distance with N images, and compare it with the effect of its images.",
    ),
    _shown(
        "--held-out",
        type=click.Choice(["test", "validation", "rest"]),
        default="test",
        help="Images for measuring accuracy. `validation` is a twelfth of the training set; use it to choose settings. "
        "`rest` is all training images outside the subset; use it if there are few test images.",
    ),
    _shown("--seed", type=click.IntRange(min=0), default=0, help="Random seed."),
    _shown("--jobs", type=_COUNT, default=1, help="Cells to run in parallel."),
    scheduler_options("Run cells on the workers of this Dask scheduler instead."),
    click.option(
        "--out", type=FOLDER, required=True, help="Folder for results and report. Finished cells in it are kept."
    ),
    track_option("settings, accuracies, verdicts and the report"),
    click.option("--json", "as_json", is_flag=True, help="Print the analysis as JSON."),
)


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of ``experiment run`` to *command*."""
    return reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)
