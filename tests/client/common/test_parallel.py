"""Parallel work on the workers of a Dask cluster and in local processes."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from digitforge_client.common import parallel
from digitforge_client.common.parallel import Scheduler, side_by_side
from digitforge_client.errors import DataError, InvalidInputError, MissingExtraError, ServerUnavailableError

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


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Certificates for a Dask cluster, as options of `Scheduler`."""
    made, folder = distributed.Security.temporary(), tmp_path_factory.mktemp("pems")
    fields = {"ca": "tls_ca_file", "certificate": "tls_client_cert", "key": "tls_client_key"}
    files = {name: folder / f"{name}.pem" for name in fields}
    for name, field in fields.items():
        files[name].write_text(getattr(made, field))
    return files


@pytest.fixture(scope="module")
def encrypted(pems: dict[str, Path]) -> Iterator[str]:
    """Address of a scheduler with two workers, which use TLS."""
    ca, certificate, key = (str(pems[name]) for name in ("ca", "certificate", "key"))
    ends = {
        f"tls_{end}_{part}": path
        for end in ("scheduler", "worker", "client")
        for part, path in {"cert": certificate, "key": key}.items()
    }
    security = distributed.Security(tls_ca_file=ca, require_encryption=True, **ends)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50, security=security, protocol="tls://"
    ) as cluster:
        yield cluster.scheduler_address


def test_a_cluster_with_tls_does_the_work(encrypted: str, pems: dict[str, Path]) -> None:
    assert encrypted.startswith("tls://")
    processes = set(side_by_side(eval, 20 * [THIS_PROCESS], scheduler=Scheduler(address=encrypted, **pems)))
    assert os.getpid() not in processes
    assert len(processes) == 2


def test_the_configuration_of_dask_has_certificates_too(encrypted: str, pems: dict[str, Path]) -> None:
    import dask

    where = "distributed.comm.tls"
    files = {"ca-file": "ca", "client.cert": "certificate", "client.key": "key"}
    with dask.config.set({f"{where}.{name}": str(pems[file]) for name, file in files.items()}):
        assert os.getpid() not in side_by_side(eval, [THIS_PROCESS], scheduler=encrypted)


def test_a_scheduler_with_other_certificates_is_not_used(
    encrypted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_CONNECT_S", 2)
    strange, files = distributed.Security.temporary(), {}
    for name, field in (("ca", "tls_ca_file"), ("certificate", "tls_client_cert"), ("key", "tls_client_key")):
        files[name] = tmp_path / name
        files[name].write_text(getattr(strange, field))
    with pytest.raises(ServerUnavailableError, match="tls://"):
        list(side_by_side(eval, [THIS_PROCESS], scheduler=Scheduler(address=encrypted, **files)))


def test_certificates_that_do_not_fit_are_an_error(tmp_path: Path, pems: dict[str, Path]) -> None:
    with pytest.raises(InvalidInputError, match="give --scheduler-ca, --scheduler-cert and --scheduler-key"):
        Scheduler(address="tls://127.0.0.1:1", ca=pems["ca"])
    with pytest.raises(InvalidInputError, match=r"give its address as tls://"):
        Scheduler(address="tcp://127.0.0.1:1", **pems)
    with pytest.raises(InvalidInputError, match="uses TLS, but no certificates"):
        list(side_by_side(eval, [THIS_PROCESS], scheduler="tls://127.0.0.1:1"))
    with pytest.raises(DataError, match="cannot read the certificates"):
        list(
            side_by_side(
                eval,
                [THIS_PROCESS],
                scheduler=Scheduler(address="tls://127.0.0.1:1", **{**pems, "key": tmp_path / "k"}),
            )
        )
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    with pytest.raises(DataError, match="cannot read the certificates"):
        list(
            side_by_side(
                eval, [THIS_PROCESS], scheduler=Scheduler(address="tls://127.0.0.1:1", **{**pems, "ca": broken})
            )
        )
