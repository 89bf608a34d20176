"""Reports of a training: ``stats.jsonl`` for programs, and event files for TensorBoard.

The event files in ``tensorboard/`` hold the numbers of ``stats.jsonl`` in groups, and the sheets. Both count in images.
A resumed training first removes all reports after its checkpoint, so that no step appears twice. The event files are
written without ``tf.summary``, which would need the package tensorboard.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import tensorflow as tf
from PIL import Image

from digitforge_client.common.files import make_folder, replacing
from digitforge_client.common.json_text import parse_json
from digitforge_client.errors import DataError
from digitforge_training.runs.tags import STATS_FILE, tag_of

EVENTS: Final = "tensorboard"

_Line = dict[str, Any]
_VERSION: Final = "brain.Event:2"  # the first record of every event file


class Journal:
    """Writes the reports of a run.

    Attributes:
        lines: all reports since the run began, each a line of ``stats.jsonl``.

    Raises:
        DataError: the folder cannot be written. Every method may raise it.
    """

    def __init__(self, run_dir: Path, *, images_seen: int) -> None:
        """Open the reports of a run. Remove reports after *images_seen* images, because those steps are repeated."""
        self._stats = run_dir / STATS_FILE
        self.lines = _remove_lines_after(self._stats, images_seen)
        folder = run_dir / EVENTS
        make_folder(folder)
        _remove_events_after(folder, images_seen)
        path = folder / f"events.out.tfevents.{time.time_ns()}"  # names sort by time
        with _as_data_error(path):
            self._events = tf.io.TFRecordWriter(str(path))
            self._write(tf.compat.v1.Event(file_version=_VERSION))

    @property
    def images_seen(self) -> int:
        """Images seen at the last report."""
        return self.lines[-1]["images"] if self.lines else 0

    def report(self, line: Mapping[str, Any]) -> None:
        """Write a line. Its numbers also go to TensorBoard, at the step ``images``."""
        with _as_data_error(self._stats), self._stats.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.lines.append(dict(line))
        values = [
            {"tag": tag_of(name), "simple_value": value}
            for name, value in line.items()
            if name != "images" and isinstance(value, int | float)
        ]
        self._write(_event(line["images"], values))

    def show(self, sheet: Path, *, images_seen: int) -> None:
        """Write a sheet, a PNG file, to TensorBoard."""
        content = sheet.read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
            channels = len(picture.getbands())  # also the code of the color space: 1 is gray, 3 is RGB
        image = {"width": width, "height": height, "colorspace": channels, "encoded_image_string": content}
        self._write(_event(images_seen, [{"tag": "images/sheet", "image": image}]))

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        with _as_data_error(self._stats.parent / EVENTS):
            self._events.write(event.SerializeToString())
            self._events.flush()

    def close(self) -> None:
        """Close the event file."""
        with _as_data_error(self._stats.parent / EVENTS):
            self._events.close()


def _event(images_seen: int, values: list[dict[str, Any]]) -> Any:
    return tf.compat.v1.Event(step=images_seen, summary=tf.compat.v1.Summary(value=values))


def _remove_lines_after(path: Path, images: int) -> list[_Line]:
    """Remove lines after *images* images, and an incomplete last line. Returns the lines that stay."""
    if not path.exists():
        return []
    kept: list[_Line] = []
    for text in path.read_text("utf-8").splitlines():
        try:
            line = parse_json(text)
        except ValueError:
            break
        if line["images"] <= images:
            kept.append(line)
    with replacing(path) as file:
        file.writelines(json.dumps(line).encode() + b"\n" for line in kept)
    return kept


def _remove_events_after(folder: Path, images: int) -> None:
    """Merge all event files into one, without events after *images* images."""
    old = sorted(folder.glob("*.tfevents.*"))
    with _as_data_error(folder):
        for leftover in folder.glob(".*.tmp"):  # of a process that was killed here
            leftover.unlink()
        # A killed process may have left both the merged file and the files that it replaces: take each event once.
        records = dict.fromkeys(record for path in old for record in _records_of(path))
        events = [tf.compat.v1.Event.FromString(record) for record in records]
        kept = [event for event in events if event.step <= images and not event.file_version]
        if kept:
            joined = folder / f".{time.time_ns()}.tmp"
            with tf.io.TFRecordWriter(str(joined)) as writer:
                for event in (tf.compat.v1.Event(file_version=_VERSION, wall_time=kept[0].wall_time), *kept):
                    writer.write(event.SerializeToString())
            joined.replace(old.pop(0))
        for path in old:
            path.unlink()


def _records_of(path: Path) -> Iterator[bytes]:
    """Read the events of a file. Stops at an incomplete event, which a killed process left."""
    try:
        yield from tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    except tf.errors.DataLossError:
        return


@contextmanager
def _as_data_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        raise DataError(
            f"cannot write {path}: {reason}; fix this and repeat the command (the newest checkpoint is intact)"
        ) from error
