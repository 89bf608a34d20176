"""Checks whether a generator can be measured against these real images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from digitforge_client.contract import image_hashes
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features.extract import FeatureNetwork
from digitforge_evaluation.images.seen import seen_images
from digitforge_evaluation.images.sources import Drawn, ImageSet, Source
from digitforge_evaluation.quality.comparison import RealData
from digitforge_evaluation.quality.reference import Reference
from digitforge_training.data.fitting import options_for

#: The classes that digitnet-64 knows.
DIGITS = tuple(str(digit) for digit in range(10))


def refuse_unsuitable(source: Source, network: FeatureNetwork, reference: Reference, real: RealData | None) -> None:
    """Check that the statistics fit the features, and that the generator fits the held-out images.

    Raises:
        InvalidInputError: the statistics are in other features, or the generator has seen a held-out image or has
            other classes.
    """
    if reference.features != network.name:
        raise InvalidInputError(
            f"the shipped statistics are for the features {reference.features}, not {network.name}; give real images "
            "(--data)"
        )
    seen = seen_images(source, real.test) if real else source.seen(reference.hashes)
    count = 0 if seen is None else int(seen.sum())
    trained_on = (source.card or {}).get("training_data", {}).get("sha256")
    if count or trained_on == reference.sha256:
        raise InvalidInputError(
            f"{source.name} was trained on {count or 'all'} of the {len(reference.hashes)} held-out images "
            f"({reference.name}); measure it against images that it has not seen (--data)"
        )
    made = tuple((source.card or {}).get("class_names", ()))
    shown = real.test.class_names if real else DIGITS
    if made and made != shown:
        raise InvalidInputError(
            f"{source.name} makes the classes {', '.join(made)}, but {reference.name} has {', '.join(shown)}; "
            "measure it against a data set with its own classes (--data)"
        )


def matched(source: Source, real: RealData | None) -> Source:
    """The source with the labels of the real images. Only labels of existing images may differ.

    Raises:
        InvalidInputError: the images have a class that the real images lack.
    """
    return source.in_classes(real.test.class_names if real else DIGITS) if isinstance(source, ImageSet) else source


def refuse_other_shape(source: Source, drawn: Drawn, real: RealData | None) -> None:
    """Check that generated and real images have the same size and channels.

    Raises:
        InvalidInputError: they differ. The message names the options that help.
    """
    made, shown = drawn.images.shape[1:], real.test.images.shape[1:] if real else (28, 28, 1)
    if made == shown:
        return
    options = options_for(wanted=made, given=shown)
    who = real.test.name if real else "MNIST's statistics"
    advice = f"give {options}" if real and options else "give real images of this kind with --data"
    raise InvalidInputError(
        f"{source.name} has images of {_shape(made)}, but {who} has images of {_shape(shown)}; {advice}"
    )


def _shape(shape: Sequence[int]) -> str:
    return f"{shape[0]}×{shape[1]} pixels in {'gray' if shape[2] == 1 else 'color'}"


def refuse_copies(drawn: Drawn, reference: Reference) -> None:
    """Check that none of the images is a held-out image.

    Raises:
        InvalidInputError: at least one is.
    """
    copies = int(np.isin(image_hashes(drawn.images), reference.hashes).sum())
    if copies:
        raise InvalidInputError(
            f"{copies} of the {len(drawn.images)} images are themselves held-out images ({reference.name}); measure "
            "them against other real images (--data)"
        )


def shows_digits(source: Source, real: RealData | None) -> bool:
    """Whether the classes are the ten digits. The class probabilities of digitnet-64 mean nothing for other classes."""
    made = tuple((source.card or {}).get("class_names", ())) or (real.test.class_names if real else DIGITS)
    return made == DIGITS
