"""Is a data set in shards what its manifest says? Files against checksums, and digits against the server's."""

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
    """How far the digits of a shard are from those that the server gives for the same addresses."""

    shard: Shard
    pixels: int  # compared
    differing: int  # pixels that are not equal
    largest: int  # difference in gray levels

    @property
    def tolerable(self) -> bool:
        """Whether they are the same digits, as the contract has it."""
        return self.largest <= SAME_WITHIN and self.differing <= (1 - SAME_SHARE) * self.pixels


def problem_of(folder: Path, shard: Shard) -> str | None:
    """What is wrong with a finished shard's file, in words; None if it is the one that was written."""
    path = folder / shard.file
    try:
        size = path.stat().st_size
    except OSError:
        return f"{shard.file} is missing"
    if size != shard.bytes:
        return f"{shard.file} has {size} bytes instead of {shard.bytes}"
    try:
        return None if checksum(path) == shard.sha256 else f"{shard.file} has another checksum: it was changed"
    except DataError as error:
        return str(error)


def spread(shards: list[Shard], count: int) -> list[Shard]:
    """So many of the shards, evenly spread, the first and the last among them."""
    places = np.linspace(0, len(shards) - 1, min(count, len(shards))).round().astype(int)
    return [shards[place] for place in places]


def compare(
    client: DigitClient, folder: Path, manifest: Manifest, shard: Shard, *, advance: Advance = lambda _: None
) -> Difference:
    """Ask for a shard's digits again, and compare.

    Args:
        client: of a server with the generator of the manifest.
        folder: where the shards are.
        manifest: what they should be.
        shard: which of them.
        advance: called with a number of digits whenever so many more were compared.

    Raises:
        DataError: the shard cannot be read, or holds other addresses than the manifest says.
        GeneratorChangedError: the server has another generator.
        ServerError: the server could not answer; its subclasses say why.
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
    """Refuse a file that holds other addresses than the manifest says."""
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
        raise DataError(f"{path} holds other digits than the manifest says: their addresses differ")
