"""Checks whether a generator can be measured against these real images."""

from __future__ import annotations

import numpy as np

from digitforge_client.contract import image_hashes
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features.extract import FeatureNetwork
from digitforge_evaluation.images.sources import Drawn, Source
from digitforge_evaluation.quality.comparison import RealData
from digitforge_evaluation.quality.reference import Reference

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
    seen = source.seen(reference.hashes)
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
