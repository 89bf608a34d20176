"""Parallel work on the workers of a Dask cluster and in local processes."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from digitforge_client.common import parallel
from digitforge_client.common.parallel import side_by_side
from digitforge_client.errors import MissingExtraError, ServerUnavailableError

distributed = pytest.importorskip("distributed")


#: Code for `eval`. Workers have `eval`, but may not be able to import this file.
THIS_PROCESS = "__import__('os').getpid()"


def test_the_worker_processes_of_the_cluster_do_the_work(scheduler: str) -> None:
    processes = set(side_by_side(eval, 40 * [THIS_PROCESS], scheduler=scheduler))
    assert os.getpid() not in processes
    assert len(processes) == 2


@pytest.mark.slow  # Dask reconnects for ten seconds
@pytest.mark.parametrize("workers", [1, 2])
def test_a_lost_scheduler_is_an_error_after_the_finished_results(workers: int) -> None:
    cluster = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    results = side_by_side(eval, itertools.repeat(THIS_PROCESS), scheduler=cluster.scheduler_address)
    assert next(results) != os.getpid()
    cluster.close()
    with pytest.raises(ServerUnavailableError, match="went away; finished work is kept"):
        list(results)


def test_the_error_names_a_scheduler_that_is_missing_or_has_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_CONNECT_S", 0.5)
    with pytest.raises(ServerUnavailableError, match=r"tcp://127.0.0.1:1 .*dask scheduler"):
        list(side_by_side(eval, [THIS_PROCESS], scheduler="tcp://127.0.0.1:1"))
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty,
        pytest.raises(ServerUnavailableError, match=r"has no workers; start some with `dask worker tcp"),
    ):
        list(side_by_side(eval, [THIS_PROCESS], scheduler=empty.scheduler_address))


def test_workers_that_cannot_import_the_work_are_an_error(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text("def work(_): return 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    work = importlib.import_module("only_here").work
    with pytest.raises(MissingExtraError, match=r"cannot import only_here .*install the same digitforge"):
        list(side_by_side(work, [1], scheduler=scheduler))


def test_an_invalid_scheduler_address_is_rejected() -> None:
    with pytest.raises(ServerUnavailableError, match="give its address as"):
        list(side_by_side(eval, [THIS_PROCESS], scheduler="nonsense://x"))


def test_imports_of_processes_print_nothing(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("import os; os.write(2, b'I am loud'); ready = os.getpid()")
    program = f"""if True:
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from digitforge_client.common.parallel import side_by_side
        def ready(_):
            return sys.modules["loud"].ready
        print(len(set(side_by_side(ready, range(10), jobs=2, imports=["loud"]))))
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout in ("1\n", "2\n")  # the second process may start too late
    assert done.stderr == ""
