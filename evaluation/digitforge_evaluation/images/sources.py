"""Where the images to be measured come from: a server, a SavedModel in a folder, or images that exist already."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from digitforge_client import DigitClient
from digitforge_client.common.versions import versions
from digitforge_client.contract import MAX_ROWS, Field, Signature, row_seeds
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_client.latent_space import Scaling, expanded
from digitforge_evaluation.images.proportions import class_counts, random_subsets

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """Images to be measured."""

    images: Images  # (n, H, W, C)
    labels: Labels | None  # (n,), the classes asked for; None if nobody asked for any


class Source(Protocol):
    """Something that images to be measured come from."""

    @property
    def name(self) -> str:
        """What to call it in a report."""

    @property
    def card(self) -> dict[str, Any] | None:
        """The generator's card; None for images whose origin is not known."""

    def draw(self, n: int, *, proportions: tuple[int, ...], seed: int, expansion: float | None = None) -> Drawn:
        """*n* images, or as many as there are, with classes in these proportions if there are classes.

        Args:
            n: how many.
            proportions: of the classes.
            seed: same seed, same images.
            expansion: what a generator's latents are multiplied by; None: nothing.

        Raises:
            InvalidInputError: that cannot be drawn; the message says why.
        """

    def seen(self, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
        """Which of these images (`contract.image_hashes`) the generator was trained on; None if it cannot tell."""


class ServedGenerator:
    """A generator behind a server, asked over gRPC."""

    def __init__(self, client: DigitClient, target: str) -> None:
        """Take a client for *target*; the caller closes it."""
        self._client = client
        self.name = target
        self.card = dict(client.card())

    def draw(self, n: int, *, proportions: tuple[int, ...], seed: int, expansion: float | None = None) -> Drawn:
        """See `Source.draw`."""
        labels = wanted_labels(self.card, n, proportions)
        batch = self._client.sample(n if labels is None else None, labels=labels, seed=seed, expansion=expansion)
        return Drawn(images=batch.images.reshape(n, *self.card["image_shape"]), labels=labels)

    def seen(self, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
        """See `Source.seen`."""
        return self._client.seen(hashes)


class SavedGenerator:
    """An exported generator in a folder, run in this process."""

    def __init__(self, folder: Path) -> None:
        """Load the SavedModel in *folder*, or its newest version if *folder* holds numbered versions.

        Raises:
            DataError: there is none, or it is not an exported generator.
        """
        path = newest_version(folder)  # a wrong folder is told at once, before TensorFlow is loaded
        self.name = str(path)
        import tensorflow as tf

        try:
            self._model = tf.saved_model.load(str(path))
            self._signatures = self._model.signatures
            card = self._signatures[Signature.CARD](**{Field.ROWS: tf.zeros(1, tf.int64)})[Field.CARD]
            self.card: dict[str, Any] = json.loads(card.numpy()[0])
            self._sample = self._signatures[Signature.SAMPLE]
            self._latents = self._signatures[Signature.LATENTS]
            self._from_latents = self._signatures[Signature.FROM_LATENTS]
            self._seen = self._signatures[Signature.SEEN]
        except (OSError, ValueError, KeyError, AttributeError, tf.errors.OpError) as error:
            raise DataError(
                f"{path}: not a generator that digitforge exported ({error}); `digitforge export` makes one"
            ) from error

    def draw(self, n: int, *, proportions: tuple[int, ...], seed: int, expansion: float | None = None) -> Drawn:
        """See `Source.draw`."""
        expansion = Scaling(expansion=expansion).expansion
        labels, seeds = wanted_labels(self.card, n, proportions), row_seeds(seed, n)
        images = np.empty((n, *self.card["image_shape"]), np.uint8)
        for at in range(0, n, MAX_ROWS):
            rows = slice(at, at + MAX_ROWS)
            of_rows = None if labels is None else labels[rows]
            images[rows] = self._images(seeds[rows], of_rows, expansion)
        return Drawn(images=images, labels=labels)

    def seen(self, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
        """See `Source.seen`."""
        return np.concatenate(
            [np.zeros(0, bool)]
            + [
                self._call(self._seen, {Field.HASHES: hashes[at : at + MAX_ROWS]})[Field.SEEN].numpy()
                for at in range(0, len(hashes), MAX_ROWS)
            ]
        )

    def _images(self, seeds: Labels, labels: Labels | None, expansion: float | None) -> Images:
        if expansion is None:
            inputs: dict[str, Any] = {Field.SEEDS: seeds} | ({} if labels is None else {Field.LABELS: labels})
            signature = self._sample
        else:
            latents = self._call(self._latents, {Field.SEEDS: seeds})[Field.LATENTS].numpy()
            inputs = {Field.LATENTS: expanded(latents, expansion)}
            if labels is not None:
                inputs[Field.CLASS_WEIGHTS] = np.eye(len(self.card["class_names"]), dtype=np.float32)[labels]
            signature = self._from_latents
        images: Images = self._call(signature, inputs)[Field.IMAGES].numpy()
        return images

    @staticmethod
    def _call(signature: Any, inputs: dict[str, Any]) -> Any:
        import tensorflow as tf

        return signature(**{name: tf.constant(array) for name, array in inputs.items()})


class ImageSet:
    """Images that exist already, with labels or without; nothing is known of where they come from."""

    card = None

    def __init__(self, images: Images, labels: Labels | None, name: str) -> None:
        """Take (n, H, W, C) uint8 images and (n,) int64 labels.

        Raises:
            InvalidInputError: one of them is something else.
        """
        if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
            raise InvalidInputError(f"{name}: images are {images.dtype} {images.shape}; expected uint8 (n, H, W, C)")
        if labels is not None and (labels.shape != (len(images),) or labels.dtype != np.int64 or labels.min() < 0):
            raise InvalidInputError(
                f"{name}: labels are {labels.dtype} {labels.shape} for {len(images)} images; "
                "expected one int64 ≥ 0 for each"
            )
        self.name = name
        self._images = images
        self._labels = labels

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def draw(self, n: int, *, proportions: tuple[int, ...], seed: int, expansion: float | None = None) -> Drawn:
        """Random images: at most *n*, and fewer where a class is too rare for the proportions."""
        if expansion is not None:
            raise InvalidInputError(f"{self.name} holds finished images; an expansion needs a generator")
        if self._labels is None:
            rows = np.random.default_rng(seed).permutation(len(self._images))[:n]
            return Drawn(images=self._images[rows], labels=None)
        there = np.bincount(self._labels, minlength=len(proportions))
        if len(there) > len(proportions):
            raise InvalidInputError(
                f"{self.name} has the label {len(there) - 1}; the real images have the classes 0 to "
                f"{len(proportions) - 1}"
            )
        missing = [
            label for label, (count, share) in enumerate(zip(there, proportions, strict=True)) if share > count == 0
        ]
        if missing:
            raise InvalidInputError(
                f"{self.name} holds no image of class {', '.join(map(str, missing))}; a distance compares all "
                "classes, in the proportions of the real images: add them"
            )
        n = largest_n(there, proportions, n)
        (rows,) = random_subsets(self._labels, class_counts(proportions, n), repeats=1, seed=seed)
        return Drawn(images=self._images[rows], labels=self._labels[rows])

    def seen(self, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
        """Unknown: these images do not say what their generator was trained on."""
        return None


def wanted_labels(card: dict[str, Any], n: int, proportions: tuple[int, ...]) -> Labels | None:
    """Labels to ask a generator for: *n* in these proportions, by class; None if it is unconditional.

    Raises:
        InvalidInputError: the generator has another number of classes than the real images.
    """
    classes = len(card["class_names"])
    if not classes:
        return None
    if classes != len(proportions):
        raise InvalidInputError(
            f"generator {card['generator_id']} has {classes} classes, the real images {len(proportions)}; "
            "measure it against data of its own kind (--data)"
        )
    return np.repeat(np.arange(classes, dtype=np.int64), class_counts(proportions, n))


def largest_n(there: npt.NDArray[np.int64], proportions: tuple[int, ...], n: int) -> int:
    """The largest number of images, at most *n*, whose class counts in these proportions are all there.

    Args:
        there: (K,) images of each class.
        proportions: (K,) numbers ≥ 0.
        n: wanted.
    """
    shares = np.asarray(proportions) / np.sum(proportions)
    # A class gets its share or one less or more, so nothing larger than this can fit.
    n = min(n, int(((there + 1)[shares > 0] / shares[shares > 0]).min()))
    while (class_counts(proportions, n) > there).any():
        n -= 1
    return n


def newest_version(folder: Path) -> Path:
    """*folder* itself if it is a SavedModel, else its highest-numbered subfolder that is one.

    Raises:
        DataError: neither.
    """
    if (folder / "saved_model.pb").is_file():
        return folder
    found = versions(folder) if folder.is_dir() else {}
    whole = [number for number, paths in found.items() if (paths[-1] / "saved_model.pb").is_file()]
    if not whole:
        raise DataError(
            f"{folder}: no SavedModel here; expected saved_model.pb, or folders numbered 1, 2 … that hold one"
        )
    return found[max(whole)][-1]
