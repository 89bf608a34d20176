"""Tests of settings as TOML: they are read back as written, and mistakes are refused with the reason."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.cli.experiment import experiment
from digitforge_evaluation.experiment.configuration import read_config, write_config

SMALL = """
data = "digits"
classifier = "svm"
steps = 4
n-per-class = [1, 2]
subsets = 1
arms = ["real"]
"""


def test_written_settings_are_read_back(tmp_path: Path) -> None:
    settings = {
        "n_per_class": (1, 10),
        "cut": {"a b": 0.01},
        "data": 'a"\\b\n😀',
        "ratio": 2.5,
        "fresh": True,
        "filtered": False,
        "server": None,
        "sweep": (),
        "model": (Path("a/b"),),
    }
    write_config(tmp_path / "c.toml", settings)
    assert read_config(tmp_path / "c.toml", known=settings) == {
        "n_per_class": [1, 10],
        "cut": {"a b": 0.01},
        "data": 'a"\\b\n😀',
        "ratio": "2.5",
        "fresh": "True",
        "model": ["a/b"],
    }


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("sub-sets = 3", InvalidInputError, "'sub-sets'; did you mean 'subsets'"),
        ("xyz = 3", InvalidInputError, "'xyz'; expected one of n-per-class, subsets"),
        ("n-per-class = 1\nn_per_class = 2", InvalidInputError, "twice"),
        ("subsets 3", DataError, "not TOML"),
        ("a = '\udcff'", DataError, "not TOML"),
    ],
)
def test_mistakes_in_the_file_are_refused_with_the_reason(
    text: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(error, match=message):
        read_config(path, known=["n_per_class", "subsets"])


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.toml"):
        read_config(tmp_path / "nowhere.toml", known=[])


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(experiment, ["run", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.usefixtures("with_blank_plots")
def test_an_experiment_runs_from_a_file_or_its_saved_settings_and_options_override_them(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(SMALL + f"out = {json.dumps(str(tmp_path / 'a'))}\ncut = {{ '8' = 0.5 }}\n")
    first = json.loads(_run(config, "--json"))
    assert [(arm["arm"], arm["n_per_class"]) for arm in first["arms"]] == [("real", 1), ("real", 2)]
    kept = tmp_path / "a" / "experiment.toml"
    again = json.loads(_run(kept, "--out", tmp_path / "b", "--n-per-class", "2", "--json"))
    assert again["arms"] == first["arms"][1:]
    settings = tomllib.loads(kept.read_text())
    assert tomllib.loads((tmp_path / "b" / "experiment.toml").read_text()) == {**settings, "n-per-class": [2]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("subsets = 2.5", "2.5"),
        ("subsets = 'many'", "many"),
        ("n-per-class = ['x']", "whole numbers"),
        ("cut = { '8' = 'half' }", "the share to keep"),
        ("transpose = 'perhaps'", "perhaps"),
    ],
)
def test_values_in_the_file_are_checked_like_options(line: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(line)
    result = CliRunner().invoke(experiment, ["run", str(config), "--out", str(tmp_path / "a")])
    assert result.exit_code == 2
    assert message in result.output


def test_only_the_command_line_may_name_code_to_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A settings file may come from somebody else, and its classifier from the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "surprise.py").write_text("open('it-ran', 'w')\nfrom sklearn.dummy import DummyClassifier as Mine\n")
    with_code = SMALL.replace("svm", "surprise:Mine")
    for text in (with_code, SMALL + "scheduler = 'tcp://127.0.0.1:1'"):
        (tmp_path / "c.toml").write_text(text)
        result = CliRunner().invoke(experiment, ["run", "c.toml", "--out", "a"])
        assert isinstance(result.exception, InvalidInputError)
        assert "name it on the command line: --" in str(result.exception)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c.toml", "surprise.py"]
    (tmp_path / "c.toml").write_text(with_code)
    named = _run("c.toml", "--out", "a", "--classifier", "surprise:Mine", "--json")
    assert json.loads(named)["arms"]
    assert (tmp_path / "it-ran").exists()
    assert "surprise:Mine" in (tmp_path / "a" / "experiment.toml").read_text()
    again = CliRunner().invoke(experiment, ["run", "a/experiment.toml", "--out", "b"])
    assert isinstance(again.exception, InvalidInputError)
    assert _run("a/experiment.toml", "--out", "b", "--classifier", "forest", "--json")


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"\xef\xbb\xbfsubsets = 3\r\n")
    assert read_config(tmp_path / "c.toml", known=["subsets"]) == {"subsets": "3"}


def test_settings_that_are_nested_too_deeply_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("subsets = " + "[" * 5_000 + "]" * 5_000, "utf-8")
    with pytest.raises(DataError, match="is not TOML"):
        read_config(tmp_path / "c.toml", known=["subsets"])


def test_options_of_the_data_are_settings_like_others(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f"{SMALL}size = 16\nfit = 'pad'\ntranspose = true\ntest-share = 0.3\n")
    run = ["run", str(tmp_path / "c.toml"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(experiment, run, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "539 of its 1797 images (30%) are set aside" in done.stderr
    kept = tomllib.loads((tmp_path / "out" / "experiment.toml").read_text())
    assert {name: kept[name] for name in ("data", "size", "fit", "transpose", "test-share")} == {
        "data": "digits",
        "size": 16,
        "fit": "pad",
        "transpose": True,
        "test-share": 0.3,
    }
    other = CliRunner().invoke(experiment, [*run, "--size", "20"])
    assert "results with other settings: its data is" in str(other.exception)
