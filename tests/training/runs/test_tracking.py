"""Tracking: MLflow's own client finds in its store what the run folder holds, once, also after an interruption."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from digitforge_client.common.tracking import FILE, Tracking, check_tracker
from digitforge_client.errors import DataError, DigitforgeError, InvalidInputError, MissingExtraError
from digitforge_training.export.export import export
from digitforge_training.export.saved_model import read_card
from digitforge_training.runs import tracking
from digitforge_training.runs.folder import read_run
from digitforge_training.runs.tags import tag_of
from digitforge_training.runs.train import train

#: A report. Only the run folder counts.
PROGRESS: Any = None


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """A run folder of its own, with a finished training."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's client on a new store of files."""
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not a development tool; install '.[mlflow]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    return mlflow.MlflowClient((tmp_path / "mlruns").as_uri())


def only_run(store: Any) -> Any:
    (experiment,) = [each for each in store.search_experiments() if each.name == "digitforge"]
    (run,) = store.search_runs([experiment.experiment_id])
    return run


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "stats.jsonl").read_text("utf-8").splitlines()]


def artifacts(store: Any, run: Any, folder: str | None = None) -> set[str]:
    return {each.path for each in store.list_artifacts(run.info.run_id, folder)}


def assert_complete(store: Any, folder: Path) -> Any:
    """Check that MLflow has every statistic and every sheet of a run folder, once."""
    run = only_run(store)
    assert run.info.status == "FINISHED"
    for name, value in lines(folder)[0].items():
        if isinstance(value, float):
            history = store.get_metric_history(run.info.run_id, tag_of(name))
            expected = [(line["images"], line[name]) for line in lines(folder) if name in line]
            assert [(each.step, each.value) for each in history] == expected, name
    assert artifacts(store, run, "sheets") == {f"sheets/{path.name}" for path in (folder / "sheets").iterdir()}
    assert {"recipe.json", "stats.jsonl", "walks.png", "training.gif"} <= artifacts(store, run)
    return run


def test_a_training_and_its_export_are_in_mlflow(store: Any, run: Path, tmp_path: Path) -> None:
    train(read_run(run).recipe, "digits", out=run, track="mlflow")  # nothing is left to train
    tracked = assert_complete(store, run)
    assert tracked.info.run_name == "run"
    assert tracked.data.params["width"] == "8"
    assert tracked.data.params["data.sha256"] == read_run(run).training_data["sha256"]

    version = export(run, to=tmp_path / "models" / "letters", name="letters", track="mlflow")
    (registered,) = store.search_model_versions("name='letters'")
    assert (int(registered.version), registered.run_id) == (1, tracked.info.run_id)
    assert registered.tags["generator_id"] == read_card(version)["generator_id"]
    assert registered.description.startswith("# Model card: letters")
    copy = store.download_artifacts(tracked.info.run_id, "model", str(tmp_path))
    assert read_card(Path(copy) / "1") == read_card(version)  # a folder of versions, as servers read it
    assert store.get_run(tracked.info.run_id).info.status == "FINISHED"


def grow(run: Path, *, to: int) -> None:
    """Cut the statistics and sheets to what the folder has after some images; `whole` has all."""
    whole = run.parent / "whole"
    if not whole.exists():
        shutil.copytree(run, whole)
    kept = [line for line in lines(whole) if line["images"] <= to]
    (run / "stats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    shutil.rmtree(run / "sheets")
    shutil.copytree(whole / "sheets", run / "sheets")
    for sheet in (run / "sheets").iterdir():
        if int(sheet.stem) > to:
            sheet.unlink()


@pytest.fixture
def steps(run: Path) -> list[int]:
    """Images seen at the reports of the run, with one report more, because the tiny run has few."""
    last = lines(run)[-1]
    with (run / "stats.jsonl").open("a") as file:
        for more in (1, 2):
            file.write(json.dumps(last | {"images": last["images"] + 32 * more}) + "\n")
    return [line["images"] for line in lines(run)]


def test_a_repeated_training_continues_the_same_run_of_mlflow(
    store: Any, run: Path, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_EVERY_S", 0)

    def interrupted() -> None:
        with tracking.tracked(run, tracker="mlflow") as send:
            grow(run, to=steps[-2])
            send(PROGRESS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert only_run(store).info.status == "KILLED"
    with tracking.tracked(run, tracker="mlflow") as send:
        for images in steps[-3:]:  # the checkpoint was older than the last report, so a report comes again
            grow(run, to=images)
            send(PROGRESS)
    assert_complete(store, run)


def test_a_training_goes_on_while_mlflow_is_away_and_the_end_sends_the_rest(
    store: Any, run: Path, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_EVERY_S", 0)
    send_metrics, attempts = Tracking.metrics, []

    def away_first(self: Tracking, values: Any) -> None:
        attempts.append(values)
        if len(attempts) == 1:
            raise DigitforgeError("MLflow cannot be used")
        send_metrics(self, values)

    monkeypatch.setattr(Tracking, "metrics", away_first)
    with tracking.tracked(run, tracker="mlflow") as send:
        grow(run, to=steps[-2])
        send(PROGRESS)
        grow(run, to=steps[-1])
    assert len(attempts) == 2
    assert_complete(store, run)


def test_an_unreachable_mlflow_is_an_error_before_the_training(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(DigitforgeError, match="check MLFLOW_TRACKING_URI"):
        train("forge-small", "digits", out=tmp_path / "new", track="mlflow")
    assert not (tmp_path / "new").exists()


def test_a_damaged_file_says_what_to_do(store: Any, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(DataError, match="remove it to start another run"):
        Tracking(tmp_path, advice="")


def test_names_of_metrics_have_only_the_characters_of_mlflow(store: Any, tmp_path: Path) -> None:
    tracked = Tracking(tmp_path, advice="")
    tracked.metrics([("accuracy/classical+gan (oracle, ×1.3)", 0.5, 10), ("fd[digitnet-64]@10k", 0.1, 0)])
    assert only_run(store).data.metrics == {"accuracy/classical and gan - oracle 1.3": 0.5, "fddigitnet-6410k": 0.1}


def test_without_mlflow_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"tracking with mlflow needs mlflow.*\[mlflow\]"):
        check_tracker("mlflow")


def test_another_tracker_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="expected mlflow"):
        check_tracker("wandb")


def test_tensorboard_reads_the_statistics_in_groups(trained_run: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(trained_run / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss/generator", "loss/discriminator", "accuracy/real", "images/coverage"} <= tags
    assert not [tag for tag in tags if tag.startswith("other/") or "/" not in tag]
    assert events.Tags()["images"] == ["images/sheet"]
    for line, scalar in zip(lines(trained_run), events.Scalars("loss/generator"), strict=True):
        assert (scalar.step, scalar.value) == (line["images"], pytest.approx(line["generator_loss"]))
