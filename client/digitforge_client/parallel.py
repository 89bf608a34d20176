"""Work side by side: in processes here, or on a Dask cluster's workers; one ``joblib.Parallel`` call either way."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from digitforge_client.errors import DigitforgeError, MissingExtraError, ServerUnavailableError

Job = TypeVar("Job")
Result = TypeVar("Result")

#: How long to wait for a scheduler, and for its first worker.
_CONNECT_S: Final = 10.0


def side_by_side(
    work: Callable[[Job], Result], jobs_to_do: Iterable[Job], *, jobs: int = 1, scheduler: str | None = None
) -> Generator[Result, None, None]:
    """Give the result of *work* on each job as soon as it is there, in any order; closing it ends what is under way.

    Args:
        work: importable by name where it runs.
        jobs_to_do: what to call it with; asked for one after another, as they are needed.
        jobs: processes here; −1 for one on each core. One means this process itself.
        scheduler: address of a Dask scheduler, ``tcp://HOST:PORT``, whose workers are all used. They need digitforge,
            and the folders that a job names.

    Raises:
        MissingExtraError: joblib is not installed, or Dask, where it is needed.
        ServerUnavailableError: there is no scheduler at that address, or it has no workers.
        DigitforgeError: a process here was killed.
    """
    try:
        from joblib import Parallel, delayed, parallel_config
    except ModuleNotFoundError as error:
        raise _missing("joblib", "generate") from error
    with parallel_config(backend="loky", initializer=_deafen) if scheduler is None else _on_cluster(scheduler):
        workers = jobs if scheduler is None else -1
        # no more are asked for than can be begun, so that a caller can stop
        parallel = Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch="n_jobs")
        results = parallel(delayed(work)(job) for job in jobs_to_do)
        try:
            for result in results:  # noqa: UP028 - `yield from` would hand on our closing at once
                yield result
        except BrokenExecutor as error:
            raise DigitforgeError(
                "a process at work was killed, perhaps for lack of memory; use fewer at once (--jobs)"
            ) from error
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that results were not used, where that is meant
                results.close()


@contextmanager
def _on_cluster(address: str) -> Iterator[None]:
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise _missing("Dask's distributed", "dask") from error
    from joblib import parallel_config

    try:
        cluster: Any = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ServerUnavailableError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`, workers with "
            "`dask worker`, and give its address as tcp://HOST:PORT"
        ) from error
    with cluster:
        try:
            cluster.wait_for_workers(1, timeout=_CONNECT_S)
        except TimeoutError as error:
            raise ServerUnavailableError(
                f"the Dask scheduler at {address} has no workers; start some with `dask worker {address}`"
            ) from error
        with parallel_config(backend="dask", client=cluster):
            yield


def _deafen() -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that began; it ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _missing(library: str, extra: str) -> MissingExtraError:
    return MissingExtraError(f"this needs {library}, which is not installed: pip install 'digitforge[{extra}]'")
