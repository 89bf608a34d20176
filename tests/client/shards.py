"""Helpers for the tests of `digitforge generate` and `digitforge verify`."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commands
import numpy as np

from digitforge_client.contract import ROWS_PER_SEED
from digitforge_client.datasets.manifest import NAME, Manifest, Plan
from digitforge_client.datasets.readers import read
from digitforge_client.datasets.verify import problem_of

PLAN = Plan(n=2500, seed=6, start=70, rows_per_shard=600)


def run(server: Any, command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return commands.run(command, "--server", server.target, *arguments)


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()} - {".lock"}


def assert_whole(folder: Path, manifest: Manifest, formula: Callable[..., np.ndarray]) -> None:
    """Check that the folder holds every digit of the plan once, in order, and nothing else."""
    cards = {"README.md", "croissant.json"} if manifest.plan.format == "parquet" else set()
    assert names(folder) == {NAME} | cards | {shard.file for shard in manifest.shards}
    parts = [read(folder / shard.file, manifest.plan.format) for shard in manifest.shards]
    seeds = np.concatenate([part.seeds for part in parts])
    first = manifest.plan.seed * ROWS_PER_SEED + manifest.plan.start
    np.testing.assert_array_equal(seeds, first + np.arange(manifest.plan.n))
    labels = np.concatenate([part.labels for part in parts])
    images = np.concatenate([part.images for part in parts])
    np.testing.assert_array_equal(images, formula(labels, seeds)[..., 0])
    for shard in manifest.shards:
        assert shard.sha256 == hashlib.sha256((folder / shard.file).read_bytes()).hexdigest()


def finished(folder: Path) -> dict[str, int]:
    """Check the finished shards, and return when each one was written."""
    manifest = Manifest.load(folder)
    done = [shard for shard in manifest.shards if shard.finished]
    assert [problem_of(folder, shard) for shard in done] == [None] * len(done)
    return {shard.file: (folder / shard.file).stat().st_mtime_ns for shard in done}
