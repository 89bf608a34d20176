"""`digitforge evaluate`, as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.cli import evaluate
from digitforge_training.data import load


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "digitforge_client.command", "evaluate", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.fixture(scope="module")
def real_npz(tmp_path_factory):
    """Real digits as if they were generated: training images, so that none is held out."""
    train = load("digits")
    path = tmp_path_factory.mktemp("images") / "digits.npz"
    np.savez(path, x=train.images, y=train.labels)
    return path


def test_json_on_standard_output_is_json_alone_and_names_everything(exported_model):
    done = run("--model", exported_model, "--n", 1000, "--json")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    distance, agreement, score = report["figures"]
    assert distance["name"] == "fd[digitnet-64]@1k"
    assert distance["n"] == 1000
    assert distance["real"]["repeats"] == 10
    assert 0 <= agreement["value"] <= 1
    assert 1 <= score["value"] <= 10
    assert len(report["generator_id"]) == 16
    assert set(report["left_out"]) == {"kernel", "precision", "recall", "density", "coverage", "memorised"}


def test_a_table_says_what_was_left_out_and_why(real_npz):
    result = CliRunner().invoke(evaluate, ["--images", str(real_npz), "--n", "500"])

    assert result.exit_code == 0, result.output
    assert "fd[digitnet-64]@500" in result.stdout
    assert "left out: recall: needs real images: give --data" in result.stdout
    assert "does not say what its generator was trained on" in result.stdout.replace("\n", " ")


def test_with_real_images_the_table_holds_all_that_so_few_images_allow(real_npz):
    result = CliRunner().invoke(evaluate, ["--images", str(real_npz), "--n", "300", "--data", "digits", "--k", "3"])

    assert result.exit_code == 0, result.output
    for name in ("precision[digitnet-64,k=3]", "coverage[digitnet-64,k=3]", "too_near_to_training[digitnet-64]"):
        assert name in result.stdout
    assert "\x1b" not in result.output  # no colours where nobody sees them


def test_a_served_generator_and_the_same_one_in_a_folder_are_measured_alike(exported_model):
    from digitforge_serving import EmbeddedServer

    arguments = ["--n", 1000, "--seed", 5, "--json"]
    with EmbeddedServer(exported_model) as target:
        served = run("--server", target, *arguments)
    assert served.returncode == 0, served.stderr
    saved = run("--model", exported_model, *arguments)

    there, here = json.loads(served.stdout), json.loads(saved.stdout)
    assert there["source"] == target
    assert there["generator_id"] == here["generator_id"]
    for one, other in zip(there["figures"], here["figures"], strict=True):
        assert one["name"] == other["name"]
        assert one["value"] == pytest.approx(other["value"], rel=1e-2)  # a grey level here and there


def test_one_source_must_be_named(exported_model):
    for arguments in ([], ["--model", str(exported_model), "--server", "localhost:1"]):
        result = CliRunner().invoke(evaluate, arguments)
        assert isinstance(result.exception, InvalidInputError)
        assert "name one source of images" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--images", "missing.npz"], 4, "missing.npz: no such file or folder"),
        (["--model", "missing"], 4, "missing: no SavedModel here"),
        (["--server", "127.0.0.1:9"], 3, "127.0.0.1:9"),
        (["--model", ".", "--n", "5"], 2, "n"),
    ],
)
def test_bad_input_is_one_clear_line_and_the_documented_status(arguments, status, message, tmp_path):
    done = run(*arguments)

    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_held_out_images_are_refused_with_status_2(tmp_path):
    test = load("digits", split="test")
    np.savez(tmp_path / "held.npz", x=test.images, y=test.labels)

    done = run("--images", tmp_path / "held.npz", "--data", "digits", "--n", 100)

    assert done.returncode == 2
    assert "are themselves among the held-out images" in done.stderr


def test_a_served_generator_that_saw_held_out_images_is_refused(exported_model, tmp_path):
    """The tiny generator was trained on the digits' training split; here that split is what is held out."""
    from digitforge_serving import EmbeddedServer

    train, test = load("digits"), load("digits", split="test")
    np.savez(tmp_path / "swapped.npz", x=test.images, y=test.labels, x_test=train.images, y_test=train.labels)
    with EmbeddedServer(exported_model) as target:
        done = run("--server", target, "--data", tmp_path / "swapped.npz", "--n", 100)

    assert done.returncode == 2
    assert f"{target} was trained on {len(train)} of the {len(train)} held-out images" in done.stderr


def test_help_needs_no_tensorflow_and_shows_examples():
    code = (
        "import sys; sys.modules['tensorflow'] = None; sys.modules['sklearn'] = None; sys.modules['scipy'] = None\n"
        "from digitforge_evaluation.cli import evaluate; evaluate(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "digitforge evaluate --server localhost:8500" in done.stdout
