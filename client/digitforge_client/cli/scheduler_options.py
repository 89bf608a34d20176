"""The options of commands that can use a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from digitforge_client.common.parallel import Scheduler

C = TypeVar("C", bound=Callable[..., Any])

_FILE: Final = click.Path(path_type=Path)
#: Names of the parameters of `scheduler_options`.
SCHEDULER: Final = ("scheduler", "scheduler_ca", "scheduler_cert", "scheduler_key")


def scheduler_options(text: str) -> Callable[[C], C]:
    """Add the options that name a Dask scheduler. Pass their values to `scheduler_of`.

    Args:
        text: help of ``--scheduler``.
    """
    options = (
        click.option("--scheduler", metavar="tcp://HOST:PORT", help=f"{text} With TLS: tls://HOST:PORT."),
        click.option(
            "--scheduler-ca",
            type=_FILE,
            metavar="FILE",
            help="Trust the scheduler's certificates in this PEM file.  [default: Dask's configuration]",
        ),
        click.option("--scheduler-cert", type=_FILE, metavar="FILE", help="Client certificate for the scheduler."),
        click.option("--scheduler-key", type=_FILE, metavar="FILE", help="Private key of --scheduler-cert."),
    )

    def add(command: C) -> C:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def scheduler_of(
    *,
    scheduler: str | None,
    scheduler_ca: Path | None = None,
    scheduler_cert: Path | None = None,
    scheduler_key: Path | None = None,
) -> Scheduler | None:
    """The scheduler that the options describe, or None.

    Raises:
        InvalidInputError: the options contradict each other.
    """
    from digitforge_client.common.parallel import Scheduler
    from digitforge_client.errors import InvalidInputError

    if scheduler is None:
        if scheduler_ca or scheduler_cert or scheduler_key:
            raise InvalidInputError("certificates for a scheduler were given, but no --scheduler; add --scheduler")
        return None
    return Scheduler(address=scheduler, ca=scheduler_ca, certificate=scheduler_cert, key=scheduler_key)
