"""Synthetic digits as a PyTorch dataset, with any number of DataLoader workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Unpack

import torch
from torch.utils.data import IterableDataset, get_worker_info

from digitforge_client.adapters.ranks import Rank, Sharded
from digitforge_client.client import DigitClient
from digitforge_client.contract import MAX_ROWS
from digitforge_client.errors import InvalidInputError
from digitforge_client.protocol.rows import SampleOptions, SampleSpec, check_stream


class SyntheticDigits(Sharded, IterableDataset):
    """Batches of synthetic digits. Each DataLoader worker requests its own share, with its own connection.

    The dataset yields whole batches, so give the DataLoader ``batch_size=None``::

        digits = SyntheticDigits(DigitClient("localhost:8500"), 60_000, batch_size=64, seed=0)
        loader = DataLoader(digits, batch_size=None, num_workers=4)
        for epoch in range(10):
            digits.set_epoch(epoch)  # fresh digits
            for images, labels in loader:  # (64, 1, 28, 28) uint8, (64,) int64
                ...

    Epoch *e* starts at row ``start + e · n`` of the seed. The digits of an epoch do not depend on the number of
    workers and ranks, only their order does.

    In a distributed training, each rank gets its own part of each epoch. By default, the rank is that of PyTorch's
    default process group (``torch.distributed``), if it is initialized when an iteration begins. If another library
    distributes the batches of one process to all ranks, as Accelerate does, give ``rank=0, world_size=1``.

    Args:
        client: the client that requests the digits.
        n: digits per epoch, for all ranks together. A multiple of the number of ranks.
        batch_size: digits per batch. The last batch of each worker may be smaller.
        rank: number of this process in a distributed training, 0 … *world_size* − 1.
        world_size: number of processes in a distributed training.
        options: as for `DigitClient.sample`. A random seed is drawn once, by each rank.

    Raises:
        InvalidInputError: an argument is out of range. Checks that need the generator follow with the first batch.
    """

    def __init__(
        self,
        client: DigitClient,
        n: int,
        *,
        batch_size: int = MAX_ROWS,
        rank: int | None = None,
        world_size: int | None = None,
        **options: Unpack[SampleOptions],
    ) -> None:
        super().__init__()
        self._spec = SampleSpec.of(n, **options)
        check_stream(batch_size, "raise")
        self._rank = Rank.of(rank, world_size)
        if self._rank is not None:
            self._rank.part(self._spec.n)
        self._client = client
        self._batch_size = batch_size
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # persistent workers see changes

    def set_epoch(self, epoch: int) -> None:
        """Switch to the digits of another epoch. Workers that are reading finish their epoch first."""
        if epoch < 0:
            raise InvalidInputError(f"epoch is {epoch}; expected 0 or more")
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield this worker's batches: images (b, C, H, W) uint8 and labels (b,) int64."""
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        begin, stop = self._shard().part(self._spec.n)
        first, end = (begin + (stop - begin) * at // workers for at in (number, number + 1))
        share = self._spec.part(first, end)
        share = replace(share, start=share.start + int(self._epoch) * self._spec.n)
        stream = self._client.stream(share.n, batch_size=self._batch_size, **share.options)
        for batch in stream:
            images = batch.images[:, None] if batch.images.ndim == 3 else batch.images.transpose(0, 3, 1, 2)
            yield torch.from_numpy(images.copy()), torch.from_numpy(batch.labels)
