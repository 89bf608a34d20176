"""Help texts, shell completion, and the options that all commands have."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from commands import one_line, run
from every_command import COMMANDS, options

from digitforge_client.common.extras import install_command
from digitforge_client.common.files import replacing
from digitforge_training.recipes import RECIPES
from digitforge_training.recipes.descriptions import field_descriptions

ROOT = Path(__file__).parents[3]
SOURCES = [path for part in ("client", "training", "serving", "evaluation") for path in (ROOT / part).rglob("*.py")]


def _help(*words: str) -> str:
    done = run(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "digitforge")
def test_every_help_has_examples_that_the_commands_accept(words: tuple[str, ...]) -> None:
    _, found, examples = _help(*words).partition("\n  Examples:\n")
    assert found
    lines = examples.partition("\n\n")[0].splitlines()
    assert lines
    for line in lines:
        program, *rest = shlex.split(line)
        assert program == "digitforge"
        name = max((each for each in COMMANDS if tuple(rest[: len(each)]) == each), key=len)
        assert name[: len(words)] == words, line
        command = COMMANDS[name]
        with click.Context(command) as context:
            command.make_parser(context).parse_args(rest[len(name) :])  # fails for an unknown option


def test_summaries_are_whole_sentences_on_narrow_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("80", "60"):
        monkeypatch.setenv("COLUMNS", columns)
        for words, command in COMMANDS.items():
            if isinstance(command, click.Group):
                shown = re.sub(r"\s+", " ", _help(*words).partition("\nCommands:\n")[2])
                assert "..." not in shown, words
                for child in (COMMANDS[each] for each in COMMANDS if each[:-1] == words and each):
                    assert child.get_short_help_str(limit=1000) in shown


def test_the_help_lists_every_environment_variable() -> None:
    read = set(re.findall(r"\"(DIGITFORGE_[A-Z_]+)\"", "\n".join(path.read_text("utf-8") for path in SOURCES)))
    assert {"DIGITFORGE_SERVER", "DIGITFORGE_CACHE_DIR", "DIGITFORGE_MIRRORS"} <= read
    shown = _help()
    assert {name for name in read if name not in shown} == set()


def test_recipes_show_explains_every_field() -> None:
    shown = re.sub(r"\s+", " ", run("recipes", "show", "forge").stdout)
    for field in RECIPES["forge"].as_dict():
        assert field_descriptions()[field].strip(), field
    for field in ("latent_size", "clusters", "images_per_sheet"):
        assert field_descriptions()[field] in shown


def test_an_empty_model_folder_says_so(tmp_path: Path) -> None:
    done = run("models", "list", tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"{tmp_path} holds no version; `digitforge export RUN --to {tmp_path}` makes one" in done.stderr
    assert run("models", "list", tmp_path, "--json").stdout.strip() == "[]"


def test_every_command_can_be_quiet_and_verbose() -> None:
    for words, command in COMMANDS.items():
        if not isinstance(command, click.Group) or command.invoke_without_command:
            assert options(command).keys() >= {"--quiet", "--verbose"}, words


def test_quiet_hides_notes_but_not_results_and_errors(tmp_path: Path) -> None:
    quiet = run("models", "list", tmp_path, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    assert run("recipes", "-q").stdout == run("recipes").stdout
    failed = run("sample", "-q", "--n", 1, "--server", "127.0.0.1:1", "--out", tmp_path / "d.npz")
    assert "127.0.0.1:1" in one_line(failed)
    with replacing(tmp_path / "after") as file:  # nothing stays hidden for later commands
        file.write(b"")
    assert "holds no version" in run("models", "list", tmp_path / "none", "--json").stderr + "holds no version"
    assert "holds no version" in run("models", "list", tmp_path).stderr


def test_verbose_shows_versions_and_the_place_of_an_error(tmp_path: Path) -> None:
    arguments = ("sample", "--n", 1, "--server", "127.0.0.1:1", "--out", tmp_path / "d.npz")
    failed = run(*arguments, "--verbose")
    assert re.match(r"digitforge [\d.]+, Python [\d.]+, \S+", failed.stderr)
    assert "Traceback" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("digitforge: ")
    assert "Traceback" not in run(*arguments).stderr


def _completions(line: str, environment: Mapping[str, str]) -> list[str]:
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    asked = {"_DIGITFORGE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    program = [sys.executable, "-m", "digitforge"]
    done = subprocess.run(program, env={**environment, **asked}, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "suggested"),
    [
        ("digitforge tra", ["plain,train"]),
        ("digitforge train --recipe forge-", ["plain,forge-small", "plain,forge-unlabeled"]),
        ("digitforge recipes show mini", ["plain,minimax"]),
        ("digitforge gallery --recipe dense", ["plain,dense-bn"]),
        ("digitforge experiment run --strict mini", ["plain,minimax"]),
        ("digitforge train --data dig", ["plain,digits", "file,dig"]),
        ("digitforge evaluate --model mod", ["dir,mod"]),
        ("digitforge gallery --model mod", ["dir,mod"]),
        ("digitforge sample --out d", ["file,d"]),
        ("digitforge export run", ["file,run"]),
    ],
)
def test_a_shell_completes_commands_recipes_and_paths(line: str, suggested: list[str]) -> None:
    assert _completions(line, os.environ) == suggested


def test_bash_understands_the_completion_script() -> None:
    environment = os.environ | {"_DIGITFORGE_COMPLETE": "bash_source"}
    done = subprocess.run(
        [sys.executable, "-m", "digitforge"], env=environment, capture_output=True, text=True, check=True
    )
    script = done.stdout + "\ncomplete -p digitforge\n"
    checked = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "-F _digitforge_completion digitforge" in checked.stdout


def _demo_without(packages: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the demo in an environment like this one, but without some packages."""
    left_out = {package.replace("-", "_") for package in packages}
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(site).iterdir():
            if re.split(r"-\d", path.name)[0].removesuffix(".py") not in left_out:
                (folder / "site" / path.name).symlink_to(path)
    sources = [str(ROOT / part) for part in ("client", "training", "serving", "evaluation")]
    found = [os.environ.get("PYTHONPATH", ""), *sources, str(folder / "site")]
    # -S hides the packages of this environment.
    command = [sys.executable, "-S", "-m", "digitforge", "demo", "--out", "out", "--data-dir", "nowhere"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(found)}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "packages",
    [
        ("starlette", "uvicorn"),
        ("tensorflow", "keras"),
        ("scikit-learn", "sklearn"),
        ("jinja2", "matplotlib"),
    ],
    ids=["serving", "training and serving", "training and evaluation", "evaluation"],
)
def test_the_demo_names_the_extras_that_it_needs_before_it_begins(packages: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    done = _demo_without(packages, tmp_path)
    assert done.returncode == 2
    said = r"digitforge: `digitforge demo` needs ([\w-]+), which is not installed; run: (.*)\n"
    found = re.fullmatch(said, done.stderr)
    assert found, done.stderr
    assert found[1] in packages
    assert found[2] == install_command("evaluation,serving")
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_the_demo_begins_if_no_package_is_missing(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    done = _demo_without((), tmp_path)
    assert "nowhere: no such folder" in done.stderr
    assert (tmp_path / "out").exists()
