"""Checks whether a generator can be measured against these real images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from digitforge_client.contract import image_hashes
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.images.seen import seen_images
from digitforge_evaluation.images.sources import Drawn, ImageSet, Source
from digitforge_evaluation.quality.comparison import RealData
from digitforge_evaluation.quality.reference import Reference, shipped_reference
from digitforge_training.data.fitting import options_for

#: The classes that digitnet-64 knows.
DIGITS = tuple(str(digit) for digit in range(10))


def refuse_unsuitable(source: Source, real: RealData | None) -> None:
    """Check that the generator fits the held-out images, before anything is computed.

    Args:
        source: the generator, or images of unknown origin.
        real: the real images; None for the shipped statistics of MNIST's test images.

    Raises:
        InvalidInputError: the generator has seen a held-out image, or has other classes or images of another shape.
    """
    if real:
        name, held_out, sha256 = f"{real.test.name} {real.test.split}", len(real.test), real.test.sha256
        seen = seen_images(source, real.test)
    else:
        shipped = shipped_reference()
        name, held_out, sha256 = shipped.name, len(shipped.hashes), shipped.sha256
        seen = source.seen(shipped.hashes)
    count = 0 if seen is None else int(seen.sum())
    card = source.card or {}
    if count or card.get("training_data", {}).get("sha256") == sha256:
        raise InvalidInputError(
            f"{source.name} was trained on {count or 'all'} of the {held_out} held-out images ({name}); measure it "
            "against images that it has not seen (--data)"
        )
    made = tuple(card.get("class_names", ()))
    shown = real.test.class_names if real else DIGITS
    if made and made != shown:
        raise InvalidInputError(
            f"{source.name} makes the classes {', '.join(made)}, but {name} has {', '.join(shown)}; measure it against "
            "a data set with its own classes (--data)"
        )
    if "image_shape" in card:
        refuse_other_shape(source, tuple(card["image_shape"]), real)


def matched(source: Source, real: RealData | None) -> Source:
    """The source with the labels of the real images. Only labels of existing images may differ.

    Raises:
        InvalidInputError: the images have a class that the real images lack.
    """
    return source.in_classes(real.test.class_names if real else DIGITS) if isinstance(source, ImageSet) else source


def refuse_other_shape(source: Source, made: Sequence[int], real: RealData | None) -> None:
    """Check that generated images, of the shape *made*, have the size and channels of the real images.

    Raises:
        InvalidInputError: they differ. The message names the options that help.
    """
    made, shown = tuple(made), real.test.images.shape[1:] if real else (28, 28, 1)
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
