"""Which generators can be measured against which real images."""

from __future__ import annotations

import numpy as np

from digitforge_client.contract import image_hashes
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.features.extract import FeatureNetwork
from digitforge_evaluation.images.sources import Drawn, Source
from digitforge_evaluation.quality.comparison import RealData
from digitforge_evaluation.quality.reference import Reference

#: The classes that a network of digits can judge.
DIGITS = tuple(str(digit) for digit in range(10))


def refuse_unsuitable(source: Source, network: FeatureNetwork, reference: Reference, real: RealData | None) -> None:
    """Refuse a generator that has seen a held-out image or makes other classes, and features without statistics.

    Raises:
        InvalidInputError: it is one.
    """
    if reference.features != network.name:
        raise InvalidInputError(
            f"the shipped statistics are in the features {reference.features}, not {network.name}; give real images "
            "(--data)"
        )
    seen = source.seen(reference.hashes)
    count = 0 if seen is None else int(seen.sum())
    trained_on = (source.card or {}).get("training_data", {}).get("sha256")
    if count or trained_on == reference.sha256:
        raise InvalidInputError(
            f"{source.name} was trained on {count or 'all'} of the {len(reference.hashes)} held-out images "
            f"({reference.name}); measure it against images it has not seen (--data)"
        )
    made = tuple((source.card or {}).get("class_names", ()))
    shown = real.test.class_names if real else DIGITS
    if made and made != shown:
        raise InvalidInputError(
            f"{source.name} makes the classes {', '.join(made)}, but {reference.name} shows {', '.join(shown)}; "
            "measure it against data of its own kind (--data)"
        )


def refuse_copies(drawn: Drawn, reference: Reference) -> None:
    """Refuse images that are themselves held out.

    Raises:
        InvalidInputError: one is.
    """
    copies = int(np.isin(image_hashes(drawn.images), reference.hashes).sum())
    if copies:
        raise InvalidInputError(
            f"{copies} of the {len(drawn.images)} images are themselves among the held-out images ({reference.name}); "
            "measure them against images that they do not hold (--data)"
        )


def shows_digits(source: Source, real: RealData | None) -> bool:
    """Whether the classes are the ten digits: a network that knows digits says nothing of other classes."""
    made = tuple((source.card or {}).get("class_names", ())) or (real.test.class_names if real else DIGITS)
    return made == DIGITS
