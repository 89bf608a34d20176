"""Tests of installations: the wheel and the source distribution, in the Pythons of this machine. They need an index."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST_MB = 140  # numpy and grpcio alone have 92
CAME_WITH_THE_ENVIRONMENT = {"pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils"}
PYTHONS = ("3.11", "3.12", "3.13")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A virtual environment with digitforge."""

    folder: Path
    source: Path  # what was installed

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [self.folder / "bin" / arguments[0], *arguments[1:]],
            cwd=self.folder,
            env=clean,
            capture_output=True,
            text=True,
            check=False,
        )

    @classmethod
    def make(cls, folder: Path, python: str, source: Path, extra: str = "") -> Environment:
        subprocess.run([python, "-m", "venv", folder], check=True)
        made = cls(folder=folder, source=source)
        done = made.run("python", "-m", "pip", "install", "--quiet", f"{source}{extra}")
        assert done.returncode == 0, done.stderr
        return made


def interpreter(version: str) -> str:
    """A Python of this version that starts and can make environments. Skips the test if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [
        sys.executable,
        shutil.which(f"python{version}") or "",
        *map(str, pyenv.glob(f"{version}.*/bin/python")),
    ]
    check = f"import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", check], capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.skip(f"this machine has no Python {version}")


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the source distribution, by the end of their names."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "--directory", folder], cwd=ROOT, check=True)
    return {"wheel": next(folder.glob("*.whl")), "sdist": next(folder.glob("*.tar.gz"))}


@pytest.fixture(scope="module", params=PYTHONS)
def slim(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, distributions: dict[str, Path]
) -> Iterator[Environment]:
    folder = tmp_path_factory.mktemp("slim") / "venv"
    yield Environment.make(folder, interpreter(request.param), distributions["wheel"])
    shutil.rmtree(folder)


def test_the_light_installation_has_no_tensorflow_and_is_small(slim: Environment) -> None:
    done = slim.run("python", "-m", "pip", "list", "--format", "json")
    installed = {each["name"].lower() for each in json.loads(done.stdout)}
    assert not installed & {"tensorflow", "keras", "scikit-learn", "scipy", "matplotlib"}
    (packages,) = slim.folder.glob("lib/python3*/site-packages")
    size = sum(
        path.stat().st_size
        for entry in packages.iterdir()
        if entry.name.partition("-")[0] not in CAME_WITH_THE_ENVIRONMENT
        for path in ([entry] if entry.is_file() else entry.rglob("*"))
        if path.is_file()
    )
    print(f"installed size of the light installation: {size / 1e6:.0f} MB")
    assert size <= LARGEST_MB * 1e6


def test_the_command_lists_every_subcommand(slim: Environment) -> None:
    done = slim.run("digitforge", "--help")
    assert done.returncode == 0, done.stderr
    for entry in metadata.entry_points(group="digitforge.commands"):
        assert f"  {entry.name} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "--data", "digits", "--out", "run"], "training"),
        (["export", "run", "--to", "models/digits"], "training"),
        (["adapt", "--data", "digits", "--out", "run"], "training"),
        (["serve"], "serving"),
        (["evaluate", "--images", "digits.npz"], "evaluation"),
        (["demo"], "evaluation,serving"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_a_command_without_its_extra_names_the_installation_to_run(
    slim: Environment, arguments: list[str], extra: str
) -> None:
    done = slim.run("digitforge", *arguments)
    assert done.returncode == 2, done.stderr
    assert f"pip install 'digitforge[{extra}] @ {slim.source.as_uri()}'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_client_can_be_imported(slim: Environment) -> None:
    done = slim.run("python", "-c", "from digitforge_client import DigitClient; print(DigitClient.__name__)")
    assert done.stdout.strip() == "DigitClient", done.stderr


@pytest.mark.parametrize("source", ["clone", "sdist"])
def test_other_sources_install_the_same_command(tmp_path: Path, distributions: dict[str, Path], source: str) -> None:
    made = Environment.make(tmp_path / "venv", sys.executable, distributions.get(source, ROOT))
    assert made.run("digitforge", "--help").returncode == 0
    done = made.run("digitforge", "serve")
    again = f"'digitforge[serving] @ {made.source.as_uri()}'" if source == "sdist" else f"'{ROOT}[serving]'"
    assert f"pip install {again}" in done.stderr


@pytest.mark.parametrize("python", PYTHONS)
def test_the_whole_installation_trains_serves_and_measures(
    tmp_path: Path, distributions: dict[str, Path], python: str
) -> None:
    made = Environment.make(tmp_path / "venv", interpreter(python), distributions["wheel"], "[all]")
    try:
        tiny = ["--set=width=8", "--set=generator_blocks=1", "--set=discriminator_blocks=1"]
        trained = made.run("digitforge", "train", "--data", "digits", "--steps", "2", "--out", tmp_path / "run", *tiny)
        assert trained.returncode == 0, trained.stderr
        exported = made.run("digitforge", "export", tmp_path / "run", "--to", tmp_path / "models" / "digits")
        assert exported.returncode == 0, exported.stderr
        served = made.run(
            "python",
            "-c",
            "import digitforge\n"
            "with digitforge.EmbeddedServer() as target, digitforge.DigitClient(target) as client:\n"
            "    digits = client.sample(100, seed=7)\n"
            "report = digitforge.evaluate(digits.images, digits.labels, real='digits')\n"
            "print(len(digits), report.n)",
        )
        assert served.stdout.split() == ["100", "100"], served.stderr
    finally:
        shutil.rmtree(made.folder)
