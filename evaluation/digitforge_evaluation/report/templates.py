"""The HTML templates in this folder, and images inside a page."""

from __future__ import annotations

import base64
from typing import Any


def template(name: str, **filters: Any) -> Any:
    """The jinja2 template *name* of this folder. It escapes text, and an undefined name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("digitforge_evaluation", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({"zip": zip, **filters})
    return environment.get_template(name)


def data_uri(content: bytes, kind: str = "png") -> str:
    """The ``data:`` URI of an image. *kind* is ``png`` or ``gif``."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()
