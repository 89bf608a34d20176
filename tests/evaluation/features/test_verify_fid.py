"""Tests of ``make verify-fid`` that need no network and no torch-fidelity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from verify_fid import FEATURE_TOLERANCE, SHIPPED, compare, main, table, torch_fidelity, verify

from digitforge_client.errors import DataError
from digitforge_evaluation.features.extract import CallableFeatures
from digitforge_evaluation.features.inception import MIRRORS_VARIABLE
from digitforge_evaluation.images.sources import SavedGenerator

Features = dict[str, npt.NDArray[np.floating]]


def known() -> tuple[Features, Features]:
    """Our features of two sets, and the reference's. The sets differ by a shift of length 5, so their FID is 25."""
    points = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float64)
    ours: Features = {"a": points, "b": points + [3, 4, 0, 0]}
    return ours, {**ours, "a/b": np.array(25.0)}


def test_equal_features_and_the_known_fid_pass() -> None:
    checks = compare(*known())
    assert [each.passed for each in checks] == [True] * 3
    assert checks[2].ours == pytest.approx(25)
    assert "TOO LARGE" not in table(checks)


@pytest.mark.parametrize(("error", "passed"), [(0.5, True), (2.0, False), (np.nan, False)])
def test_one_wrong_feature_of_one_image_fails(error: float, passed: bool) -> None:
    ours, reference = known()
    reference["b"] = reference["b"].copy()
    reference["b"][7, 2] += error * FEATURE_TOLERANCE
    checks = compare(ours, reference)
    assert [each.passed for each in checks] == [True, passed, True]
    assert ("TOO LARGE" in table(checks)) is not passed


@pytest.mark.parametrize(("fid", "passed"), [(25.02, True), (25.03, False), (24.9, False)])
def test_a_wrong_fid_fails(fid: float, passed: bool) -> None:
    ours, reference = known()
    assert compare(ours, {**reference, "a/b": np.float64(fid)})[2].passed is passed


def test_other_sets_or_another_number_of_features_are_refused() -> None:
    ours, reference = known()
    with pytest.raises(DataError, match=r"features of the b images: \(200, 3\); expected \(200, 4\)"):
        compare(ours, {**reference, "b": reference["b"][:, :3]})
    del reference["a"]
    with pytest.raises(DataError, match="features of the a images: none"):
        compare(ours, reference)


def test_the_reference_reads_the_same_pixels_in_the_same_order() -> None:
    rng = np.random.default_rng(0)
    sets = {name: rng.integers(0, 256, (120, 3, 3, 1)).astype(np.uint8) for name in ("a", "b")}
    network = CallableFeatures(name="pixels", function=lambda images: images.reshape(len(images), 9) / 255)

    def reference(folder: Path) -> Mapping[str, npt.NDArray[np.floating]]:
        found: Features = {}
        for name in sets:
            files = sorted((folder / name).glob("*.png"))
            colors = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
            assert (colors == colors[..., :1]).all()
            found[name] = colors[..., 0].reshape(len(files), 9) / 255
        return {**found, "a/b": np.array(0.0)}

    checks = verify(sets, network, reference)
    assert [each.passed for each in checks[:2]] == [True, True]
    assert not checks[2].passed  # two random sets have a distance above 0


def test_the_generated_digits_are_always_the_same() -> None:
    first, second = (SavedGenerator(SHIPPED).draw(20, proportions=(1,) * 10, seed=0).images for _ in range(2))
    assert np.array_equal(first, second)
    assert len(np.unique(first, axis=0)) == 20


def test_without_a_network_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIGITFORGE_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv(MIRRORS_VARIABLE, "http://127.0.0.1:9/")  # nothing listens there
    assert main(["--reference-python", "python"]) == 1
    message = capsys.readouterr().err
    assert "cannot download inception-2015-12-05.tgz" in message
    assert "needs a network, or the files in --graph and --weights" in message


def test_too_few_images_for_a_covariance_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--reference-python", "python", "--n", "2048"])
    assert "--n is 2048; expected 2049 to 10000" in capsys.readouterr().err


def test_a_failure_of_the_reference_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot start .*missing"):
        torch_fidelity(tmp_path / "missing", None)(tmp_path)
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho 'cannot get the weights' >&2\nexit 1\n")
    failing.chmod(0o755)
    with pytest.raises(DataError, match="torch-fidelity failed: cannot get the weights"):
        torch_fidelity(failing, None)(tmp_path)
