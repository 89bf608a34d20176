"""Fixtures for the server's tests: SavedModels, servers and clients."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_toys import Publish, Stubs, connect, write_toy

from digitforge_serving import EmbeddedServer


@pytest.fixture(scope="session")
def toy_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a SavedModel to copy. Its signature `serving_default` returns a + b."""
    path = tmp_path_factory.mktemp("toy") / "1"
    write_toy(path, warm_up=True)
    return path


@pytest.fixture(scope="session")
def other_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a second SavedModel to copy, which returns a + b + 100."""
    path = tmp_path_factory.mktemp("toy") / "2"
    write_toy(path, offset=100.0)
    return path


@pytest.fixture
def base_path(tmp_path: Path, toy_version: Path) -> Path:
    """A base path with version 1 that the test may change."""
    base = tmp_path / "toy"
    shutil.copytree(toy_version, base / "1")
    return base


@pytest.fixture
def publish(base_path: Path) -> Publish:
    """Publish a version like the exporter: copy it under a name that is not a number, then rename it."""

    def publish_version(source: Path, number: int) -> None:
        shutil.copytree(source, base_path / f".{number}.tmp")
        (base_path / f".{number}.tmp").rename(base_path / str(number))

    return publish_version


@pytest.fixture(scope="session")
def toy_target(toy_version: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that many tests share. Tests must not change its models."""
    base = tmp_path_factory.mktemp("served") / "toy"
    shutil.copytree(toy_version, base / "1")
    with EmbeddedServer(base, model_name="toy") as target:
        yield target


@pytest.fixture(scope="session")
def digits_target(exported_model: Path) -> Iterator[str]:
    """Address of a server for the tiny generator that many tests share."""
    with EmbeddedServer(exported_model) as target:
        yield target


@pytest.fixture(scope="session")
def stubs(toy_target: str) -> Iterator[Stubs]:
    """The official stubs, connected to the shared server."""
    connected = connect(toy_target)
    yield connected
    connected.channel.close()
