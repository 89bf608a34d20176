"""Work side by side: in processes here, or on a Dask cluster's workers; one ``joblib.Parallel`` call either way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from digitforge_client.errors import ServerUnavailableError

Job = TypeVar("Job")
Result = TypeVar("Result")

_CONNECT_S = 10.0


def side_by_side(
    work: Callable[[Job], Result], jobs_to_do: Iterable[Job], *, jobs: int = 1, scheduler: str | None = None
) -> Iterator[Result]:
    """Give the result of *work* on each job as soon as it is there, in any order.

    Args:
        work: importable by name where it runs.
        jobs_to_do: what to call it with; asked for one after another, as they are needed.
        jobs: processes here.
        scheduler: address of a Dask scheduler, ``tcp://HOST:PORT``; its workers need digitforge, and the folders that a
            job names.

    Raises:
        ServerUnavailableError: there is no scheduler at that address, or it or its workers went away.
    """
    from joblib import Parallel, delayed

    with _on_cluster(scheduler) if scheduler else nullcontext() as client:
        if client is not None and sum(client.ncores().values()) == 1:
            # Where only one can work, joblib would work here instead.
            yield from (client.submit(work, job, pure=False).result() for job in jobs_to_do)
            return
        workers = -1 if client is not None else jobs  # -1: as many as the cluster has
        yield from Parallel(n_jobs=workers, return_as="generator_unordered")(delayed(work)(job) for job in jobs_to_do)


@contextmanager
def _on_cluster(address: str) -> Iterator[Any]:
    from distributed import Client, KilledWorker
    from joblib import parallel_config

    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ServerUnavailableError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`, workers with "
            "`dask worker`, and give its address as tcp://HOST:PORT"
        ) from error
    # What it has to say of lost connections is said below, in one line.
    for logger in ("distributed", "distributed.client"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    with client, parallel_config(backend="dask", client=client):
        try:
            yield client
        except (CancelledError, KilledWorker) as error:
            raise ServerUnavailableError(
                f"the Dask scheduler at {address} or its workers went away; what was finished is kept: start them "
                "again, or go on without --scheduler"
            ) from error
