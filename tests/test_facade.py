"""`import digitforge`: all steps without the command line, and the errors if an extra is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import digitforge
import digitforge_client
from digitforge_client.common.extras import install_command

RECIPE = "minimax"  # has no classes and compiles in a second
TINY: dict[str, Any] = {"generator_widths": (16,), "discriminator_widths": (16,), "batch_size": 32}
HEAVY = ("tensorflow", "keras", "sklearn", "scipy", "matplotlib", "joblib", "filelock", "grpc_health")


@pytest.fixture(scope="module")
def data() -> digitforge.Dataset:
    return digitforge.load_data("digits")


@pytest.fixture(scope="module")
def run(data: digitforge.Dataset, tmp_path_factory: pytest.TempPathFactory) -> digitforge.TrainedRun:
    folder = tmp_path_factory.mktemp("facade") / "run"
    return digitforge.train(RECIPE, data, out=folder, steps=2, **TINY)


@pytest.fixture(scope="module")
def model(run: digitforge.TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digitforge.export(run, to=tmp_path_factory.mktemp("facade") / "digits").parent


def test_a_generator_is_trained_exported_served_and_evaluated(
    run: digitforge.TrainedRun, model: Path, data: digitforge.Dataset
) -> None:
    assert run.recipe.steps == 2
    assert run.last is not None
    assert run.last.images_seen == run.last.images_total
    with digitforge.EmbeddedServer(model) as target, digitforge.DigitClient(target) as client:
        batch = client.sample(1000, seed=1)
        assert client.card()["training_data"]["sha256"] == data.sha256
        assert client.seen(digitforge_client.contract.image_hashes(data.images[:5])).all()

    report = digitforge.evaluate(batch.images, batch.labels)
    assert (report.n, report.figures[0].name) == (1000, "fd[digitnet-64]@1k")
    assert "no labels" in report.left_out["agreement"]
    pair = data.subset(np.arange(600)), digitforge.load_data("digits", split="test").subset(np.arange(200))
    report = digitforge.evaluate(batch.images[..., np.newaxis], list(range(10)) * 100, real=pair, n=200, k=3)
    assert (report.n, report.k, report.reference) == (200, 3, "digits test")
    assert "agreement" not in report.left_out


def test_repeating_a_finished_training_does_nothing_and_more_steps_extend_it(
    run: digitforge.TrainedRun, data: digitforge.Dataset
) -> None:
    assert digitforge.train(RECIPE, data, out=str(run.folder), steps=2, **TINY).last is None
    longer = digitforge.train(digitforge.RECIPES[RECIPE], data, out=run.folder, steps=3, **TINY)
    assert longer.last is not None
    assert longer.last.images_seen == 3 * longer.recipe.images_per_step


def test_a_run_folder_is_exported_with_the_data_that_it_remembers(run: digitforge.TrainedRun, tmp_path: Path) -> None:
    chosen: list[float] = []
    for number, data in (("1", None), ("2", "digits")):
        version = digitforge.export(
            run.folder, to=tmp_path, data=data, expansion=1.1, on_expansion=lambda each: chosen.append(each.factor)
        )
        assert version == tmp_path / number
    assert chosen == [1.1, 1.1]


def test_an_experiment_returns_verdicts_and_a_report(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = ["classical", "classical+gan"]
    # Save blank plots. Drawing them takes ten seconds.
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda _, file, **__: file.write('<svg viewBox="0 0 8 8"></svg>')
    )
    few: dict[str, Any] = {"classifier": "svm", "steps": 4, "subsets": 2, "n_per_class": [2], "ratio": 1}
    result = digitforge.run_experiment(tmp_path / "e", data="digits", model=model, arms=arms, **few)
    assert [str(arm.arm) for arm in result.analysis.arms] == ["classical", "classical+gan (semi)"]
    (verdict,) = result.verdicts
    assert "2 subsets" in verdict
    assert result.html == tmp_path / "e" / "report.html"
    assert result.html.is_file()


@pytest.mark.parametrize("arguments", [{"subsets": 0}, {"data": "no/such/place"}, {"server": "x:1", "model": "y"}])
def test_wrong_settings_raise_an_error_before_anything_is_written(arguments: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(digitforge.DigitforgeError):
        digitforge.run_experiment(tmp_path / "e", **{"classifier": "logistic", "data": "digits"} | arguments)
    assert not (tmp_path / "e").exists()


def test_every_public_name_exists_and_has_a_docstring() -> None:
    assert len(set(digitforge.__all__)) == len(digitforge.__all__)
    assert set(digitforge_client.__all__) < set(dir(digitforge))
    for name in digitforge.__all__:
        assert getattr(digitforge, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        digitforge.nonsense  # noqa: B018


@pytest.mark.parametrize("missing", [HEAVY, ("tensorflow",)], ids=["every extra", "TensorFlow"])
def test_without_an_extra_the_import_works_and_calls_name_the_extra(missing: tuple[str, ...], tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules.update(dict.fromkeys({missing}))
import numpy as np
import digitforge
loaded = {{name.partition(".")[0] for name, module in sys.modules.items() if module}}
assert not loaded & {{"PIL", "click", "rich", "scipy", "sklearn", "digitforge_training"}}, loaded
for call in (
    lambda: digitforge.load_data("digits"),
    lambda: digitforge.train("forge", "digits", out="run"),
    lambda: digitforge.evaluate(np.zeros((2, 28, 28), np.uint8)),
    lambda: digitforge.run_experiment("e", data="digits"),
    lambda: digitforge.EmbeddedServer({str(tmp_path)!r}).__enter__(),
):
    try:
        call()
    except digitforge.MissingExtraError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = [("digitforge.train", "training"), ("digitforge.evaluate", "evaluation")]
    expected += [("digitforge.run_experiment", "evaluation"), ("EmbeddedServer", "serving")]
    if "sklearn" in missing:
        expected.insert(0, ("digitforge.load_data", "training"))
    for line, (name, extra) in zip(done.stdout.splitlines(), expected, strict=True):
        assert line.startswith(f"{name} needs ")
        assert line.endswith(f": {install_command(extra)}")


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "digitforge", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"digitforge, version {digitforge.__version__}\n"
