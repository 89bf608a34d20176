"""The part of a data set that each process of a distributed training reads."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from digitforge_client.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class Rank:
    """The number of this process among the processes of a distributed training."""

    #: 0 … world_size − 1.
    rank: int = 0
    #: Number of processes.
    world_size: int = 1

    @classmethod
    def of(cls, rank: int | None, world_size: int | None) -> Self | None:
        """Check the arguments *rank* and *world_size* of an adapter. None if both are None.

        Raises:
            InvalidInputError: a number is out of range, or only one of them is given.
        """
        if rank is None and world_size is None:
            return None
        numbers = [isinstance(one, int | np.integer) and not isinstance(one, bool) for one in (rank, world_size)]
        if rank is None or world_size is None or not all(numbers) or not 0 <= rank < world_size:
            raise InvalidInputError(
                f"rank is {rank!r} and world_size is {world_size!r}; expected both, as integers, with rank from 0 to "
                "world_size − 1, or neither"
            )
        return cls(rank=int(rank), world_size=int(world_size))

    @classmethod
    def current(cls) -> Self:
        """The rank in PyTorch's default process group. Without one, this process is the only one."""
        distributed: Any = sys.modules.get("torch.distributed")  # a training that uses it has imported it
        if distributed is None or not distributed.is_available() or not distributed.is_initialized():
            return cls()
        return cls(rank=distributed.get_rank(), world_size=distributed.get_world_size())

    def part(self, n: int) -> tuple[int, int]:
        """First row of this rank's part of *n* rows, and the row after its last.

        Raises:
            InvalidInputError: the ranks would get different numbers of rows. A training in step would then hang.
        """
        if n % self.world_size:
            lower = n - n % self.world_size
            raise InvalidInputError(
                f"n is {n}, but {self.world_size} ranks must get equally many images; expected a multiple of "
                f"{self.world_size}, such as {lower or lower + self.world_size}"
            )
        share = n // self.world_size
        return self.rank * share, (self.rank + 1) * share


class Sharded:
    """Base class of data sets that give each rank its own part."""

    #: The given rank. None: the current one, at each use.
    _rank: Rank | None

    def _shard(self) -> Rank:
        return self._rank or Rank.current()

    def __getstate__(self) -> dict[str, Any]:
        """The state for worker processes. They may lack the process group, so the rank goes with the data set."""
        current = Rank.current()
        rank = self._rank or (current if current.world_size > 1 else None)
        return self.__dict__ | {"_rank": rank}
