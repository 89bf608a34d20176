"""Tests of distance and benefit: the distances, and their rank correlation with the benefit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.cli.experiment import experiment
from digitforge_evaluation.experiment.analysis import analyze
from digitforge_evaluation.experiment.arms import Arm
from digitforge_evaluation.experiment.benefit import benefit, check_distances, distances
from digitforge_evaluation.experiment.store import CellKey, CellResult
from digitforge_evaluation.features.extract import CallableFeatures
from digitforge_evaluation.images.sources import Drawn
from digitforge_training.data import Dataset, load

HITS = ((8, 2), (1, 9))


class _Shifted:
    """A generator of real images with *by* added to all pixels. A larger *by* means a larger distance."""

    def __init__(self, real: Dataset, by: int) -> None:
        self._real, self._by = real, by
        self.name = f"shifted by {by}"
        self.card = {"generator_id": f"{by:016x}", "class_names": list(real.class_names)}

    def draw(self, n: int, *, proportions: tuple[int, ...], seed: int, expansion: float | None = None) -> Drawn:
        images = np.clip(self._real.images[:n].astype(int) + self._by, 0, 255).astype(np.uint8)
        return Drawn(images=images, labels=self._real.labels[:n])

    def seen(self, hashes: npt.NDArray[np.int64]) -> None:
        return None


def test_distances_have_names_and_grow_with_the_change_of_the_images() -> None:
    real = load("digits")
    network = CallableFeatures(name="rows", function=lambda images: images.mean(axis=(2, 3)))
    name, values = distances(
        [_Shifted(real, by) for by in (0, 10, 40)], held_out=load("digits", split="test"), network=network, n=1000
    )
    assert name == "fd[rows]@1k"
    assert list(values) == [f"{by:016x}" for by in (0, 10, 40)]
    assert sorted(values.values()) == list(values.values())


def _cells(gains: dict[str, float]) -> dict[CellKey, CellResult]:
    cells: dict[CellKey, CellResult] = {}
    for subset in range(3):
        for arm, accuracy in {
            "real": 0.8,
            **{f"gan (oracle {name})": 0.8 + gain for name, gain in gains.items()},
        }.items():
            key = CellKey(n_per_class=10, subset=subset, arm=Arm.parse(arm))
            notes = ({"generator_id": arm.rstrip(")").rpartition(" ")[2], "seed": 0, "n": 9},) if arm != "real" else ()
            cells[key] = CellResult(key=key, accuracy=accuracy, confusion=HITS, seconds=1.0, generated=notes)
    return cells


def test_a_perfect_order_has_a_correlation_of_minus_one_and_an_exact_p_value() -> None:
    cells = _cells({"a": 0.04, "b": 0.03, "c": 0.01, "d": -0.02, "e": -0.05})
    found = benefit(
        analyze(cells), cells, distance_name="fd", values={"a": 1.0, "b": 2.0, "c": 3.0, "d": 50.0, "e": 70.0}
    )
    assert (found.points[0].generator, found.points[0].distance) == ("oracle a", 1.0)
    assert found.points[3].difference == pytest.approx(-0.02)
    (correlation,) = found.correlations
    assert (correlation.arm, str(correlation.baseline), correlation.generators) == ("gan", "real", 5)
    assert correlation.rho == pytest.approx(-1)
    assert correlation.p_value == pytest.approx(2 / 120)


def test_the_rank_correlation_agrees_with_scipy_for_ties_and_many_generators() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    names = [f"g{i}" for i in range(12)]
    x, y = rng.integers(0, 8, 12) / 10 + 1, rng.normal(0, 0.01, 12)
    cells = _cells(dict(zip(names, y, strict=True)))
    values = dict(zip(names, x.tolist(), strict=True))
    (correlation,) = benefit(analyze(cells), cells, distance_name="fd", values=values).correlations
    expected = stats.spearmanr(x, y)
    assert correlation.rho == pytest.approx(expected.statistic)
    assert correlation.p_value == pytest.approx(expected.pvalue, abs=0.05)


def test_three_generators_give_no_correlation_and_unmeasured_generators_no_point() -> None:
    cells = _cells({"a": 0.04, "b": 0.03, "c": 0.01, "d": 0.0})
    found = benefit(analyze(cells), cells, distance_name="fd", values={"a": 1.0, "b": 2.0, "c": 3.0})
    assert len(found.points) == 3
    assert found.correlations == ()


@pytest.mark.parametrize(
    ("n", "message"), [(64, "64 generated .* needs more than 64"), (1000, "leave out --distances")]
)
def test_images_that_do_not_fit_the_distance_are_refused_in_advance(n: int, message: str) -> None:
    digits = load("digits", split="test")
    if n == 1000:
        small = Dataset(
            images=digits.images[:, 4:24, 4:24],
            labels=digits.labels,
            class_names=digits.class_names,
            name="small",
            split="test",
        )
        digits = small
    with pytest.raises(InvalidInputError, match=message):
        check_distances(digits, n)


@pytest.mark.usefixtures("with_blank_plots")
def test_an_experiment_measures_and_reports_the_distances_of_its_generators(
    tmp_path: Path, exported_model: Path
) -> None:
    result = CliRunner().invoke(
        experiment,
        [
            *("run", "--data=digits", "--classifier=svm", "--steps=4", "--n-per-class=2", "--subsets=2"),
            *("--arms=real,gan", f"--model={exported_model}", "--distances=200", f"--out={tmp_path}"),
        ],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    (point,) = json.loads((tmp_path / "report.json").read_text())["benefit"]["points"]
    assert point["distance"] > 10  # the generator is nearly untrained
    assert "fd[digitnet-64]@200" in (tmp_path / "distances.json").read_text()
    page = (tmp_path / "report.html").read_text()
    assert page.index("Distance against benefit") < page.index("192 images into its training")
    assert f"{point['distance']:.4g}" in page
    assert (tmp_path / "distance.svg").read_bytes().startswith(b"<svg")
