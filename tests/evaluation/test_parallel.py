"""Cells side by side: in processes here, and on the workers of a Dask cluster."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import distributed
import pytest
from click.testing import CliRunner

from digitforge_client.errors import ServerUnavailableError
from digitforge_evaluation.cli_experiment import experiment
from digitforge_evaluation.parallel import side_by_side

ARGUMENTS = (
    "run", "--data", "digits", "--classifier", "svm", "--steps", "4", "--n-per-class", "2", "--subsets", "2",
    "--arms", "real,smote,classical", "--json",
)  # fmt: skip


def _process(_: int) -> int:
    return os.getpid()


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A scheduler and two worker processes."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


def test_work_is_done_by_the_clusters_worker_processes(scheduler: str) -> None:
    processes = set(side_by_side(_process, range(40), scheduler=scheduler))
    assert os.getpid() not in processes
    assert len(processes) == 2


def test_an_experiment_on_a_cluster_gives_the_same_numbers_and_can_be_continued_here(
    scheduler: str, tmp_path: Path
) -> None:
    def run(*arguments: str) -> list[object]:
        result = CliRunner().invoke(experiment, [*ARGUMENTS, *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return [arm["confusion"] for arm in json.loads(result.stdout)["arms"]]

    on_cluster = run("--scheduler", scheduler, "--out", str(tmp_path / "a"))
    here = run("--out", str(tmp_path / "b"))
    assert on_cluster == here
    stored = (tmp_path / "a" / "results.jsonl").read_text()
    assert run("--out", str(tmp_path / "a")) == here
    assert (tmp_path / "a" / "results.jsonl").read_text() == stored


@pytest.mark.slow  # the connection is tried again for ten seconds
@pytest.mark.parametrize("workers", [1, 2])
def test_a_scheduler_that_goes_away_is_told_after_the_results_so_far(workers: int) -> None:
    cluster = distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50)
    results = side_by_side(_process, itertools.count(), scheduler=cluster.scheduler_address)
    assert next(results) != os.getpid()
    cluster.close()
    with pytest.raises(ServerUnavailableError, match="went away; what was finished is kept"):
        list(results)


def test_no_scheduler_is_one_line_that_says_how_to_start_one(tmp_path: Path) -> None:
    result = subprocess.run(
        [
            sys.executable, "-m", "digitforge_client.command", "experiment", *ARGUMENTS,
            "--scheduler", "tcp://127.0.0.1:1", "--out", str(tmp_path),
        ],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in result.stderr


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ServerUnavailableError, match="give its address as"):
        list(side_by_side(_process, [1], scheduler="nonsense://x"))
