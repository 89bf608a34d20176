"""The client is light: it imports little."""

from __future__ import annotations

import subprocess
import sys

import digitforge_client

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
"""
HEAVY = {"tensorflow", "tensorflow_serving", "keras", "sklearn", "scipy", "torch", "pandas"}


def run(code: str, blocked: set[str]) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in which some modules cannot be imported."""
    whole = BLOCKER.format(blocked=sorted(blocked)) + code
    return subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=False)


def test_the_client_needs_no_tensorflow() -> None:
    code = """
import numpy as np
from digitforge_client import DigitClient, ServerUnavailableError
import digitforge_client.cli.sample, digitforge_client.common.command, digitforge_client.datasets.writers
with DigitClient("127.0.0.1:1") as client:
    assert client.sample(0).images.shape == (0, 28, 28)
    try:
        client.sample(1)
    except ServerUnavailableError:
        print("done")
"""
    result = run(code, HEAVY)
    assert (result.returncode, result.stdout.strip()) == (0, "done"), result.stderr


def test_importing_the_client_loads_only_what_every_user_needs() -> None:
    result = run("import digitforge_client; print(*sorted({name.partition('.')[0] for name in sys.modules}))", HEAVY)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert {"numpy", "grpc", "google"} <= loaded
    assert not loaded & {"PIL", "rich", "click", "matplotlib"}


def test_the_help_imports_neither_pillow_nor_rich() -> None:
    code = """
from click.testing import CliRunner
from digitforge_client.common.command import digitforge
result = CliRunner().invoke(digitforge, ["sample", "--help"])
assert result.exit_code == 0, result.output
print(result.output)
"""
    result = run(code, HEAVY | {"PIL", "rich"})
    assert result.returncode == 0, result.stderr
    assert "--label" in result.stdout


def test_all_public_names_exist_and_are_sorted() -> None:
    assert len(set(digitforge_client.__all__)) == len(digitforge_client.__all__)
    for name in digitforge_client.__all__:
        assert hasattr(digitforge_client, name), name
