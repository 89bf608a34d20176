"""Synthetic digits as a PyTorch dataset, for any number of DataLoader workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Unpack

import torch
from torch.utils.data import IterableDataset, get_worker_info

from digitforge_client.client import DigitClient
from digitforge_client.contract import MAX_ROWS
from digitforge_client.errors import InvalidInputError
from digitforge_client.protocol.rows import SampleOptions, SampleSpec, check_stream


class SyntheticDigits(IterableDataset):
    """Batches of synthetic digits; each DataLoader worker asks for its own share, with its own connection.

    It makes whole batches, so the DataLoader must not::

        digits = SyntheticDigits(DigitClient("localhost:8500"), 60_000, batch_size=64, seed=0)
        loader = DataLoader(digits, batch_size=None, num_workers=4)
        for epoch in range(10):
            digits.set_epoch(epoch)  # fresh digits
            for images, labels in loader:  # (64, 1, 28, 28) uint8, (64,) int64
                ...

    Epoch *e* has rows ``start + e · n`` … of the seed: the same digits for any number of workers, in another order of
    batches.

    Args:
        client: whom to ask.
        n: digits in an epoch.
        batch_size: digits in every batch but the last of each worker.
        options: as for `DigitClient.sample`; a seed that is drawn is drawn once.

    Raises:
        InvalidInputError: an argument is out of range; more arguments are checked when the first batch is asked for.
    """

    def __init__(
        self,
        client: DigitClient,
        n: int,
        *,
        batch_size: int = MAX_ROWS,
        **options: Unpack[SampleOptions],
    ) -> None:
        super().__init__()
        self._spec = SampleSpec.of(n, **options)
        check_stream(batch_size, "raise")
        self._client = client
        self._batch_size = batch_size
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # persistent workers see it change

    def set_epoch(self, epoch: int) -> None:
        """Go on to the digits of another epoch; workers that are already reading finish their own first."""
        if epoch < 0:
            raise InvalidInputError(f"epoch is {epoch}; expected 0 or more")
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """This worker's batches: images (b, C, H, W) uint8 and labels (b,) int64."""
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        first, end = (self._spec.n * at // workers for at in (number, number + 1))
        share = self._spec.part(first, end)
        share = replace(share, start=share.start + int(self._epoch) * self._spec.n)
        stream = self._client.stream(share.n, batch_size=self._batch_size, **share.options)
        for batch in stream:
            images = batch.images[:, None] if batch.images.ndim == 3 else batch.images.transpose(0, 3, 1, 2)
            yield torch.from_numpy(images.copy()), torch.from_numpy(batch.labels)
