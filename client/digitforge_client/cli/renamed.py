"""Old names of options. A command accepts an old name for one version, with a hint on standard error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])


def renamed(old: str, new: str, **attributes: Any) -> Callable[[C], C]:
    """Accept the option *old* for the option that is now called *new*. If both are given, *new* counts.

    Args:
        old: the old name, such as ``--digits``.
        new: the new name, such as ``--n``.
        **attributes: attributes of `click.option`, such as ``multiple``.
    """
    name = new.removeprefix("--").replace("-", "_")

    def pass_on(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value is None or value == ():
            return
        click.echo(f"digitforge: {old} is now called {new}; the next version will not accept {old}", err=True)
        context.default_map = {**(context.default_map or {}), name: value}

    # Eager, because click must not look up the default of the new option before.
    return click.option(
        old, f"old_{name}", hidden=True, expose_value=False, is_eager=True, callback=pass_on, **attributes
    )
