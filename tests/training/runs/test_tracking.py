"""Tracking: MLflow's own client finds in its store what the run folder holds, once, also after an interruption."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from digitforge_client.common.tracking import FILE, Tracking, check_tracker
from digitforge_client.errors import DataError, DigitforgeError, InvalidInputError, MissingExtraError
from digitforge_training.data import Dataset
from digitforge_training.export.export import export
from digitforge_training.export.saved_model import read_card
from digitforge_training.recipes import resolve
from digitforge_training.runs import tracking
from digitforge_training.runs.tags import tag_of
from digitforge_training.runs.train import TrainedRun, train

TINY = {
    "width": "8", "generator_blocks": "1", "discriminator_blocks": "1", "batch_size": "32", "steps": "4",
    "images_per_checkpoint": "64", "images_per_sheet": "64",
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    from digitforge_training.data import load

    return load("digits").subset(range(0, 1400, 7))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's client on a new store of files."""
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not a development tool; install '.[mlflow]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    return mlflow.MlflowClient((tmp_path / "mlruns").as_uri())


def trained(data: Dataset, out: Path, **options: Any) -> TrainedRun:
    return train(resolve("forge-small", TINY), data, out=out, track="mlflow", **options)


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


def test_a_training_and_its_export_are_in_mlflow(store: Any, data: Dataset, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "run")
    tracked = assert_complete(store, tmp_path / "run")
    assert tracked.info.run_name == "run"
    assert tracked.data.params["width"] == "8"
    assert tracked.data.params["data.sha256"] == data.sha256

    version = export(run, to=tmp_path / "models" / "letters", name="letters", track="mlflow")
    (registered,) = store.search_model_versions("name='letters'")
    assert (int(registered.version), registered.run_id) == (1, tracked.info.run_id)
    assert registered.tags["generator_id"] == read_card(version)["generator_id"]
    assert registered.description.startswith("# Model card: letters")
    copy = store.download_artifacts(tracked.info.run_id, "model", str(tmp_path))
    assert read_card(Path(copy) / "1") == read_card(version)  # a folder of versions, as servers read it
    assert store.get_run(tracked.info.run_id).info.status == "FINISHED"


def test_a_repeated_training_continues_the_same_run_of_mlflow(
    store: Any, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_EVERY_S", 0)

    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "run", on_progress=stop)
    assert only_run(store).info.status == "KILLED"
    trained(data, tmp_path / "run")
    assert_complete(store, tmp_path / "run")
    trained(data, tmp_path / "run")  # nothing is left to train
    assert_complete(store, tmp_path / "run")


def test_a_training_goes_on_while_mlflow_is_away_and_the_end_sends_the_rest(
    store: Any, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_EVERY_S", 0)
    send, attempts = Tracking.metrics, []

    def away_first(self: Tracking, values: Any) -> None:
        attempts.append(values)
        if len(attempts) == 1:
            raise DigitforgeError("MLflow cannot be used")
        send(self, values)

    monkeypatch.setattr(Tracking, "metrics", away_first)
    trained(data, tmp_path / "run")
    assert len(attempts) > 1
    assert_complete(store, tmp_path / "run")


def test_an_unreachable_mlflow_is_an_error_before_the_training(
    store: Any, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(DigitforgeError, match="check MLFLOW_TRACKING_URI"):
        trained(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


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


def test_tensorboard_reads_the_statistics_in_groups(data: Dataset, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(resolve("forge-small", TINY), data, out=tmp_path / "run")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss/generator", "loss/discriminator", "accuracy/real", "images/coverage"} <= tags
    assert not [tag for tag in tags if tag.startswith("other/") or "/" not in tag]
    assert events.Tags()["images"] == ["images/sheet"]
    for line, scalar in zip(lines(tmp_path / "run"), events.Scalars("loss/generator"), strict=True):
        assert (scalar.step, scalar.value) == (line["images"], pytest.approx(line["generator_loss"]))
