"""Sources of images to measure: a server, a SavedModel in a folder, or existing images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from digitforge_client import DigitClient
from digitforge_client.common.json_text import parse_json
from digitforge_client.common.versions import newest_version
from digitforge_client.contract import MAX_ROWS, Field, Signature, row_seeds
from digitforge_client.errors import DataError, InvalidInputError, UnexpectedReplyError
from digitforge_client.latent_space import Scaling, expanded
from digitforge_client.protocol.description import describe_card
from digitforge_evaluation.images.proportions import class_counts, random_subsets
from digitforge_training.data import DataSource, load_images

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """Images to measure."""

    images: Images  #: (n, H, W, C)
    labels: Labels | None  #: (n,) the requested classes; None for images without labels


class Source(Protocol):
    """A source of images to measure."""

    @property
    def name(self) -> str:
        """Name of the source in reports."""

    @property
    def card(self) -> dict[str, Any] | None:
        """The generator's card; None for images of unknown origin."""

    def draw(self, n: int, *, proportions: tuple[int, ...], seed: int, expansion: float | None = None) -> Drawn:
        """Draw *n* images, or as many as possible, in these class proportions if there are classes.

        Args:
            n: number of images.
            proportions: class proportions.
            seed: the same seed gives the same images.
            expansion: factor on the generator's latents; None leaves them unchanged.

        Raises:
            InvalidInputError: the source cannot draw such images; the message says why.
        """

    def seen(self, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
        """Tell which images the generator was trained on.

        Args:
            hashes: (n,) hashes of the images, from `digitforge_client.contract.image_hashes`.

        Returns:
            (n,) bool; None if the source does not know.
        """


class ServedGenerator:
    """A generator on a server, over gRPC."""

    def __init__(self, client: DigitClient, target: str) -> None:
        """Use a client of *target*. The caller closes it."""
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
    """An exported generator in a folder. It runs in this process."""

    def __init__(self, folder: Path) -> None:
        """Load the SavedModel in *folder*, or the newest one if *folder* holds numbered versions.

        Raises:
            DataError: there is no SavedModel, or it is not an exported generator.
        """
        path = newest_version(folder)  # before TensorFlow is imported, so a wrong folder fails at once
        self.name = str(path)
        import tensorflow as tf

        try:
            self._model = tf.saved_model.load(str(path))
            self._signatures = self._model.signatures
            card = self._signatures[Signature.CARD](**{Field.ROWS: tf.zeros(1, tf.int64)})[Field.CARD]
            self.card: dict[str, Any] = parse_json(card.numpy()[0])
            describe_card(self.card)  # raises an error if it breaks the contract
            self._sample = self._signatures[Signature.SAMPLE]
            self._latents = self._signatures[Signature.LATENTS]
            self._from_latents = self._signatures[Signature.FROM_LATENTS]
            self._seen = self._signatures[Signature.SEEN]
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            UnexpectedReplyError,
            tf.errors.OpError,
        ) as error:
            raise DataError(
                f"{path}: not a generator exported by digitforge ({error}); make one with `digitforge export`"
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
    """Existing images of unknown origin, with or without labels."""

    card = None

    def __init__(
        self, images: Images, labels: Labels | None, name: str, *, class_names: Sequence[str] | None = None
    ) -> None:
        """Use (n, H, W, C) uint8 images, n ≥ 1, and (n,) int64 labels ≥ 0.

        Args:
            images: the images.
            labels: their classes, or None.
            name: name in reports.
            class_names: names of the labels 0, 1 …; None: the labels are the numbers of the real images' classes.

        Raises:
            InvalidInputError: *images* or *labels* have a wrong shape, dtype or range.
        """
        if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
            raise InvalidInputError(
                f"{name}: images have dtype {images.dtype} and shape {images.shape}; expected uint8 (n, H, W, C), n ≥ 1"
            )
        if labels is not None and (labels.shape != (len(images),) or labels.dtype != np.int64):
            raise InvalidInputError(
                f"{name}: labels have dtype {labels.dtype} and shape {labels.shape}; expected one int64 for each of "
                f"{len(images)} images"
            )
        if labels is not None and labels.min() < 0:
            raise InvalidInputError(f"{name}: the smallest label is {labels.min()}; expected labels ≥ 0")
        self.name = name
        self._images = images
        self._labels = labels
        self._class_names = class_names

    @classmethod
    def read(cls, source: str | Path | DataSource, **options: Any) -> Self:
        """Read all images of a source, of both splits. Arguments and errors are those of `load_images`."""
        found = load_images(source, **options)
        name = source.source if isinstance(source, DataSource) else str(source)
        if found.labels is None or found.named:
            return cls(found.images, found.labels, name, class_names=found.class_names)
        numbers = np.array([int(each) for each in found.class_names], dtype=np.int64)
        return cls(found.images, numbers[found.labels], name)

    def in_classes(self, names: Sequence[str]) -> ImageSet:
        """The same images, with the labels of real images that have the classes *names*.

        Classes are matched by name. Labels without names are class names if all of them occur in *names*, as for
        EMNIST's letters 1 to 26. Otherwise they are numbers of classes.

        Raises:
            InvalidInputError: a class does not occur in *names*.
        """
        if self._labels is None:
            return self
        present, inverse = np.unique(self._labels, return_inverse=True)
        given = [str(label) if self._class_names is None else self._class_names[label] for label in present]
        unknown = [name for name in given if name not in names]
        if self._class_names is None and unknown:
            return self
        if unknown:
            raise InvalidInputError(
                f"{self.name} has the class {unknown[0]}; the real images have {', '.join(names)}; rename it, or "
                "measure the images against a data set with their own classes (--data)"
            )
        labels = np.array([list(names).index(name) for name in given], dtype=np.int64)[inverse.reshape(-1)]
        return ImageSet(self._images, labels, self.name)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def draw(self, n: int, *, proportions: tuple[int, ...], seed: int, expansion: float | None = None) -> Drawn:
        """Choose random images: *n*, or fewer if some class has too few images for the proportions."""
        if expansion is not None:
            raise InvalidInputError(f"{self.name} holds existing images; an expansion needs a generator")
        if self._labels is None:
            rows = np.random.default_rng(seed).permutation(len(self._images))[:n]
            return Drawn(images=self._images[rows], labels=None)
        available = np.bincount(self._labels, minlength=len(proportions))
        if len(available) > len(proportions):
            raise InvalidInputError(
                f"{self.name} has the label {len(available) - 1}; expected 0 to {len(proportions) - 1}, the classes of "
                "the real images"
            )
        missing = [
            label for label, (count, share) in enumerate(zip(available, proportions, strict=True)) if share > count == 0
        ]
        if missing:
            raise InvalidInputError(
                f"{self.name} has no images of class {', '.join(map(str, missing))}; add some: the metrics compare all "
                "classes, in the proportions of the real images"
            )
        n = largest_n(available, proportions, n)
        (rows,) = random_subsets(self._labels, class_counts(proportions, n), repeats=1, seed=seed)
        return Drawn(images=self._images[rows], labels=self._labels[rows])

    def seen(self, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
        """Return None: it is unknown what the images' generator was trained on."""
        return None


def wanted_labels(card: dict[str, Any], n: int, proportions: tuple[int, ...]) -> Labels | None:
    """The labels to request from a generator: *n* in these proportions, sorted. None if it is unconditional.

    Raises:
        InvalidInputError: the generator and the real images have different numbers of classes.
    """
    classes = len(card["class_names"])
    if not classes:
        return None
    if classes != len(proportions):
        raise InvalidInputError(
            f"generator {card['generator_id']} has {classes} classes, but the real images have {len(proportions)}; "
            "measure it against a data set with its own classes (--data)"
        )
    return np.repeat(np.arange(classes, dtype=np.int64), class_counts(proportions, n))


def largest_n(available: npt.NDArray[np.int64], proportions: tuple[int, ...], n: int) -> int:
    """The largest number of images, at most *n*, for which every class has enough images.

    Args:
        available: (K,) images of each class.
        proportions: (K,) numbers ≥ 0.
        n: requested number of images.
    """
    shares = np.asarray(proportions) / np.sum(proportions)
    # An upper bound, because the count of a class differs from its exact share by less than one.
    n = min(n, int(((available + 1)[shares > 0] / shares[shares > 0]).min()))
    while (class_counts(proportions, n) > available).any():
        n -= 1
    return n
