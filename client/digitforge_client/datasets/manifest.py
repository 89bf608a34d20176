"""What a data set in shards is: which addresses each shard holds, and the checksums of those that are finished.

The manifest is a JSON file, ``manifest.json``, beside the shards. It names all shards from the beginning on, and is
written anew, whole, whenever one is finished.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, cast

from digitforge_client.common.files import replacing
from digitforge_client.contract import ROWS_PER_SEED, check_seed, row_seeds
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_client.latent_space import SCALING, Scaling
from digitforge_client.protocol.rows import SampleOptions

NAME: Final = "manifest.json"
#: Raised when older programs would misread a manifest; they read none of a later version. Since 2: expansion.
MANIFEST_VERSION: Final = 2
#: Formats of one file for each shard, which can be read again.
FORMATS: Final = ("npz", "tfrecord", "parquet")
#: A shard is put together in memory: 784 MB of MNIST-sized digits.
MOST_ROWS: Final = 1_000_000
#: The manifest is written anew for each; enough for all rows of a seed.
MOST_SHARDS: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Plan(Scaling):
    """Which digits a data set holds, and in what shards; checked."""

    n: int
    seed: int
    start: int = 0  # row of the seed to begin with
    label: int | None = None  # the one class of all digits; None: row i has class i mod K
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
        row_seeds(self.seed, 0, self.start + self.n)  # raises where the seed has not so many rows
        if self.format not in FORMATS:
            raise InvalidInputError(f"format is {self.format!r}; expected one of {', '.join(FORMATS)}")
        if self.rows_per_shard > MOST_ROWS:
            raise InvalidInputError(
                f"{self.rows_per_shard} digits in one shard; {MOST_ROWS} at most are held in memory at once"
            )
        if self.shard_count > MOST_SHARDS:
            raise InvalidInputError(
                f"{self.shard_count} shards; expected {MOST_SHARDS} at most: put more than {self.rows_per_shard} "
                "digits into each"
            )

    @property
    def shard_count(self) -> int:
        """How many shards there are; only the last may hold fewer rows than the others."""
        return -(-self.n // self.rows_per_shard)

    def shards(self) -> list[Shard]:
        """The shards, none of them finished: consecutive rows of one seed, so that no two share an address."""
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

    file: str
    start: int
    n: int
    bytes: int | None = None  # None until it is finished
    sha256: str | None = None  # of the file, hexadecimal; None until it is finished

    @property
    def finished(self) -> bool:
        """Whether it was written whole."""
        return self.sha256 is not None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A data set in shards, in the making or finished."""

    plan: Plan
    card: Mapping[str, Any]  # of the generator
    shards: tuple[Shard, ...]  # of the plan, in order

    @classmethod
    def new(cls, plan: Plan, card: Mapping[str, Any]) -> Self:
        """A manifest of which nothing is finished."""
        return cls(plan=plan, card=card, shards=tuple(plan.shards()))

    @property
    def generator_id(self) -> str:
        """Of the generator whose digits these are."""
        return str(self.card["generator_id"])

    @property
    def finished(self) -> int:
        """How many shards are."""
        return sum(shard.finished for shard in self.shards)

    def with_shard(self, number: int, shard: Shard) -> Self:
        """The same with one shard replaced."""
        return replace(self, shards=(*self.shards[:number], shard, *self.shards[number + 1 :]))

    def save(self, folder: Path) -> None:
        """Write it into the folder, whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        head = {"manifest_version": MANIFEST_VERSION, "generator_id": self.generator_id}
        text = json.dumps(head | asdict(self.plan) | {"card": self.card}, indent=2, ensure_ascii=False)
        lines = ",\n".join("    " + json.dumps(self._described(shard)) for shard in self.shards)
        with replacing(folder / NAME) as file:
            file.write(f'{text[:-2]},\n  "shards": [\n{lines}\n  ]\n}}\n'.encode())

    def _described(self, shard: Shard) -> dict[str, Any]:
        """A shard as it stands in the file, with its row seeds, which follow from the plan, spelled out for readers."""
        first = self.plan.seed * ROWS_PER_SEED + shard.start
        return asdict(shard) | {"row_seeds": [first, first + shard.n - 1]}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it from the folder.

        Raises:
            DataError: there is none, or none that this release can read, or its shards are not those of its plan.
        """
        path = folder / NAME
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"cannot read {path}: {getattr(error, 'strerror', None) or error}; name a folder that "
                "`digitforge generate` made"
            ) from error
        try:
            fields = dict.fromkeys(SCALING) | json.loads(text)  # earlier versions had fewer
            if fields["manifest_version"] not in (1, MANIFEST_VERSION):
                raise DataError(
                    f"{path} has version {fields['manifest_version']!r}; this release of digitforge reads versions 1 "
                    f"to {MANIFEST_VERSION}: install the release that wrote it"
                )
            plan = Plan(**{name: fields[name] for name in Plan.__dataclass_fields__})
            shards = tuple(
                Shard(**{name: shard[name] for name in Shard.__dataclass_fields__}) for shard in fields["shards"]
            )
            manifest = cls(plan=plan, card=fields["card"], shards=shards)
            same = [replace(shard, bytes=None, sha256=None) for shard in shards] == plan.shards()
            whole = same and manifest.generator_id == fields["generator_id"]
        except (ValueError, KeyError, TypeError, InvalidInputError) as error:
            raise DataError(f"{path} is no manifest of `digitforge generate`: {error}") from error
        if not whole:
            raise DataError(f"{path} contradicts itself: its shards are not those of its plan; it was changed")
        return manifest
