"""Notebooks: a progress bar, and nothing of it elsewhere."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

CODE = """
import time
from digitforge_client import DigitClient, Limits
from digitforge_client.testing import FakeTransport

class Slow(FakeTransport):
    def send(self, *arguments, **options):
        time.sleep(0.3)
        return super().send(*arguments, **options)

limits = Limits(rows_per_request=10, requests_in_flight=1)
client = DigitClient(transports=[Slow()], limits=limits)
quick = DigitClient(transports=[FakeTransport()], limits=limits)
"""


@pytest.mark.parametrize(
    "call", ["client.sample(60)", "client.sample(60, expansion=1.2)", "list(client.stream(60, batch_size=20))"]
)
def test_a_notebook_shows_the_progress_of_a_long_call(call: str) -> None:
    notebooks = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from nbformat import v4

    cells = [v4.new_code_cell(source) for source in (CODE, f"{call}; None", "quick.sample(60); None")]
    notebook = v4.new_notebook(cells=cells)
    notebooks.NotebookClient(notebook, timeout=120).execute()
    (bar,) = cells[1].outputs
    assert bar["data"]["text/html"] == '<progress value="60" max="60"></progress> 60 of 60 images'
    assert cells[2].outputs == []  # a quick call shows no bar


def test_a_program_prints_no_progress() -> None:
    result: Any = subprocess.run(
        [sys.executable, "-c", CODE + "client.sample(60)"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
