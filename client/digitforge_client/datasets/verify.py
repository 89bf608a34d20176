"""Checks a data set in shards: its files against the checksums, and its digits against the server's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from digitforge_client.batch import Batch
from digitforge_client.client import DigitClient
from digitforge_client.contract import SAME_SHARE, SAME_WITHIN, balanced_labels, row_seeds
from digitforge_client.datasets.generate import checksum, digits_of
from digitforge_client.datasets.manifest import Manifest, Shard
from digitforge_client.datasets.readers import read
from digitforge_client.errors import DataError

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Difference between the digits of a shard and the server's digits for the same addresses."""

    shard: Shard
    #: Number of compared pixels.
    pixels: int
    #: Number of pixels that differ.
    differing: int
    #: Largest difference, in gray levels.
    largest: int

    @property
    def tolerable(self) -> bool:
        """Whether the contract counts them as the same digits."""
        return self.largest <= SAME_WITHIN and self.differing <= (1 - SAME_SHARE) * self.pixels


def problem_of(folder: Path, shard: Shard) -> str | None:
    """Check a finished shard's file against the manifest. Describe the problem, or return None if there is none."""
    path = folder / shard.file
    try:
        size = path.stat().st_size
    except OSError:
        return f"{shard.file} is missing"
    if size != shard.bytes:
        return f"{shard.file} has {size} bytes instead of {shard.bytes}"
    try:
        return None if checksum(path) == shard.sha256 else f"{shard.file} was changed: its checksum differs"
    except DataError as error:
        return str(error)


def spread(shards: list[Shard], count: int) -> list[Shard]:
    """Select *count* shards, evenly spread, including the first and the last."""
    places = np.linspace(0, len(shards) - 1, min(count, len(shards))).round().astype(int)
    return [shards[place] for place in places]


def compare(
    client: DigitClient, folder: Path, manifest: Manifest, shard: Shard, *, advance: Advance = lambda _: None
) -> Difference:
    """Request a shard's digits again, and compare them with the file.

    Args:
        client: the client of a server with the manifest's generator.
        folder: the folder of the data set.
        manifest: its manifest.
        shard: the shard to compare.
        advance: called with the number of newly compared digits.

    Raises:
        DataError: the shard cannot be read, or its addresses differ from the manifest.
        GeneratorChangedError: the server has another generator.
        ServerError: the server could not answer; the subclass says why.
        MissingExtraError: a library is needed that is not installed.
    """
    plan = manifest.plan
    stored = read(folder / shard.file, plan.format)
    _check_addresses(folder / shard.file, stored, manifest, shard)
    differing = largest = done = 0
    for batch in digits_of(client, plan, shard, generator_id=manifest.generator_id):
        difference = np.abs(stored.images[done : done + len(batch)].astype(np.int16) - batch.images)
        differing += int(np.count_nonzero(difference))
        largest = max(largest, int(difference.max()))
        done += len(batch)
        advance(len(batch))
    return Difference(shard=shard, pixels=stored.images.size, differing=differing, largest=largest)


def _check_addresses(path: Path, stored: Batch, manifest: Manifest, shard: Shard) -> None:
    """Raise DataError if the addresses in a file differ from the manifest."""
    plan, classes = manifest.plan, len(manifest.card["class_names"])
    if plan.label is not None:
        labels = np.full(shard.n, plan.label)
    else:
        labels = balanced_labels(shard.n, classes, shard.start) if classes else np.full(shard.n, -1)
    same = (
        stored.generator_id == manifest.generator_id
        and len(stored.images) == shard.n
        and np.array_equal(stored.seeds, row_seeds(plan.seed, shard.n, shard.start))
        and np.array_equal(stored.labels, labels)
        and list(np.atleast_3d(stored.images[0]).shape) == list(manifest.card["image_shape"])
    )
    if not same:
        raise DataError(
            f"the addresses in {path} differ from the manifest, so it holds other images; remove the file and generate "
            "it again"
        )
