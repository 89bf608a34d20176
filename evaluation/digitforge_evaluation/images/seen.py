"""Tells which real images a generator was trained on, even if they were fitted in another way for its training."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from digitforge_client.contract import image_hashes
from digitforge_client.errors import DigitforgeError, InvalidInputError
from digitforge_evaluation.images.sources import Source
from digitforge_training.data import Dataset, load
from digitforge_training.data.fitting import Fitting


def fitted(card: dict[str, Any] | None) -> Fitting | None:
    """How a generator's training images were fitted. None if its card does not say."""
    try:
        stated = (card or {})["training_data"]["fitted"]
        return Fitting(**{field.name: stated[field.name] for field in fields(Fitting)})
    except (KeyError, TypeError, InvalidInputError):  # the card of an older version, or of a server that makes errors
        return None


def seen_images(source: Source, data: Dataset) -> npt.NDArray[np.bool_] | None:
    """Tell which images of *data* the generator was trained on.

    A generator knows its training images by hashes of their pixels. So this function also asks for the images as they
    were fitted for the training, if the card says so, and for transposed images.

    Returns:
        (n,) bool; None if the source does not know.
    """
    seen = source.seen(image_hashes(data.images))
    if seen is None:
        return None
    others = [np.ascontiguousarray(data.images.swapaxes(1, 2))]
    then = fitted(source.card)
    if data.origin is not None and then is not None and then != data.origin.fitting:
        try:
            again = load(replace(data.origin, **then.as_dict()), split="train" if data.split == "train" else "test")
        except DigitforgeError:  # these images cannot be fitted like that, so the generator has not seen them
            again = None
        if again is not None and len(again) == len(data):
            others.append(again.images)
    for images in others:
        also = source.seen(image_hashes(images))
        seen = seen if also is None else seen | also
    return seen
