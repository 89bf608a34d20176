"""Fixtures and settings for the tests of several components."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests must not depend on the speed of the machine. In CI, hypothesis generates the same examples each time.
settings.register_profile(
    "digitforge",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
    max_examples=int(os.environ.get("DIGITFORGE_EXAMPLES", "100")),
)
settings.load_profile("digitforge")

# Processes that tests start inherit ignored signals, for example under nohup. They do not inherit handlers, so setting
# a handler here gives them the default behavior.
for _number in (signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

if "PYTEST_XDIST_WORKER" in os.environ:
    # Each worker has a core. Threads that wait for work spin, and take it from the others.
    for _threads in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_threads, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # the command does the same


@pytest.fixture(scope="session")
def kills() -> Callable[[int], range]:
    """The kills of a test that kills processes at random moments. DIGITFORGE_KILLS changes their number."""
    return lambda number: range(int(os.environ.get("DIGITFORGE_KILLS", number)))


@pytest.fixture(scope="session")
def without_tensorflow() -> list[str]:
    """The command `digitforge` without TensorFlow, for errors that must appear before its slow import."""
    code = "import sys; sys.modules['tensorflow'] = None; from digitforge_client.common.command import main; main()"
    return [sys.executable, "-c", code]


@contextlib.contextmanager
def _eager_steps() -> Iterator[None]:
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Training steps without graphs: to trace one takes seconds, and to take a few small ones none."""
    with _eager_steps():
        yield


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a tiny generator, trained for six steps on scikit-learn's digits."""
    from digitforge_training.data import load
    from digitforge_training.recipes import resolve
    from digitforge_training.runs.loop import train

    tiny = {"width": 8, "generator_blocks": 1, "discriminator_blocks": 1, "steps": 6, "batch_size": 32, "clusters": 1}
    run_dir = tmp_path_factory.mktemp("runs") / "tiny"
    with _eager_steps():
        train(resolve("forge", tiny), load("digits"), run_dir=run_dir)
    return run_dir


@pytest.fixture(scope="session")
def exported_model(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base folder of the exported tiny generator, with version ``1/``."""
    from digitforge_training.data import load
    from digitforge_training.export.saved_model import export

    base = tmp_path_factory.mktemp("models") / "digits"
    export(trained_run, load("digits"), to=base)
    return base


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Address of a Dask scheduler with two worker processes. They are busy even while they wait."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address
