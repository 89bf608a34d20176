"""Batches of labeled digits, and their addresses.

An address is a generator id, a label and a row seed. It always gives the same image.
"""

from __future__ import annotations

import base64
import html
import math
import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import numpy.typing as npt

from digitforge_client.contract import ROWS_PER_SEED, SEEDS
from digitforge_client.errors import InvalidInputError, MissingExtraError
from digitforge_client.latent_space import Scaling
from digitforge_client.pictures import grid, png

if TYPE_CHECKING:
    import pandas

#: Digits on the contact sheet of a batch, and digits per row.
_SHEET_DIGITS: Final = 50
_SHEET_COLUMNS: Final = 10


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Addresses(Scaling):
    """Addresses of digits, in order, with their truncation, expansion and class weights if any.

    Raises:
        InvalidInputError: a shape or dtype is wrong, or a row seed is out of range.
    """

    #: None accepts any generator.
    generator_id: str | None
    #: (n,) class numbers. All are −1 for blends of classes and for unconditional generators.
    labels: npt.NDArray[np.int64]
    #: (n,) row seeds.
    seeds: npt.NDArray[np.int64]
    #: (n, K) for blends of classes.
    class_weights: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels.shape != self.seeds.shape or self.seeds.ndim != 1:
            raise InvalidInputError(
                f"labels have shape {self.labels.shape} and row seeds have shape {self.seeds.shape}; "
                "expected (n,) for both"
            )
        if self.class_weights is not None and self.class_weights.shape[:1] != self.seeds.shape:
            raise InvalidInputError(
                f"class_weights have shape {self.class_weights.shape}; expected one row for each of the {len(self)} "
                "row seeds"
            )
        for name, array in (("labels", self.labels), ("row seeds", self.seeds)):
            if array.dtype != np.int64:
                raise InvalidInputError(f"{name} have dtype {array.dtype}; expected int64")
        if len(self) and not 0 <= self.seeds.min() <= self.seeds.max() < SEEDS * ROWS_PER_SEED:
            raise InvalidInputError(
                f"row seeds range from {self.seeds.min()} to {self.seeds.max()}; expected 0 to "
                f"{SEEDS * ROWS_PER_SEED - 1}"
            )

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]], *, generator_id: str | None = None) -> Self:
        """Make addresses from pairs of label and row seed.

        Raises:
            InvalidInputError: *pairs* are not pairs of integers.
        """
        try:
            array = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInputError(f"addresses are invalid ({error}); expected pairs of label and row seed") from error
        return cls(generator_id=generator_id, labels=array[:, 0].copy(), seeds=array[:, 1].copy())

    def __len__(self) -> int:
        return len(self.seeds)

    def __repr__(self) -> str:
        return f"Addresses({_described(self)})"

    def __getitem__(self, which: Any) -> Addresses:
        """Select addresses with a position, a slice, or an array of positions or booleans."""
        rows, weights = _selection(which), self.class_weights
        return replace(
            self,
            labels=self.labels[rows],
            seeds=self.seeds[rows],
            class_weights=None if weights is None else weights[rows],
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Batch(Scaling):
    """Digits, in the requested order.

    Row *i* has the address ``(generator_id, labels[i], seeds[i])``. Truncation, expansion and class weights belong to
    the address too, if they were given.
    """

    #: (n, H, W), or (n, H, W, C) if C > 1.
    images: npt.NDArray[np.uint8]
    #: (n,) class numbers. All are −1 for blends of classes and for unconditional generators.
    labels: npt.NDArray[np.int64]
    #: (n,) row seeds.
    seeds: npt.NDArray[np.int64]
    #: Empty only in an empty batch that was made without asking a server.
    generator_id: str
    #: The user's seed, given or drawn. None if the digits were requested by address.
    seed: int | None
    #: (n, K) for blends of classes.
    class_weights: npt.NDArray[np.float32] | None = None
    #: Names of the classes 0, 1 … of the generator. Empty if it has no classes, or if the names are unknown.
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"Batch({_described(self)}{seed})"

    def _repr_html_(self) -> str:
        """A contact sheet of the first digits, with their labels, for notebooks."""
        shown = min(len(self), _SHEET_DIGITS)
        caption = html.escape(repr(self) + (f", the first {shown}:" if shown < len(self) else ""))
        if not shown:
            return f"<p>{caption}</p>"
        columns = min(shown, _SHEET_COLUMNS)
        sheet = base64.b64encode(png(grid(self.images[:shown], columns))).decode()
        labels = [str(label) if label >= 0 else "–" for label in self.labels[:shown].tolist()]
        lines = [" ".join(labels[at : at + columns]) for at in range(0, shown, columns)]
        width = columns * max(2 * self.images.shape[2], 32)
        return (
            f'<figure><figcaption>{caption}</figcaption><img src="data:image/png;base64,{sheet}" alt="{shown} images" '
            f'style="width: {width}px; max-width: 100%; image-rendering: pixelated"><pre>labels\n'
            + "\n".join(lines)
            + "</pre></figure>"
        )

    def __getitem__(self, which: Any) -> Batch:
        """Select digits with a position, a slice, or an array of positions or booleans.

        ::

            batch[:10], batch[-1], batch[batch.labels == 3]
        """
        rows, weights = _selection(which), self.class_weights
        return replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            seeds=self.seeds[rows],
            class_weights=None if weights is None else weights[rows],
        )

    def to_pandas(self) -> pandas.DataFrame:
        """Make a table with one row per digit.

        Returns:
            The columns ``label`` (int64), ``seed`` (int64, row seeds), and ``pixel0``, ``pixel1``, … (uint8, H·W·C of
            them). ``attrs`` holds the generator id.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                "Batch.to_pandas needs pandas, which is not installed; run: pip install pandas"
            ) from error
        pixels = self.images.reshape(len(self), math.prod(self.images.shape[1:]))
        table = pandas.DataFrame(pixels, columns=[f"pixel{number}" for number in range(pixels.shape[1])])
        table.insert(0, "label", self.labels)
        table.insert(1, "seed", self.seeds)
        table.attrs["generator_id"] = self.generator_id
        return table

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the digits, with their addresses, to a file. An existing file is replaced.

        Args:
            path: a name that ends in .npz, .tfrecord, .parquet or .png. A picture holds no addresses.

        Raises:
            InvalidInputError: the batch is empty, or does not fit the format.
            DataError: the file cannot be written.
            MissingExtraError: the format needs a library that is not installed.
        """
        from digitforge_client.datasets.writers import save

        save(self, Path(path))

    @property
    def addresses(self) -> Addresses:
        """The addresses of these digits. `DigitClient.fetch` returns the same digits for them."""
        return Addresses(
            generator_id=self.generator_id,
            labels=self.labels,
            seeds=self.seeds,
            class_weights=self.class_weights,
            **self.scaling,
        )

    @property
    def start(self) -> int | None:
        """Row number of the first digit. None if the batch is empty or was requested by address."""
        return None if self.seed is None or not len(self) else int(self.seeds[0] % ROWS_PER_SEED)


def _described(digits: Addresses | Batch) -> str:
    """Number and generator of digits, and what else their addresses contain."""
    size = " of " + " × ".join(map(str, digits.images.shape[1:])) if isinstance(digits, Batch) else ""
    parts = [f"{len(digits)} image{'' if len(digits) == 1 else 's'}{size}"]
    parts += [f"generator {digits.generator_id}"] if digits.generator_id else []
    parts += [f"{name} {value:g}" for name, value in digits.scaling.items()]
    parts += ["blends of classes"] if digits.class_weights is not None else []
    return ", ".join(parts)


def _selection(which: Any) -> Any:
    """Check an index. A single position selects one row.

    Raises:
        InvalidInputError: *which* is not a position, a slice, or a vector of positions or booleans.
    """
    if isinstance(which, slice):
        return which
    rows = np.asarray(which)
    if not rows.size and rows.dtype.kind == "f":  # an empty list
        rows = rows.astype(np.int64)
    if rows.dtype.kind not in "iub" or rows.ndim > 1 or (rows.ndim == 0 and rows.dtype.kind == "b"):
        raise InvalidInputError(
            f"the index is {which!r}; expected a position, a slice, or a vector of positions or booleans"
        )
    return np.atleast_1d(rows)


#: The batches of a stream. Closing the generator cancels its requests.
Batches = Generator[Batch, None, None]


def addresses_of(digits: Batch | Addresses | Iterable[tuple[int, int]]) -> Addresses:
    """Turn a batch, or pairs of label and row seed, into addresses.

    Raises:
        InvalidInputError: *digits* are not addresses.
    """
    if isinstance(digits, Batch):
        return digits.addresses
    return digits if isinstance(digits, Addresses) else Addresses.of(digits)
