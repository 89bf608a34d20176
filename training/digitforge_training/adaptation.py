"""``digitforge.adapt``: fine-tune an exported generator on a few other images.

The adapted generator keeps the parent's networks, clusters and latents, and learns how the new images look. The
discriminator gets a head start if the export lacks its weights. All images that it sees are shifted and cut out at
random (Zhao et al. 2020, arXiv:2006.10738), because it would soon know a few images by heart.

Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from digitforge_client.common.command import import_quietly
from digitforge_client.common.versions import newest_version
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data import Dataset, DataSource, load
from digitforge_training.data.fitting import options_for
from digitforge_training.recipes import Recipe, from_dict, resolve, written
from digitforge_training.runs.train import SAVE_EVERY_S, TrainedRun, train

if TYPE_CHECKING:
    from digitforge_training.gan.parent import Parent
    from digitforge_training.runs.loop import Progress

#: Share of the images to hold out for a judge.
HELD_OUT_SHARE: Final = 0.2
#: Fields of the parent's recipe that an adaptation replaces.
ADAPTATION: Final[Mapping[str, Any]] = {
    "steps": 150,
    "batch_size": 32,
    "learning_rate": 3e-4,
    "gamma": 0.5,
    "gamma_end": 0.1,
    "ema_images": 2_000,
    "augment_shift": 2,
    "augment_cutout": 8,
    "images_per_checkpoint": 1_600,
    "images_per_sheet": 3_200,
    "jit": None,
    "bfloat16": None,
}
#: Also replaced if the export lacks the discriminator.
WITHOUT_DISCRIMINATOR: Final[Mapping[str, Any]] = {"discriminator_head_start": 100}


def adapt(
    generator: str | Path | Parent,
    data: Dataset | str | Path | DataSource,
    *,
    out: str | Path,
    recipe: Recipe | None = None,
    seed: int = 0,
    judge: str | None = None,
    held_out: int | None = None,
    save_every_s: float = SAVE_EVERY_S,
    on_progress: Callable[[Progress], None] = lambda _: None,
    **fields: Any,
) -> TrainedRun:
    """Fine-tune an exported generator on other images, into a run folder. The same call resumes a stopped training.

    ::

        run = digitforge.adapt("models/digits", "mine.npz", out="runs/mine")
        digitforge.export(run, to="models/mine")

    Args:
        generator: folder of an exported generator, or of its versions, of which the newest is taken.
        data: labeled images, see `digitforge.train`. They need the size and the classes of the generator.
        out: the run folder, created if needed.
        recipe: the whole recipe. None makes it from *fields*.
        seed: seed of all random numbers, 0 or above.
        judge: judge that chooses the checkpoint to export. None exports the newest.
        held_out: number of images held out for the judge. None: a fifth.
        save_every_s: seconds between two checkpoints, above 0.
        on_progress: called with each report.
        **fields: recipe fields to override. The others come from the generator's recipe, or suit few images.

    Raises:
        InvalidInputError: the images do not fit the generator, or a field or the judge does not exist.
        DataError: the generator or the data cannot be read, or the folder cannot be written or holds a different run.
    """
    dataset = data if isinstance(data, Dataset) else load(data)
    parent = generator if not isinstance(generator, str | Path) else read_parent(Path(generator))
    return train(
        recipe or recipe_for(parent, **fields),
        check_fits(parent, dataset),
        out=out,
        seed=seed,
        judge=judge,
        held_out=held_out or held_out_of(dataset),
        parent=parent,
        save_every_s=save_every_s,
        on_progress=on_progress,
    )


def held_out_of(dataset: Dataset) -> int:
    """Number of images to hold out for a judge, if the user names none."""
    return max(2, round(HELD_OUT_SHARE * len(dataset)))


def recipe_for(parent: Parent, **fields: Any) -> Recipe:
    """The recipe of an adaptation: the parent's networks, `ADAPTATION`, then *fields*. None keeps a value.

    Raises:
        InvalidInputError: a field does not exist or is out of range, or another version of digitforge made the parent.
    """
    recipe = from_dict(parent.card["recipe_config"])
    without = WITHOUT_DISCRIMINATOR if parent.discriminator is None else {}
    recipe = dataclasses.replace(recipe, **{**ADAPTATION, **without})
    return resolve(recipe, {name: written(value) for name, value in fields.items() if value is not None})


def check_fits(parent: Parent, dataset: Dataset) -> Dataset:
    """Return *dataset* if its images have the size and the classes of the parent's.

    Raises:
        InvalidInputError: they have others, or the parent was trained without labels.
    """
    if parent.card["recipe_config"].get("unlabeled"):
        raise InvalidInputError(
            f"generator {parent.card['generator_id']} has clusters of its own images in place of classes, which other "
            "images cannot follow; adapt a generator that has classes"
        )
    shape, classes = tuple(parent.card["image_shape"]), tuple(parent.card["class_names"])
    given = dataset.images.shape[1:]
    if shape != given or (classes and classes != dataset.class_names):
        options = options_for(wanted=shape, given=given)
        raise InvalidInputError(
            f"generator {parent.card['generator_id']} makes images of shape {shape} in the classes "
            f"{', '.join(classes[:12])}; {dataset.name} has images of shape {given} in the classes "
            f"{', '.join(dataset.class_names[:12])}; expected the same"
            f"{f'. Read them with {options}' if options else ''}"
        )
    return dataset


def read_parent(folder: Path) -> Parent:
    """Read an exported generator: its card, its weights, its discriminator, and the hashes of its training images.

    Args:
        folder: the generator, or the folder of its versions, of which the newest is taken.

    Raises:
        DataError: the folder does not hold an exported generator.
    """
    version = newest_version(folder)
    import_quietly("tensorflow")
    import tensorflow as tf

    from digitforge_training.export.saved_model import DISCRIMINATOR_FILE, read_card
    from digitforge_training.gan.parent import Parent
    from digitforge_training.runs import checkpoints

    card = read_card(version)
    try:
        model = tf.saved_model.load(str(version))
        weights = [variable.numpy() for variable in model.weights]
        seen = _hashes_in(model)
    except (AttributeError, OSError, ValueError, tf.errors.OpError) as error:
        raise DataError(
            f"cannot read the weights of the generator in {version}: {error}; export it again with `digitforge export`"
        ) from error
    path = version / DISCRIMINATOR_FILE
    discriminator = list(checkpoints.load(path).values()) if path.exists() else None
    return Parent(card=card, generator=weights, discriminator=discriminator, seen=seen)


def _hashes_in(model: Any) -> npt.NDArray[np.int64]:
    """The hashes of training images, the only list of int64 numbers in the graph of the signature ``seen``."""
    import tensorflow as tf

    from digitforge_client.contract import Signature

    graph = model.signatures[Signature.SEEN].graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    arrays = [
        tf.make_ndarray(node.attr["value"].tensor)
        for node in nodes
        if node.op == "Const" and node.attr["dtype"].type == tf.int64.as_datatype_enum
    ]
    (hashes,) = [array for array in arrays if array.ndim == 1]
    return np.asarray(hashes, np.int64)
