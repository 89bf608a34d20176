"""The options of ``digitforge experiment run``, and its settings file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any, Final

import click

FOLDER: Final = click.Path(file_okay=False, path_type=Path)


class _List(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """Values between commas, or a list in a file."""

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
    """Names with shares: ``8=0.01,9=0.1``, or a table in a file."""

    name = "shares"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        try:
            pairs = value if isinstance(value, dict) else dict(part.rsplit("=", 1) for part in str(value).split(","))
            return {str(name).strip(): float(share) for name, share in pairs.items()}
        except (TypeError, ValueError):
            self.fail(f"{value!r}; expected classes and the share that is kept, like 8=0.01,9=0.1", param, ctx)


_SIZES = _List(int, "whole numbers separated by commas, like 10,100")
_RATIOS = _List(float, "numbers separated by commas, like 0.5,1,5,50")
_ARMS = _List(str, "names separated by commas")
_COUNT = click.IntRange(min=1)
_SHARE = click.FloatRange(0, 1, max_open=True)


def read_config_file(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    """Let the file's settings be the defaults of this call: options on the command line go before them."""
    if value is not None:
        from digitforge_evaluation.experiment.configuration import read_config

        options = {option.name for option in context.command.params if isinstance(option, click.Option)}
        known = {name for name in options if name and name not in _NOT_IN_A_FILE}
        context.default_map = read_config(value, known=known)
    return value


#: What is said on the command line alone.
_NOT_IN_A_FILE = ("as_json", "help")
#: What does not change a result, and so is not kept with it.
NOT_KEPT = ("config", "out", "as_json", "jobs", "scheduler", "data_dir")

_shown = partial(click.option, show_default=True)
_OPTIONS: Final = (
    click.option("--server", metavar="HOST:PORT", help="A running server whose generator makes the digits."),
    click.option(
        "--model",
        type=FOLDER,
        multiple=True,
        help="Instead, an exported generator: its folder, or that of its versions. Several are compared.",
    ),
    click.option(
        "--strict",
        metavar="RECIPE",
        help="Add strict arms: train a generator of this recipe inside, on each subset's images alone. Slow; trained "
        "generators are kept in the output folder.",
    ),
    click.option("--strict-steps", type=_COUNT, help="Training steps of those, instead of the recipe's."),
    _shown(
        "--data", default="mnist", help="Real images: mnist, digits, a folder or an .npz, as for `digitforge train`."
    ),
    click.option(
        "--data-dir",
        type=FOLDER,
        envvar="DIGITFORGE_DATA_DIR",
        show_envvar=True,
        help="Folder with MNIST's four files.",
    ),
    click.option("--transpose", is_flag=True, help="Swap rows and columns of IDX images, as EMNIST needs it."),
    click.option("--arms", type=_ARMS, metavar="ARM,ARM,…", help="Only these.  [default: all that can be had]"),
    _shown("--n-per-class", type=_SIZES, default="10", metavar="N,N,…", help="Real images per class."),
    click.option(
        "--curve",
        type=_SIZES,
        default=(),
        metavar="N,N,…",
        help="Further sizes for the baseline alone: from its learning curve follows what generated digits are worth in "
        "real images.",
    ),
    _shown("--subsets", type=_COUNT, default=10, help="Subsets per size."),
    _shown("--replicates", type=_COUNT, default=1, help="Classifier seeds and generator draws inside each subset."),
    _shown(
        "--classifier",
        default="cnn",
        help="cnn, cnn-large, logistic, svm, forest, or MODULE:NAME of something with fit and predict.",
    ),
    _shown("--steps", type=_COUNT, default=500, help="Optimizer steps of a cnn."),
    _shown(
        "--ratio", type=click.FloatRange(min=0, min_open=True), default=10.0, help="Generated digits per real image."
    ),
    _shown(
        "--generated-share",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.5,
        help="Share of generated digits among training rows, in arms with both.",
    ),
    click.option(
        "--sweep",
        type=_RATIOS,
        default=(),
        metavar="R,R,…",
        help="Compare these ratios too, as arms of their own, like 0.5,1,2,5,20,50.",
    ),
    click.option(
        "--expansions",
        type=_RATIOS,
        default=(),
        metavar="F,F,…",
        help="Compare with digits of more variety, whose latents are multiplied by each of these, like 1.2,1.5.",
    ),
    click.option("--fresh", is_flag=True, help="Compare with generated digits of which none is used twice. Slow."),
    click.option(
        "--filtered",
        is_flag=True,
        help="Compare with generated digits whose label a classifier agrees with that saw the same real images.",
    ),
    _shown(
        "--confidence",
        type=_SHARE,
        default=0.0,
        help="Use digits of a generator without classes if the classifier that labels them, having seen the same real "
        "images, is at least so sure. An svm always is.",
    ),
    click.option(
        "--cut",
        type=_Shares(),
        default={},
        metavar="CLASS=SHARE,…",
        help="Unbalanced classes: keep this share of their images, as in 8=0.01.",
    ),
    _shown("--noisy-labels", type=_SHARE, default=0.0, help="Share of the real images whose label is wrong."),
    _shown(
        "--elastic",
        type=click.FloatRange(min=0),
        default=0.7,
        help="Elastic distortion in classical augmentation: pixels of displacement; 0 for none.",
    ),
    click.option(
        "--distances",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Measure each generator's feature distance on N digits, and set it against what they did.",
    ),
    _shown(
        "--held-out",
        type=click.Choice(["test", "validation"]),
        default="test",
        help="validation sets a twelfth of the training set aside: use it to choose settings.",
    ),
    _shown("--seed", type=click.IntRange(min=0), default=0, help="Of all randomness."),
    _shown("--jobs", type=_COUNT, default=1, help="Cells side by side."),
    click.option("--scheduler", metavar="tcp://HOST:PORT", help="Instead, on the workers of this Dask scheduler."),
    click.option("--out", type=FOLDER, required=True, help="Folder for results and report; may hold finished cells."),
    click.option("--json", "as_json", is_flag=True, help="Print the analysis as JSON."),
)


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command* the options, in this order."""
    return reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)
