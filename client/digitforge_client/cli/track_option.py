"""The option ``--track`` of all commands that track their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from digitforge_client.common.tracking import TRACKERS


def track_option(what: str) -> Callable[[Any], Any]:
    """Add the option.

    Args:
        what: the results that it sends.
    """
    return click.option(
        "--track",
        type=click.Choice(TRACKERS),
        help=f"Also send {what} to MLflow. MLFLOW_TRACKING_URI says where it is.",
    )
