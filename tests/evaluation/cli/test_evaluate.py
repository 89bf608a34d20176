"""`digitforge evaluate`, as users run it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from digitforge_client.common.command import main
from digitforge_evaluation.cli.evaluate import _fitted_as_trained
from digitforge_evaluation.demo.server_process import serving
from digitforge_training.data import load
from digitforge_training.data.sources import Choice

#: Exit status, standard output, standard error.
Run = Callable[..., tuple[object, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process: exit status, standard output, standard error."""

    def command(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["digitforge", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        output = capsys.readouterr()
        return exit_.value.code, output.out, output.err

    return command


@pytest.fixture(scope="module")
def served(exported_model: Path) -> Iterator[str]:
    with serving(exported_model) as target:
        yield target


@pytest.fixture(scope="module")
def real_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real training images, as if they were generated. None of them is held out."""
    train = load("digits")
    path = tmp_path_factory.mktemp("images") / "digits.npz"
    np.savez(path, x=train.images, y=train.labels)
    return path


def test_json_is_the_only_output_and_has_all_names(exported_model: Path) -> None:
    command = [sys.executable, "-m", "digitforge", "evaluate"]
    done = subprocess.run(
        [*command, "--model", exported_model, "--n", "1000", "--json"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    distance, extrapolated, agreement, score = report["figures"]
    assert extrapolated["name"] == "fd_infinity[digitnet-64]@1k"
    assert distance["name"] == "fd[digitnet-64]@1k"
    assert distance["n"] == 1000
    assert distance["training_floor"]["repeats"] == 10
    assert 0 <= agreement["value"] <= 1
    assert 1 <= score["value"] <= 10
    assert len(report["generator_id"]) == 16
    assert set(report["left_out"]) == {
        "kernel",
        "kernel_subsets",
        "precision",
        "recall",
        "density",
        "coverage",
        "missing",
        "authenticity",
        "copying",
        "train_on_generated",
        "train_on_real",
    }


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_a_closed_standard_error_changes_nothing(real_npz: Path) -> None:
    command = [sys.executable, "-m", "digitforge", "evaluate", "--images", str(real_npz), "--n", "300", "--json"]
    done = subprocess.run(["sh", "-c", f"{shlex.join(command)} 2>&-"], stdout=subprocess.PIPE, check=True)
    assert json.loads(done.stdout)["figures"][0]["n"] == 300


def test_the_table_says_which_metrics_are_left_out_and_why(real_npz: Path, run: Run) -> None:
    status, out, err = run("--images", real_npz, "--n", 500)

    assert status == 0, err
    assert "fd[digitnet-64]@500" in out
    assert (
        "recall, density, coverage, missing modes, authenticity, copying (C_T): needs real images: give --data" in out
    )
    assert "digits.npz does not say what its generator was trained on" in out


def test_with_real_images_the_table_has_all_metrics_possible_with_few_images(
    real_npz: Path, few_npz: Path, run: Run
) -> None:
    status, out, err = run("--images", real_npz, "--n", 300, "--data", few_npz, "--k", 3)

    assert status == 0, err
    for title in ("precision", "recall", "density", "coverage", "label agreement", "authenticity", "k = 3"):
        assert title in out
    assert "\x1b" not in out + err  # no colors, because this is not a terminal


def test_out_writes_the_same_figures_as_a_page(real_npz: Path, few_npz: Path, run: Run, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "report.html"

    status, out, err = run("--images", real_npz, "--n", 300, "--data", few_npz, "--out", page)

    assert status == 0, err
    assert f"Report: {page}" in out
    html = page.read_text("utf-8")
    (value,) = re.findall(r"fd\[digitnet-64\]@300 +(\S+)", out)
    assert value in html
    assert "they do not show: Details that do not matter for the class" in out
    assert "It recognizes" in out
    assert "least recognized classes: " in out


def test_a_narrow_terminal_gets_the_same_numbers(real_npz: Path, few_npz: Path, tmp_path: Path) -> None:
    """A pseudo-terminal of 60 columns."""
    command = [sys.executable, "-m", "digitforge", "evaluate", "--images", str(real_npz), "--n", "300"]
    command += ["--data", str(few_npz)]
    piped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    script = (
        "import os, pty, sys\n"
        "def read(descriptor):\n    return os.read(descriptor, 4096)\n"
        "sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:], read)))"
    )
    narrow = subprocess.run(
        [sys.executable, "-c", script, *command],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "60", "NO_COLOR": "1", "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
    ).stdout

    numbers = r"\d+\.\d+(?:e-\d+)?"
    (table, _) = piped.split("training floor: random subsets")
    assert len(re.findall(numbers, table)) > 30
    assert set(re.findall(numbers, table)) <= set(re.findall(numbers, narrow))
    assert "│" not in narrow


def test_the_page_shows_nearest_training_images_and_reveals_copies(few_npz: Path, run: Run, tmp_path: Path) -> None:
    with np.load(few_npz) as few:
        np.savez(tmp_path / "copies.npz", x=few["x"], y=few["y"])
    copies = ("--images", tmp_path / "copies.npz", "--n", 200)
    status, out, err = run(*copies, "--data", few_npz, "--neighbors", tmp_path / "near")

    assert status == 0, err
    assert f"Nearest training images: {tmp_path / 'near' / 'neighbors.html'}" in out
    assert sorted(path.name for path in (tmp_path / "near").iterdir()) == [
        "distances.svg",
        "neighbors.html",
        "neighbors.png",
    ]
    page = (tmp_path / "near" / "neighbors.html").read_text("utf-8")
    assert not re.search(r"https?://|<script|<link", page)
    # These "generated" digits are training images: the nearest training image is the digit itself.
    (first, *_) = re.findall(r'class="near">.*?</div>', page, re.DOTALL)
    generated, nearest = re.findall(r'src="([^"]+)"', first)[:2]
    assert generated == nearest
    assert "nearer: 0.0 % of held-out" in first
    assert "does not say what its generator was trained on" in page


def test_the_page_of_neighbors_has_the_names_of_classes(few_npz: Path, run: Run, tmp_path: Path) -> None:
    real, others = (load(str(few_npz), split=split) for split in ("train", "test"))
    for number, (image, label) in enumerate(zip(real.images, real.labels, strict=True)):
        folder = tmp_path / "named" / f"animal {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"{number}.png")
    np.savez(tmp_path / "others.npz", x=others.images, y=others.labels)
    status, _, err = run(
        *("--images", tmp_path / "others.npz", "--n", 100, "--data", tmp_path / "named"),
        *("--neighbors", tmp_path / "near"),
    )
    assert status == 0, err
    page = (tmp_path / "near" / "neighbors.html").read_text("utf-8")
    assert re.search(r"<figcaption>generated animal \d<br>", page)
    assert re.search(r"<figcaption>animal \d<br>", page)
    assert "digits" not in page


@pytest.mark.slow  # ten classifiers
def test_classification_accuracy_is_reported_with_the_value_of_real_digits(real_npz: Path, run: Run) -> None:
    status, out, err = run("--images", real_npz, "--n", 500, "--data", "digits", "--accuracy", "--json")

    assert status == 0, err
    figures = {figure["key"]: figure for figure in json.loads(out)["figures"]}
    for key in ("train_on_generated", "train_on_real"):
        low, high = figures[key]["interval"]
        assert low <= figures[key]["value"] <= high
        assert figures[key]["training_floor"]["repeats"] == 5
        assert figures[key]["value"] == pytest.approx(
            figures[key]["training_floor"]["mean"], abs=0.1
        )  # the images are real digits


def test_the_page_of_neighbors_needs_real_images(real_npz: Path, run: Run, tmp_path: Path) -> None:
    status, out, err = run("--images", real_npz, "--n", 200, "--neighbors", tmp_path / "near")

    assert (status, out) == (2, "")
    assert "--neighbors needs real images: give --data as well" in err


@pytest.mark.parametrize("expansion", [(), ("--expansion", 1.2)])
def test_a_served_generator_and_the_same_generator_in_a_folder_get_equal_values(
    served: str, exported_model: Path, run: Run, expansion: tuple[object, ...]
) -> None:
    arguments = ["--n", 1000, "--seed", 5, *expansion, "--json"]
    reports = []
    for source in (("--server", served), ("--model", exported_model)):
        status, out, err = run(*source, *arguments)
        assert status == 0, err
        reports.append(json.loads(out))
    there, here = reports

    assert there["source"] == served
    assert there["generator_id"] == here["generator_id"]
    assert there["expansion"] == here["expansion"] == (1.2 if expansion else None)
    for one, other in zip(there["figures"], here["figures"], strict=True):
        assert one["name"] == other["name"]
        assert one["value"] == pytest.approx(other["value"], rel=1e-2)  # a few pixels differ by one gray level


def test_a_served_generator_that_saw_held_out_images_is_refused(served: str, run: Run, tmp_path: Path) -> None:
    """The tiny generator was trained on the training split of digits. Here that split is held out."""
    train, test = load("digits"), load("digits", split="test")
    np.savez(tmp_path / "swapped.npz", x=test.images, y=test.labels, x_test=train.images, y_test=train.labels)

    status, out, err = run("--server", served, "--data", tmp_path / "swapped.npz", "--n", 100)

    assert (status, out) == (2, ""), err
    assert f"{served} was trained on {len(train)} of the {len(train)} held-out images" in err


def test_held_out_images_as_input_are_refused(run: Run, tmp_path: Path) -> None:
    test = load("digits", split="test")
    np.savez(tmp_path / "held.npz", x=test.images, y=test.labels)

    status, out, err = run("--images", tmp_path / "held.npz", "--data", "digits", "--n", 100)

    assert (status, out) == (2, "")
    assert "are themselves held-out images" in err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "give exactly one source of images: --server, --model or --images"),
        (["--model", "here", "--server", "localhost:1"], 2, "give exactly one source of images"),
        (["--images", "missing.npz"], 4, "missing.npz': no such file or folder"),
        (["--model", "missing"], 4, "missing: no SavedModel found"),
        (["--server", "127.0.0.1:9"], 3, "127.0.0.1:9"),
        (["--model", ".", "--n", "1"], 2, "--n"),
        (["--model", ".", "--features", "own"], 2, "--features own needs real images: give --data as well"),
        (["--model", ".", "--seed", "-1"], 2, "--seed"),
        (["--model", ".", "--expansion", "0"], 2, "expansion is 0"),
    ],
)
def test_bad_input_gives_a_message_and_the_documented_exit_status(
    arguments: list[str], status: int, message: str, run: Run
) -> None:
    found, out, err = run(*arguments)

    assert (found, out) == (status, "")
    assert message in err
    assert "Traceback" not in err


def test_help_needs_no_tensorflow_and_shows_examples() -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None; sys.modules['sklearn'] = None; sys.modules['scipy'] = None\n"
        "from digitforge_evaluation.cli.evaluate import evaluate; evaluate(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "digitforge evaluate --server localhost:8500" in done.stdout


def test_images_on_their_side_are_noticed_and_an_option_turns_them(run: Run, tmp_path: Path) -> None:
    train, test = load("digits").subset(np.arange(600)), load("digits", split="test").subset(np.arange(200))
    upright = tmp_path / "upright.npz"
    np.savez(upright, x=load("digits").images[600:], y=load("digits").labels[600:])
    turned = {"x": train.images, "x_test": test.images}
    np.savez(
        tmp_path / "turned.npz",
        y=train.labels,
        y_test=test.labels,
        **{name: images.swapaxes(1, 2) for name, images in turned.items()},  # type: ignore[arg-type]
    )

    features = ("--features", "digitnet-64")  # it would not be chosen for digits on their side

    wrong, right = (
        run("--images", upright, "--data", tmp_path / "turned.npz", *features, "--n", 300, "--json", *options)
        for options in ((), ("--transpose",))
    )

    assert wrong[0] == right[0] == 0, wrong[2] + right[2]
    notes = [" ".join(json.loads(out)["notes"]) for _, out, _ in (wrong, right)]
    assert "look transposed to each other" in notes[0]
    assert "transposed" not in notes[1]
    distances = [json.loads(out)["figures"][0]["value"] for _, out, _ in (wrong, right)]
    assert distances[0] > 2 * distances[1]


def test_held_out_images_that_lie_on_their_side_are_recognized(exported_model: Path, run: Run, tmp_path: Path) -> None:
    """The tiny generator was trained on the training split of digits. Here that split is held out, and transposed."""
    train, test = load("digits"), load("digits", split="test")
    swapped = {"x": test.images, "x_test": train.images.swapaxes(1, 2)}
    np.savez(tmp_path / "swapped.npz", y=test.labels, y_test=train.labels, **swapped)  # type: ignore[arg-type]

    status, out, err = run("--model", exported_model, "--data", tmp_path / "swapped.npz", "--n", 100)

    assert (status, out) == (2, ""), err
    assert f"was trained on {len(train)} of the {len(train)} held-out images" in err


def test_real_images_of_another_size_name_the_option_that_helps(exported_model: Path, run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "color.npz", x=color, y=np.arange(200) % 10)

    status, out, err = run("--images", tmp_path / "color.npz", "--data", "digits", "--n", 100)

    assert (status, out) == (2, ""), err
    assert "images of 32×32 pixels in color, but digits has images of 28×28 pixels in gray" in err
    fitted = run("--images", tmp_path / "color.npz", "--data", "digits", "--n", 100, "--size", 28, "--channels", "gray")
    assert fitted[0] == 0, fitted[2]


def test_options_without_real_images_are_refused(exported_model: Path, run: Run) -> None:
    status, out, err = run("--model", exported_model, "--size", 28)

    assert (status, out) == (2, "")
    assert "--size, --transpose and similar options need real images: give --data as well" in err


def test_data_of_the_training_are_fitted_as_they_were_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "mine.npz", x=np.zeros((4, 40, 40), np.uint8), y=[0, 0, 1, 1])
    fitted = {"size": 20, "fit": "pad", "channels": "gray", "transpose": True}
    generator = SimpleNamespace(card={"training_data": {"name": "mine", "fitted": fitted}})
    chosen = Choice(source=str(tmp_path / "mine.npz"), options={"transpose": False})

    real = _fitted_as_trained(chosen, generator)

    assert real is not None
    assert real.as_dict() == {**fitted, "transpose": False}
    assert "as for the generator's training: --size 20 --fit pad --channels gray --transpose" in capsys.readouterr().err
    for card in (None, {"training_data": {"name": "mine"}}, {"training_data": {"name": "yours", "fitted": fitted}}):
        assert _fitted_as_trained(chosen, SimpleNamespace(card=card)) == chosen.over()
