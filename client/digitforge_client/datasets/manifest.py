"""The manifest of a data set in shards: the addresses of each shard, and the checksums of finished shards.

The manifest is a JSON file, ``manifest.json``, in the folder of the shards. It lists all shards from the start, and is
rewritten atomically after each finished shard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, cast

from digitforge_client.common.files import replacing
from digitforge_client.common.json_text import parse_json
from digitforge_client.contract import ROWS_PER_SEED, check_seed, row_seeds
from digitforge_client.errors import DataError, InvalidInputError, UnexpectedReplyError
from digitforge_client.latent_space import SCALING, Scaling
from digitforge_client.protocol.description import describe_card
from digitforge_client.protocol.rows import SampleOptions

NAME: Final = "manifest.json"
#: Version of the file format. Increase it if an older release would misread a new manifest. It then rejects the file.
#: Version 2 added *expansion*.
MANIFEST_VERSION: Final = 2
#: Formats with one file per shard that `readers` can read.
FORMATS: Final = ("npz", "tfrecord", "parquet")
#: Largest number of rows per shard. A shard is built in memory: 784 MB of MNIST-sized digits.
MAX_ROWS_PER_SHARD: Final = 1_000_000
#: Largest number of shards, because the manifest is rewritten after each shard. It is enough for all rows of a seed.
MAX_SHARDS: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Plan(Scaling):
    """The digits of a data set, and how they are split into shards.

    Raises:
        InvalidInputError: a value is out of range.
    """

    #: Number of digits.
    n: int
    seed: int
    #: First row of the seed.
    start: int = 0
    #: Class number of all digits. None: row i has class i mod K.
    label: int | None = None
    #: One of `FORMATS`.
    format: str = "npz"
    rows_per_shard: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)
        for name, least in (("n", 1), ("start", 0), ("rows_per_shard", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInputError(f"{name} is {value!r}; expected an integer, {least} or more")
        if self.label is not None and (isinstance(self.label, bool) or not isinstance(self.label, int)):
            raise InvalidInputError(f"label is {self.label!r}; expected a class number")
        row_seeds(self.seed, 0, self.start + self.n)  # raises an error if the seed has too few rows
        if self.format not in FORMATS:
            raise InvalidInputError(f"format is {self.format!r}; expected one of {', '.join(FORMATS)}")
        if self.rows_per_shard > MAX_ROWS_PER_SHARD:
            raise InvalidInputError(
                f"rows_per_shard is {self.rows_per_shard}; expected at most {MAX_ROWS_PER_SHARD}, because a shard is "
                "built in memory"
            )
        if self.shard_count > MAX_SHARDS:
            raise InvalidInputError(
                f"{self.n} images with rows_per_shard {self.rows_per_shard} make {self.shard_count} shards; expected "
                f"at most {MAX_SHARDS}: use a larger rows_per_shard"
            )

    @property
    def shard_count(self) -> int:
        """Number of shards. Only the last shard may be smaller."""
        return -(-self.n // self.rows_per_shard)

    def shards(self) -> list[Shard]:
        """The shards, all unfinished. They hold consecutive rows of the seed, so no two shards share an address."""
        count = self.shard_count
        return [
            Shard(
                file=f"shard-{number:05}-of-{count:05}.{self.format}",
                start=self.start + number * self.rows_per_shard,
                n=min(self.rows_per_shard, self.n - number * self.rows_per_shard),
            )
            for number in range(count)
        ]

    def sample_options(self, shard: Shard) -> SampleOptions:
        """The options with which `DigitClient.stream` returns the digits of a shard."""
        return cast(SampleOptions, {"labels": self.label, "seed": self.seed, "start": shard.start} | self.scaling)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file: rows *start* to *start + n − 1* of the plan's seed."""

    #: File name.
    file: str
    start: int
    n: int
    #: Size of the file. None until the shard is finished.
    bytes: int | None = None
    #: SHA-256 of the file, hexadecimal. None until the shard is finished.
    sha256: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the file was written completely."""
        return self.sha256 is not None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A data set in shards, finished or not."""

    plan: Plan
    #: The generator's card.
    card: Mapping[str, Any]
    #: All shards of the plan, in order.
    shards: tuple[Shard, ...]

    @classmethod
    def new(cls, plan: Plan, card: Mapping[str, Any]) -> Self:
        """Make the manifest of a new data set, without finished shards."""
        return cls(plan=plan, card=card, shards=tuple(plan.shards()))

    @property
    def generator_id(self) -> str:
        """Id of the generator that made the digits."""
        return str(self.card["generator_id"])

    @property
    def finished(self) -> int:
        """Number of finished shards."""
        return sum(shard.finished for shard in self.shards)

    def with_shard(self, number: int, shard: Shard) -> Self:
        """Return a copy with one shard replaced."""
        return replace(self, shards=(*self.shards[:number], shard, *self.shards[number + 1 :]))

    def save(self, folder: Path) -> None:
        """Write the manifest into the folder, atomically.

        Raises:
            DataError: the file cannot be written.
        """
        head = {"manifest_version": MANIFEST_VERSION, "generator_id": self.generator_id}
        text = json.dumps(head | asdict(self.plan) | {"card": self.card}, indent=2, ensure_ascii=False)
        lines = ",\n".join("    " + json.dumps(self._entry(shard)) for shard in self.shards)
        with replacing(folder / NAME) as file:
            file.write(f'{text[:-2]},\n  "shards": [\n{lines}\n  ]\n}}\n'.encode())

    def _entry(self, shard: Shard) -> dict[str, Any]:
        """The entry of a shard in the file. It includes the row seeds for human readers."""
        first = self.plan.seed * ROWS_PER_SEED + shard.start
        return asdict(shard) | {"row_seeds": [first, first + shard.n - 1]}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the manifest from the folder.

        Raises:
            DataError: the manifest is missing, unreadable or from another release, or its shards contradict its plan.
        """
        path = folder / NAME
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"cannot read {path}: {error.strerror}; expected a folder that `digitforge generate` wrote"
            ) from error
        try:
            fields = dict.fromkeys(SCALING) | parse_json(content)  # earlier versions lack some of these fields
            if fields["manifest_version"] not in (1, MANIFEST_VERSION):
                raise DataError(
                    f"{path} has manifest version {fields['manifest_version']!r}, but this release of digitforge reads "
                    f"versions 1 to {MANIFEST_VERSION}; install the release that wrote it"
                )
            plan = Plan(**{name: fields[name] for name in Plan.__dataclass_fields__})
            shards = tuple(
                Shard(**{name: shard[name] for name in Shard.__dataclass_fields__}) for shard in fields["shards"]
            )
            manifest = cls(plan=plan, card=fields["card"], shards=shards)
            describe_card(manifest.card)  # raises an error if it breaks the contract
            same = [replace(shard, bytes=None, sha256=None) for shard in shards] == plan.shards()
            consistent = same and manifest.generator_id == fields["generator_id"]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, UnexpectedReplyError) as error:
            raise DataError(
                f"{path} is not a manifest of `digitforge generate` ({error!r}); it was changed, so generate the data "
                "set again in a new folder"
            ) from error
        if not consistent:
            raise DataError(
                f"{path} contradicts itself: its shards do not match its plan; it was changed, so generate the data "
                "set again in a new folder"
            )
        return manifest
