"""Large numbers in output."""

from __future__ import annotations

from digitforge_client.common.numerals import grouped


def test_large_numbers_have_no_break_spaces() -> None:
    assert [grouped(number) for number in (999, 1000, -1234567)] == ["999", "1\u00a0000", "-1\u00a0234\u00a0567"]
    assert grouped(1234.56, decimals=1) == "1\u00a0234.6"
