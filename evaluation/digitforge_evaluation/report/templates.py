"""What the pages share: their templates, which lie here, and pictures inside the page."""

from __future__ import annotations

import base64
from typing import Any


def template(name: str, **filters: Any) -> Any:
    """The jinja2 template *name* of this folder; what it does not know is an error, and text is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("digitforge_evaluation", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(name)


def data_uri(content: bytes, kind: str = "png") -> str:
    """A picture, *kind* being ``png`` or ``gif``, as an address that contains it."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()
