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
    """What each code cell shows: the types of its results, and the names of its streams.

    A slow machine also shows progress bars and messages of libraries.
    """
    shown = [
        [output.get("name") or "+".join(sorted(output["data"])) for output in cell["outputs"]]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]
    return [[kind for kind in cell if kind != "stderr"] for cell in shown]


def text_of(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.get("outputs", ()))


def test_the_committed_outputs_are_small_and_without_errors_and_warnings() -> None:
    assert NOTEBOOK.stat().st_size < MIB / 2
    notebook = committed()
    nbformat.validate(notebook)
    for cell in notebook["cells"]:
        assert "metadata" not in cell or not cell["metadata"], "remove the times of execution"
        for output in cell.get("outputs", ()):
            assert output["output_type"] in ("execute_result", "stream", "display_data"), output
            assert output.get("name") != "stderr", output


@pytest.mark.slow
@pytest.mark.timeout(1800)  # five minutes on two idle cores
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    notebook = committed()
    shown, before = kinds(notebook), committed()["cells"]
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for cell in notebook["cells"]:
        cell["outputs"] = [each for each in cell.get("outputs", ()) if "<progress" not in str(each)]
    assert kinds(notebook) == shown
    # The balanced counts are the same everywhere. Accuracies may differ in the last digits.
    assert [text for text in map(text_of, before) if "before:" in text] == [
        text for text in map(text_of, notebook["cells"]) if "before:" in text
    ]
