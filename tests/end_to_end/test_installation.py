"""Tests of the light installation: the client without extras."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST_MB = 140  # numpy and grpcio alone have 92
CAME_WITH_THE_ENVIRONMENT = {"pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the programs of a new environment after ``pip install .``. Needs a package index."""
    folder = tmp_path_factory.mktemp("light") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", ROOT], check=True)
    return folder / "bin"


def run(environment: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [environment / arguments[0], *arguments[1:]],
        cwd=environment,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_light_installation_has_no_tensorflow_and_is_small(environment: Path) -> None:
    done = run(environment, "python", "-m", "pip", "list", "--format", "json")
    installed = {each["name"].lower() for each in json.loads(done.stdout)}
    assert not installed & {"tensorflow", "keras", "scikit-learn", "scipy", "matplotlib"}
    (packages,) = environment.parent.glob("lib/python3*/site-packages")
    size = sum(
        path.stat().st_size
        for entry in packages.iterdir()
        if entry.name.partition("-")[0] not in CAME_WITH_THE_ENVIRONMENT
        for path in ([entry] if entry.is_file() else entry.rglob("*"))
        if path.is_file()
    )
    print(f"installed size of the light installation: {size / 1e6:.0f} MB")
    assert size <= LARGEST_MB * 1e6


def test_the_command_lists_every_subcommand(environment: Path) -> None:
    done = run(environment, "digitforge", "--help")
    assert done.returncode == 0, done.stderr
    for entry in metadata.entry_points(group="digitforge.commands"):
        assert f"  {entry.name} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "--data", "digits", "--out", "run"], "training"),
        (["export", "run", "--to", "models/digits"], "training"),
        (["serve"], "serving"),
        (["demo"], "evaluation,serving"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_a_command_without_its_extra_names_the_installation_to_run(
    environment: Path, arguments: list[str], extra: str
) -> None:
    done = run(environment, "digitforge", *arguments)
    assert done.returncode == 2, done.stderr
    assert f"pip install 'digitforge[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_client_can_be_imported(environment: Path) -> None:
    done = run(environment, "python", "-c", "from digitforge_client import DigitClient; print(DigitClient.__name__)")
    assert done.stdout.strip() == "DigitClient", done.stderr
