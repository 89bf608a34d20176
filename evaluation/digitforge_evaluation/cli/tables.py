"""Tables on a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def print_table(console: Console, titles: Sequence[str], rows: Sequence[Sequence[str]], *, ruled: bool = False) -> None:
    """Print a table. If the terminal is too narrow for it, print each row as a list of its cells.

    Args:
        console: where to print.
        titles: of the columns. The first column names the rows, and the others hold numbers.
        rows: the cells.
        ruled: whether to draw a line below the titles.
    """
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE if ruled else None, pad_edge=ruled, padding=(0, 1) if ruled else (0, 2, 0, 0))
    for place, title in enumerate(titles):
        table.add_column(Text(title), justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    if Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width:
        console.print(table)
        return
    width = max(map(len, titles[1:]))
    for name, *cells in rows:
        console.print(Text(name), soft_wrap=True)
        for title, cell in zip(titles[1:], cells, strict=True):
            if cell:
                console.print(Text(f"  {title:<{width}}  {cell}"), soft_wrap=True)
