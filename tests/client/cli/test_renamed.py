"""Old names of options still work, with a hint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import run
from every_command import COMMANDS, options

#: Names of options that no command shows any more.
RETIRED = {"--model-base-path", "--digits", "--repeats"}


def test_no_command_shows_a_retired_name() -> None:
    shown = {" ".join(words): options(command).keys() & RETIRED for words, command in COMMANDS.items()}
    assert {words: names for words, names in shown.items() if names} == {"serve": {"--model-base-path"}}


def test_model_names_a_folder_and_model_name_a_name_in_every_command() -> None:
    for words, command in COMMANDS.items():
        found = options(command)
        assert "--model" not in found or "folder" in (found["--model"].help or "").lower(), words
        assert ("--server" in found) <= ("--model-name" in found), words


def test_an_old_name_works_and_names_the_new_one(server: Any, tmp_path: Path) -> None:
    result = run("sample", "--server", server.target, "--n", 5, "--model", "letters", "--out", tmp_path / "d.npz")
    hint, error = result.stderr.splitlines()
    assert hint == "digitforge: --model is now called --model-name; the next version will not accept --model"
    assert "no model 'letters'" in error
    assert result.returncode == 3
    result = run("sample", "--server", server.target, "--n", 5, "--model-name", "letters", "--out", tmp_path / "d.npz")
    assert "now called" not in result.stderr
    assert "no model 'letters'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("generate", "x", "--server", "127.0.0.1:1", "--model", "a", "--n", 1), 3, "--model-name"),
        (("demo", "--model-base-path", "nowhere", "--out", "o"), 4, "nowhere: no generator here"),
        (("demo", "--digits", "5"), 2, "'--n'"),
        (("demo", "--subsets", "0"), 2, "'--subsets'"),
        (("demo", "--repeats", "0"), 2, "'--subsets'"),
        (("experiment", "choose-expansion", "--model=m", "--out=o", "--repeats", "1"), 2, "'--replicates'"),
        (("models", "promote", "1", "--model", "m"), 2, "--model-name need --label"),
        (("gallery", "--recipe", "mlp", "--model", "mlp=nowhere"), 4, "is now --model nowhere"),
    ],
)
def test_an_old_name_has_the_effect_of_the_new_one(
    arguments: tuple[object, ...], status: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.returncode == status, result.stderr
    assert says in result.stderr


def test_a_new_name_overrides_an_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (("--model", "new", "--model-base-path", "old"), ("--model-base-path", "old", "--model", "new")):
        assert "new: no generator here" in run("demo", *arguments).stderr
