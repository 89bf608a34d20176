"""Reports of a run: equal in stats.jsonl and in TensorBoard, and no step twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from digitforge_client.errors import DataError
from digitforge_training.runs import pictures
from digitforge_training.runs.journal import Journal


def _lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]


def _events(run_dir: Path) -> list[Any]:
    """All events, in the order in which TensorBoard reads them."""
    files = sorted((run_dir / "tensorboard").iterdir())
    assert all(".tfevents." in path.name for path in files)  # TensorBoard ignores other files
    events = []
    for path in files:
        first, *others = map(tf.compat.v1.Event.FromString, tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
        assert first.file_version == "brain.Event:2"
        events += others
    return events


def _sheet(run_dir: Path, channels: int = 1) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, channels)).astype(np.uint8)
    path = run_dir / "sheets" / "1.png"
    pictures.save_png(pictures.sheet(images, columns=4), path)
    return path


def test_tensorboard_is_told_what_the_statistics_say(tmp_path: Path) -> None:
    journal = Journal(tmp_path, images_seen=0)
    lines: list[dict[str, Any]] = [
        {"images": 64, "generator_loss": 0.5, "judge": 3.25, "troubles": ["noise"]},
        {"images": 128, "generator_loss": 0.25},
    ]
    for line in lines:
        journal.report(line)
    journal.close()
    assert _lines(tmp_path) == lines
    told = [
        (event.step, {value.tag: value.simple_value for value in event.summary.value}) for event in _events(tmp_path)
    ]
    assert told == [(64, {"loss/generator": 0.5, "images/judge": 3.25}), (128, {"loss/generator": 0.25})]


@pytest.mark.parametrize("channels", [1, 3])
def test_tensorboard_is_shown_the_sheets(tmp_path: Path, channels: int) -> None:
    sheet = _sheet(tmp_path, channels)
    journal = Journal(tmp_path, images_seen=0)
    journal.show(sheet, images_seen=64)
    journal.close()
    (event,) = _events(tmp_path)
    (value,) = event.summary.value
    assert (value.image.width, value.image.height, value.image.colorspace) == (4 * 18 + 2, 20, channels)
    assert value.image.encoded_image_string == sheet.read_bytes()


def test_a_resumed_run_has_no_step_twice(tmp_path: Path) -> None:
    for images_seen in (0, 128, 128):  # killed twice, each time after 256 images, with a checkpoint at 128
        journal = Journal(tmp_path, images_seen=images_seen)
        assert journal.images_seen == images_seen
        if not images_seen:
            journal.show(_sheet(tmp_path), images_seen=0)
        for images in range(images_seen + 64, 257, 64):
            journal.report({"images": images, "loss": 1.0 / images})
        journal.close()
        newest = max((tmp_path / "tensorboard").iterdir())
        newest.write_bytes(newest.read_bytes()[:-5])  # cut short
        with (tmp_path / "stats.jsonl").open("a") as file:
            file.write('{"images": 320, "lo')
    journal = Journal(tmp_path, images_seen=192)
    journal.report({"images": 256, "loss": 0.0})
    journal.close()
    assert [line["images"] for line in _lines(tmp_path)] == [64, 128, 192, 256]
    events = _events(tmp_path)
    assert [event.step for event in events] == [0, 64, 128, 192, 256]
    assert [event.wall_time for event in events] == sorted(event.wall_time for event in events)


def test_events_of_a_killed_merge_are_taken_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path, images_seen=0)
    for images in (64, 128):
        journal.report({"images": images, "loss": 1.0})
    journal.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    shutil.copy(file, file.with_name("events.out.tfevents.9"))  # the merged file, and one that it should have replaced
    Journal(tmp_path, images_seen=128).close()
    assert [event.step for event in _events(tmp_path)] == [64, 128]


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(DataError, match="tensorboard"):
        Journal(tmp_path, images_seen=0)
    (tmp_path / "tensorboard").unlink()
    journal = Journal(tmp_path, images_seen=0)
    (tmp_path / "stats.jsonl").mkdir()
    with pytest.raises(DataError, match=r"cannot write .*stats\.jsonl: .*checkpoint is intact"):
        journal.report({"images": 64})
