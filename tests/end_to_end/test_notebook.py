"""The notebook of the guides runs from top to bottom, and its committed outputs are small and current."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
import nbformat  # noqa: E402

NOTEBOOK = Path(__file__).parents[2] / "docs" / "guides" / "notebook.ipynb"
MIB = 2**20


def committed() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def kinds(notebook: Any) -> list[list[str]]:
    """What each code cell shows: the types of its results, and the names of its streams."""
    return [
        [output.get("name") or next(iter(sorted(output["data"]))) for output in cell["outputs"]]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def test_the_committed_outputs_are_small_and_without_errors_and_warnings() -> None:
    assert NOTEBOOK.stat().st_size < MIB / 2
    notebook = committed()
    nbformat.validate(notebook)
    for cell in notebook["cells"]:
        assert "metadata" not in cell or not cell["metadata"], "remove the times of execution"
        for output in cell.get("outputs", ()):
            assert output["output_type"] in ("execute_result", "stream", "display_data"), output
            assert output.get("name") != "stderr", output


@pytest.mark.timeout(1200)  # five minutes on two idle cores
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    notebook = committed()
    shown, streams = kinds(notebook), [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [[kind for kind in kinds_ if kind != "stderr"] for kinds_ in kinds(notebook)] == shown
    # The balanced counts are the same everywhere. Accuracies may differ in the last digits.
    (counts,) = [outputs[0]["text"] for outputs in streams if outputs and "before:" in outputs[0].get("text", "")]
    (again,) = [
        cell["outputs"][0]["text"]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "before:" in str(cell["outputs"])
    ]
    assert counts == again
