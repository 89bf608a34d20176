"""What the fields of a recipe mean, from the comments in ``recipe.py``."""

from __future__ import annotations

import inspect
import re
from functools import cache

from digitforge_training.recipes.recipe import Recipe

_FIELD = re.compile(r"\s+(\w+): .*?(?:#: (.*))?$")  # a field, and the comment behind it
_COMMENT = re.compile(r"\s+#: (.*)$")


@cache
def field_descriptions() -> dict[str, str]:
    """Field => its description in one paragraph, from the ``#:`` comments before and behind the field."""
    found: dict[str, str] = {}
    before: list[str] = []
    for line in inspect.getsource(Recipe).splitlines():
        if comment := _COMMENT.match(line):
            before.append(comment[1])
        elif (field := _FIELD.match(line)) and field[1] in Recipe.__dataclass_fields__:
            found[field[1]] = " ".join([*before, *filter(None, [field[2]])]).replace("``", "").replace("`", "")
            before = []
    return found
