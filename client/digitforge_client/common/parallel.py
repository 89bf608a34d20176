"""Runs jobs in parallel with ``joblib.Parallel``: in local processes, or on the workers of a Dask cluster."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from digitforge_client.common.command import import_quietly
from digitforge_client.common.extras import needs_extra
from digitforge_client.common.interrupts import ENDING_SIGNALS, held_back
from digitforge_client.errors import (
    DataError,
    DigitforgeError,
    InvalidInputError,
    MissingExtraError,
    ServerUnavailableError,
)

Job = TypeVar("Job")
Result = TypeVar("Result")

#: How long to wait for a scheduler, and for its first worker.
_CONNECT_S: Final = 10.0
#: How long an idle local process waits for another job. One job may train a generator.
_IDLE_S: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """The address of a Dask scheduler, and the certificates for it.

    Without certificates, a ``tls://`` address uses those of Dask's own configuration.

    Raises:
        InvalidInputError: there are certificates, but the address does not begin with ``tls://``; or a certificate
            without its key; or an address ``tls://`` without any certificates.
    """

    address: str  #: ``tcp://HOST:PORT`` or ``tls://HOST:PORT``
    ca: Path | None = None  #: trust the certificates in this PEM file
    certificate: Path | None = None  #: client certificate, PEM
    key: Path | None = None  #: private key of ``certificate``, PEM

    def __post_init__(self) -> None:
        """Check that the fields fit together."""
        files = (self.ca, self.certificate, self.key)
        if any(files) and not all(files):
            raise InvalidInputError(
                "a Dask scheduler needs three files for TLS, and fewer were given; give --scheduler-ca, "
                "--scheduler-cert and --scheduler-key"
            )
        if any(files) and not self.address.startswith("tls://"):
            raise InvalidInputError(
                f"certificates were given for the scheduler {self.address}, which does not use TLS; give its address "
                "as tls://HOST:PORT"
            )

    def security(self) -> Any:
        """Dask's description of the certificates; None for a connection without TLS.

        Raises:
            InvalidInputError: the address begins with ``tls://``, but there are no certificates.
            DataError: a certificate cannot be read.
        """
        from distributed import Security

        if not self.address.startswith("tls://"):
            return None
        files = {"tls_ca_file": self.ca, "tls_client_cert": self.certificate, "tls_client_key": self.key}
        given = {name: str(file) for name, file in files.items() if file is not None}
        found = Security(require_encryption=True, **given)
        if not (found.tls_ca_file and found.tls_client_cert and found.tls_client_key):
            raise InvalidInputError(
                f"the scheduler {self.address} uses TLS, but no certificates were given; give --scheduler-ca, "
                "--scheduler-cert and --scheduler-key, or set them in Dask's configuration"
            )
        try:
            found.get_connection_args("client")
        except OSError as error:  # also an SSLError
            raise DataError(
                f"cannot read the certificates for the scheduler {self.address} ({error}); expected three PEM files"
            ) from error
        return found


def side_by_side(
    work: Callable[[Job], Result],
    jobs_to_do: Iterable[Job],
    *,
    jobs: int = 1,
    scheduler: Scheduler | str | None = None,
    imports: Sequence[str] = (),
) -> Generator[Result, None, None]:
    """Yield the result of *work* for each job as soon as it is ready, in any order.

    Closing the generator stops the running jobs.

    Args:
        work: a function that the workers can import by name.
        jobs_to_do: the arguments of *work*, taken one by one as workers become free.
        jobs: number of local processes. −1 uses one per core, 1 uses this process.
        scheduler: a Dask scheduler, or its address, ``tcp://HOST:PORT``. All its workers are used. They need digitforge
            and the folders that a job names.
        imports: modules that local processes import before their first job. Their output on standard error is hidden.

    Raises:
        MissingExtraError: joblib or Dask is not installed, or a worker cannot import *work*.
        ServerUnavailableError: no scheduler answers at that address, it has no workers, or they went away.
        InvalidInputError: the scheduler uses TLS, but there are no certificates for it.
        DataError: a certificate cannot be read.
        DigitforgeError: a local process was killed.
    """
    if isinstance(scheduler, str):
        scheduler = Scheduler(address=scheduler)
    with needs_extra("generate", "parallel work"):
        from joblib import Parallel, delayed
    if scheduler is None and jobs == 1:
        yield from map(work, jobs_to_do)
        return
    with _local_processes(imports) if scheduler is None else _on_cluster(scheduler, work) as cluster:
        if cluster is not None and sum(cluster.ncores().values()) == 1:
            # With a single worker, joblib would run the jobs in this process instead.
            for job in jobs_to_do:
                yield cluster.submit(work, job, pure=False).result()
            return
        workers = jobs if cluster is None else -1
        # take a job only when a worker is free, so that the caller can stop early
        parallel = Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch="n_jobs")
        results = None
        try:
            with _starting_processes() if cluster is None else nullcontext():
                results = parallel(delayed(work)(job) for job in jobs_to_do)
            for result in results:  # noqa: UP028 - `yield from` would close `results` before our `finally`
                yield result
        except BrokenExecutor as error:
            raise DigitforgeError(
                "a worker process was killed, perhaps because memory ran out; use fewer processes (--jobs)"
            ) from error
        finally:
            if results is not None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # unused results are intended here
                    results.close()


@contextmanager
def _local_processes(imports: Sequence[str]) -> Iterator[None]:
    from joblib import parallel_config

    # joblib replaces a process that uses too much memory; this is no reason for a warning
    warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
    # idle processes stay alive while others work, because joblib warns when one ends
    with parallel_config(
        backend="loky", idle_worker_timeout=_IDLE_S, initializer=_prepare, initargs=(imports, os.getpid())
    ):
        yield


@contextmanager
def _starting_processes() -> Iterator[None]:
    """Protect the start of joblib's processes from signals.

    Ctrl-C may reach all processes. Only this one handles it, and ends the others. So all processes that start inside
    the block have signals blocked from their first moment. Otherwise, they would write tracebacks while they import
    libraries. In this process, a KeyboardInterrupt waits for the end of the block. Otherwise, it would become another
    error inside joblib.
    """
    with held_back():
        if not hasattr(signal, "pthread_sigmask"):
            yield
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        try:
            for tracker in ("multiprocessing", "joblib.externals.loky.backend"):
                # Started first, because its start unblocks SIGINT and SIGTERM.
                importlib.import_module(f"{tracker}.resource_tracker").ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _on_cluster(scheduler: Scheduler, work: Callable[..., Any]) -> Iterator[Any]:
    with needs_extra("dask", "parallel work on a Dask cluster"):
        from distributed import Client, KilledWorker
    from joblib import parallel_config

    address, security = scheduler.address, scheduler.security()
    try:
        cluster: Any = Client(address, timeout=_CONNECT_S, set_as_default=False, security=security)
    except (OSError, TimeoutError, ValueError) as error:
        raise ServerUnavailableError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`, workers with "
            "`dask worker`, and give its address as tcp://HOST:PORT, or as tls://HOST:PORT if it uses TLS"
        ) from error
    # Dask logs lost connections at length; the error below says it in one line.
    for logger in ("distributed", "distributed.client"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    with cluster:
        try:
            cluster.wait_for_workers(1, timeout=_CONNECT_S)
        except TimeoutError as error:
            raise ServerUnavailableError(
                f"the Dask scheduler at {address} has no workers; start some with `dask worker {address}`"
            ) from error
        # If a worker cannot import the module, Dask retries forever. Check it first.
        module = getattr(work, "func", work).__module__
        try:
            cluster.run(exec, f"import {module}")
        except ImportError as error:
            raise MissingExtraError(
                f"a worker of the Dask scheduler at {address} cannot import {module} ({error}); install the same "
                "digitforge, with the same extras, on all workers"
            ) from error
        try:
            with parallel_config(backend="dask", client=cluster):
                yield cluster
        except (CancelledError, KilledWorker) as error:
            raise ServerUnavailableError(
                f"the Dask scheduler at {address} or its workers went away; finished work is kept: restart them, or "
                "continue without --scheduler"
            ) from error


def _prepare(imports: Sequence[str], parent: int) -> None:
    """Prepare a worker process: ignore signals (see `_starting_processes`), watch the parent, import modules."""
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    exit_with(parent)
    for module in imports:
        import_quietly(module)


def exit_with(parent: int) -> None:
    """End this process when its parent process *parent* is gone: a parent that was killed cannot end its children."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()
