"""Tables on wide and narrow terminals lose nothing."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from digitforge_evaluation.cli.tables import print_table

TITLES = ("metric", "value", "95 % interval", "n", "training floor", "unseen floor", "better")
ROWS = [
    ("fd[digitnet-64]@10k", "2.312", "2.201 … 2.423", "10000", "1.234 ± 0.12", "0.9876 ± 0.034 (5000)", "lower"),
    ("  fd of class 猫", "12.5", "", "1000", "", "", "lower"),
]


def _printed(width: int, *, ruled: bool = True) -> str:
    out = io.StringIO()
    print_table(Console(file=out, width=width), TITLES, ROWS, ruled=ruled)
    return out.getvalue()


@pytest.mark.parametrize("ruled", [True, False])
@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 130])
def test_every_cell_is_printed_whole_at_any_width(width: int, ruled: bool) -> None:
    printed = _printed(width, ruled=ruled)
    for cell in (cell for row in ROWS for cell in row):
        assert cell in printed
    assert "…" not in printed.replace("2.201 … 2.423", "")


def test_a_wide_terminal_shows_a_table_and_a_narrow_one_lists() -> None:
    wide, narrow = _printed(130), _printed(60)
    assert len([line for line in wide.splitlines() if "fd" in line]) == 2
    assert "lower" in next(line for line in wide.splitlines() if "@10k" in line)
    assert narrow.splitlines()[:3] == [
        "fd[digitnet-64]@10k",
        "  value           2.312",
        "  95 % interval   2.201 … 2.423",
    ]
    assert max(map(len, narrow.splitlines())) <= 60
