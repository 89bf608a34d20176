"""Follows a training with MLflow: parameters, metrics against images seen, sheets and the finished views.

It reads the run folder. So a gap, for example because MLflow's server was away, closes with the next message, and the
training itself does not depend on MLflow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from digitforge_client.common.json_text import parse_json
from digitforge_client.common.tracking import Tracking, check_tracker
from digitforge_client.errors import DigitforgeError
from digitforge_training.runs.folder import RUN_FILE, read_run
from digitforge_training.runs.loop import GIF_FILE, SHEETS, WALKS_FILE
from digitforge_training.runs.tags import STATS_FILE, tag_of

if TYPE_CHECKING:
    from digitforge_training.runs.loop import Progress

#: Seconds between two messages to MLflow.
_EVERY_S: Final = 10.0


@contextmanager
def tracked(run_dir: Path, *, tracker: str) -> Iterator[Callable[[Progress], None]]:
    """Track the training in a run folder. Yields the function that takes each report.

    Raises:
        InvalidInputError: there is no such tracker.
        MissingExtraError: MLflow is not installed.
        DigitforgeError: at the start or at the end, MLflow cannot be reached. In between, the training goes on.
    """
    check_tracker(tracker)
    follower = _Follower(run_dir)
    try:
        yield follower.report
    except BaseException as error:
        follower.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", quiet=True)
        raise
    follower.end("FINISHED")


class _Follower:
    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._tracking: Tracking | None = None
        self._sent_s = 0.0

    def report(self, _progress: Progress) -> None:
        """Send what is new, but not too often. MLflow may be away for a while."""
        if time.monotonic() - self._sent_s < _EVERY_S:
            return
        with suppress(DigitforgeError):  # the next call sends it
            self._send()
        self._sent_s = time.monotonic()

    def end(self, status: str, *, quiet: bool = False) -> None:
        """Send everything, and end MLflow's run."""
        if not (self._run_dir / RUN_FILE).exists():
            return  # the training did not begin
        try:
            tracking = self._send()
            if status == "FINISHED":
                for name in (RUN_FILE, STATS_FILE, WALKS_FILE, GIF_FILE):
                    tracking.file(self._run_dir / name)
            tracking.end(status)
        except DigitforgeError:
            if not quiet:
                raise

    def _send(self) -> Tracking:
        """Send reports and sheets after the last position."""
        if self._tracking is None:
            self._tracking = Tracking(
                self._run_dir,
                advice=f"the training in {self._run_dir} is kept; the same command sends the rest to MLflow",
            )
            self._tracking.parameters(_parameters(self._run_dir))
        tracking, sent = self._tracking, self._tracking.position
        lines = [line for line in _lines(self._run_dir / STATS_FILE) if line["images"] > sent]
        tracking.metrics(
            [
                (tag_of(name), float(value), line["images"])
                for line in lines
                for name, value in line.items()
                if name != "images" and isinstance(value, int | float)
            ]
        )
        for sheet in sorted((self._run_dir / SHEETS).glob("*.png")):
            if int(sheet.stem) > sent:
                tracking.file(sheet, SHEETS)
        if lines:
            tracking.remember(lines[-1]["images"])
        return tracking


def _parameters(run_dir: Path) -> dict[str, Any]:
    run = read_run(run_dir)
    data = {f"data.{name}": value for name, value in run.training_data.items()}
    judged = {"judge": run.judge, "held_out": run.held_out}
    return {**run.recipe.as_dict(), **data, **judged, "seed": run.seed, "folder": run_dir.absolute()}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of the statistics."""
    if path.exists():
        yield from (parse_json(line) for line in path.read_text("utf-8").splitlines(keepends=True) if line[-1] == "\n")
