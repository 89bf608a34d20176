"""How commands, notebooks and reports write large numbers."""

from __future__ import annotations


def grouped(number: float, decimals: int = 0) -> str:
    """Write a number as the documents do, ``10 000``, with no-break spaces."""
    return f"{number:,.{decimals}f}".replace(",", "\u00a0")
