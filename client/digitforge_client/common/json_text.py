"""Parses JSON from untrusted sources: cards of servers, and files that commands read."""

from __future__ import annotations

import json
from typing import Any, Final

#: Deepest nesting to accept. Our cards and files have less than 10 levels.
_MAX_DEPTH: Final = 100


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. The result can be written as JSON again.

    Raises:
        ValueError: *text* is not JSON, has more than 100 levels, or contains half of a surrogate pair.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"it has more than {_MAX_DEPTH} levels") from None
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:  # without recursion
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"it has more than {_MAX_DEPTH} levels")
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError, a ValueError, for half of a surrogate pair
    return value
