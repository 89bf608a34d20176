"""Work side by side: in processes here, or on a Dask cluster's workers; one ``joblib.Parallel`` call either way."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from digitforge_client.common.command import ENDING_SIGNALS, HANGUP, import_quietly
from digitforge_client.common.extras import needs_extra
from digitforge_client.errors import DigitforgeError, MissingExtraError, ServerUnavailableError

Job = TypeVar("Job")
Result = TypeVar("Result")

#: How long to wait for a scheduler, and for its first worker.
_CONNECT_S: Final = 10.0
#: How long a process here waits for more to do; one job may be the training of a generator.
_IDLE_S: Final = 3600.0


def side_by_side(
    work: Callable[[Job], Result],
    jobs_to_do: Iterable[Job],
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    imports: Sequence[str] = (),
) -> Generator[Result, None, None]:
    """Give the result of *work* on each job as soon as it is there, in any order; closing it ends what is under way.

    Args:
        work: importable by name where it runs.
        jobs_to_do: what to call it with; asked for one after another, as they are needed.
        jobs: processes here; −1 for one on each core. One means this process itself.
        scheduler: address of a Dask scheduler, ``tcp://HOST:PORT``, whose workers are all used. They need digitforge,
            and the folders that a job names.
        imports: modules that processes here import before their first job, without what these have to say.

    Raises:
        MissingExtraError: joblib is not installed, or Dask, where it is needed, or the workers cannot import the work.
        ServerUnavailableError: there is no scheduler at that address, it has no workers, or they went away.
        DigitforgeError: a process here was killed.
    """
    with needs_extra("generate", "work in shards"):
        from joblib import Parallel, delayed
    with _in_processes(imports) if scheduler is None else _on_cluster(scheduler, work) as cluster:
        if cluster is not None and sum(cluster.ncores().values()) == 1:
            # Where only one can work, joblib would work here instead.
            for job in jobs_to_do:
                yield cluster.submit(work, job, pure=False).result()
            return
        workers = jobs if cluster is None else -1
        # no more are asked for than can be begun, so that a caller can stop
        parallel = Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch="n_jobs")
        with _deaf_to_hangups():
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
def _in_processes(imports: Sequence[str]) -> Iterator[None]:
    from joblib import parallel_config

    # a process that has grown is replaced by a new one, which is nothing to be warned of
    warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
    # one that has nothing to do waits for what the others are at, or joblib warns of its end
    with parallel_config(backend="loky", idle_worker_timeout=_IDLE_S, initializer=_prepare, initargs=(imports,)):
        yield


@contextmanager
def _deaf_to_hangups() -> Iterator[None]:
    """Processes that are started meanwhile do not see a terminal close.

    Workers ignore it in any case (`_prepare`). joblib's process that watches over resources does not, though it
    ignores Ctrl-C and SIGTERM; where it dies, its successor writes tracebacks.
    """
    if HANGUP is None:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [HANGUP])
    try:
        yield
    finally:
        if HANGUP not in before:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [HANGUP])


@contextmanager
def _on_cluster(address: str, work: Callable[..., Any]) -> Iterator[Any]:
    with needs_extra("dask", "work on a Dask cluster"):
        from distributed import Client, KilledWorker
    from joblib import parallel_config

    try:
        cluster: Any = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ServerUnavailableError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`, workers with "
            "`dask worker`, and give its address as tcp://HOST:PORT"
        ) from error
    # What it has to say of lost connections is said below, in one line.
    for logger in ("distributed", "distributed.client"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    with cluster:
        try:
            cluster.wait_for_workers(1, timeout=_CONNECT_S)
        except TimeoutError as error:
            raise ServerUnavailableError(
                f"the Dask scheduler at {address} has no workers; start some with `dask worker {address}`"
            ) from error
        # Dask itself would give work that a worker cannot import to it for ever.
        module = getattr(work, "func", work).__module__
        try:
            cluster.run(exec, f"import {module}")
        except ImportError as error:
            raise MissingExtraError(
                f"a worker of the Dask scheduler at {address} cannot import {module} ({error}); install digitforge "
                "there as it is here"
            ) from error
        try:
            with parallel_config(backend="dask", client=cluster):
                yield cluster
        except (CancelledError, KilledWorker) as error:
            raise ServerUnavailableError(
                f"the Dask scheduler at {address} or its workers went away; what was finished is kept: start them "
                "again, or go on without --scheduler"
            ) from error


def _prepare(imports: Sequence[str]) -> None:
    """Leave Ctrl-C and its like, which may reach all processes, to the one that began; it ends its workers."""
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    for module in imports:
        import_quietly(module)


def _end_with(parent: int) -> None:
    """End this process when the one that began is gone: killed, it ends no workers."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
