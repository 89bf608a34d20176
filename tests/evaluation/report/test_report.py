"""The report: a self-contained page with the verdict first, and its plots."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from digitforge_client.errors import DigitforgeError
from digitforge_evaluation.experiment.analysis import Analysis, analyze
from digitforge_evaluation.experiment.arms import ARMS as ALL_ARMS
from digitforge_evaluation.experiment.arms import Arm
from digitforge_evaluation.experiment.generators import Budget
from digitforge_evaluation.experiment.sentences import summary
from digitforge_evaluation.experiment.store import CellKey, CellResult
from digitforge_evaluation.report import Facts, SampleSheet, confusion, page, plots, scatter, svg, write_report
from digitforge_evaluation.report.svg import svg_file
from digitforge_training.data import load

ARMS = {"real": 0.8, "classical": 0.9, "gan (oracle)": 0.91, "classical+gan (oracle)": 0.95}


def _add(cells: dict[CellKey, CellResult], *, n: int, subset: int, arm: str, accuracy: float) -> None:
    key = CellKey(n_per_class=n, subset=subset, arm=Arm.parse(arm))
    confusion = tuple(tuple(9 if i == j else 1 for j in range(10)) for i in range(10))
    cells[key] = CellResult(key=key, accuracy=accuracy, confusion=confusion, seconds=1.0)


def _analysis(sizes: tuple[int, ...] = (10,), subsets: int = 10) -> Analysis:
    cells: dict[CellKey, CellResult] = {}
    for n, subset, (arm, accuracy) in itertools.product(sizes, range(subsets), ARMS.items()):
        _add(cells, n=n, subset=subset, arm=arm, accuracy=accuracy + 0.001 * ((subset * 7 + len(arm)) % 5))
    return analyze(cells)


def _facts(**changes: Any) -> Facts:
    values: dict[str, Any] = {
        "identity": {
            "confidence": 0.9,
            "classifier": "cnn",
            "steps": 300,
            "ratio": 10.0,
            "generated_share": 0.5,
            "seed": 0,
            "held_out": "test",
            "data": {"name": "mnist", "pool_images": 60000, "pool_sha256": "ab" * 32, "held_out_images": 10000},
        },
        "about": {"command": "digitforge experiment run --out <b>x</b>", "cores": 2, "tensorflow": "2.21.0"},
        "class_names": tuple("0123456789"),
        "cards": {
            "oracle": {
                "generator_id": "0123456789abcdef",
                "recipe": "forge",
                "images_seen": 64,
                "seed": 5,
                "training_data": {"name": "mnist", "split": "train", "images": 60000, "sha256": "cd" * 32},
            }
        },
        "planned_cells": 40,
    }
    return Facts(**{**values, **changes})


class _References(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in {"src", "srcset", "href", "data", "action"}]
        assert tag not in {"script", "link", "iframe", "object"}

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _parsed(html: Path) -> tuple[list[str], str]:
    parser = _References()
    parser.feed(html.read_text("utf-8"))
    return parser.found, re.sub(r"\s+", " ", " ".join(parser.text))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The page and the JSON of a report with nothing unusual."""
    digits = load("digits")
    sheet = SampleSheet(title="Real", images=digits.images, labels=digits.labels)
    return write_report(tmp_path_factory.mktemp("report"), _analysis(), _facts(), (sheet,))


def test_the_page_refers_to_nothing_outside_itself(plain: tuple[Path, Path]) -> None:
    html, _ = plain
    references, _ = _parsed(html)
    assert sum(reference.startswith("data:image/png;base64,iVBOR") for reference in references) == 1  # the sheet
    assert all(reference.startswith(("data:", "#")) for reference in references)
    assert not re.search(r"url\((?!#)|@import|https?://", html.read_text("utf-8"))


def test_every_plot_is_drawn_once_in_the_colors_of_the_page(plain: tuple[Path, Path]) -> None:
    page = plain[0].read_text("utf-8")
    plots_of_page = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert [re.findall(r'aria-label="([^"]*)"', plot) for plot in plots_of_page] == [
        ["differences in accuracy with their intervals, 1 of them"],
        ["differences in accuracy with their intervals, 4 of them"],
        ["accuracy of each arm"],
        ["confusion of classes at 10 real images per class"],
    ]
    for plot in plots_of_page:
        assert "var(--ink)" in plot
        assert not re.search("#00000[0-9]", plot)
        assert not re.search(r"<svg[^>]*(width|height)=", plot)  # the page's style decides
    names = re.findall(r' id="([^"]+)"', page)
    assert len(names) == len(set(names))


def test_an_svg_file_brings_its_colors_for_light_and_dark_pages(plain: tuple[Path, Path]) -> None:
    file = plain[0].with_name("accuracy.svg").read_text("utf-8")
    root = ElementTree.fromstring(file)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert int(root.attrib["width"]) > 400
    style = root.findtext("{http://www.w3.org/2000/svg}style") or ""
    for variable in re.findall(r"var\((--\w+)\)", file):
        assert style.count(f"{variable}:") == 2
    assert "prefers-color-scheme: dark" in style


def test_the_same_plot_is_the_same_file() -> None:
    first, second = (svg_file(plots.accuracies(_analysis())) for _ in range(2))
    assert first == second


def test_the_verdict_comes_first_in_the_page_and_in_the_json(plain: tuple[Path, Path]) -> None:
    html, json_file = plain
    _, text = _parsed(html)
    verdict = json.loads(json_file.read_text())["verdicts"][0]
    assert "adding images from an oracle generator to classical augmentation helps: +5" in verdict
    text = text.replace("\u00a0", " ")
    assert verdict in text
    assert text.index(verdict) < text.index("Accuracy")


def test_one_sentence_on_top_names_data_classifier_and_verdict(plain: tuple[Path, Path]) -> None:
    said = json.loads(plain[1].read_text())["summary"]
    assert re.fullmatch(
        r"On mnist, with the classifier cnn, generated images help "
        r"with 10 real images per class \(\+5\.\d\d points\)\.",
        said,
    )
    _, text = _parsed(plain[0])
    assert text.index(said) < text.index("adding images from")


@pytest.mark.parametrize(
    ("analysis", "says"),
    [
        (analyze({}), "there is no verdict yet"),
        (_analysis(subsets=1), "there is no verdict yet"),
        (_analysis((10, 100)), "help with 10 real images per class (+5."),
        (_analysis((1, 10, 100, 1000)), "were tested in 4 comparisons: they help in 4."),
    ],
)
def test_the_summary_names_few_comparisons_and_counts_many(analysis: Analysis, says: str) -> None:
    said = summary(analysis, data="mnist", classifier="cnn")
    assert says in said
    assert said.count(".") == 1 + len(re.findall(r"\d\.\d", said))  # one sentence


def test_the_comparison_that_counts_is_open_and_the_others_are_folded(plain: tuple[Path, Path]) -> None:
    page = plain[0].read_text("utf-8")
    opened, folded = (
        re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL),
        re.findall(r"<details>.*?</details>", page, re.DOTALL),
    )
    primary = "classical+gan (oracle) − classical<br>"
    assert opened.count(primary) == 1
    assert opened.index("The difference that counts") < opened.index(primary) < opened.index("Accuracy in")
    assert opened.count(" − real<br>") == 0
    assert folded[0].count(" − real<br>") == 3
    assert "<summary>4 other comparisons, descriptive</summary>" in folded[0]


@pytest.mark.usefixtures("with_blank_plots")
def test_oracle_and_simultaneous_are_explained_in_one_line_each(tmp_path: Path) -> None:
    page = write_report(tmp_path, _analysis((10, 100)), _facts())[0].read_text("utf-8")
    for word in ("Oracle", "Simultaneous"):
        (line,) = re.findall(rf"<p class=\"note\"><em>{word}</em>: [^\n]*</p>", page)
        assert len(line) < 220


def test_the_page_names_data_generator_versions_and_command(plain: tuple[Path, Path]) -> None:
    _, text = _parsed(plain[0])
    for fact in ("ab" * 32, "cd" * 32, "0123456789abcdef", "2.21.0", "digitforge experiment run --out <b>x</b>"):
        assert fact in text
    assert "the generator has seen real images that the classifier has not" in text
    assert "Unfinished" not in text


@pytest.mark.usefixtures("with_blank_plots")
def test_one_subset_makes_a_report(tmp_path: Path) -> None:
    _, text = _parsed(write_report(tmp_path, _analysis(subsets=1), _facts())[0])
    assert text.count("This is descriptive") == 1
    assert "Unfinished: 4 of 40 cells" in text


@pytest.mark.parametrize("sizes", [(10,), (10, 100)])
def test_every_arm_is_drawn(sizes: tuple[int, ...], tmp_path: Path) -> None:
    drawn = [Arm(name=name, budget=budget) for name, budget in itertools.product(ALL_ARMS, ("", *Budget))]
    drawn = [arm for arm in drawn if bool(arm.budget) == arm.design.generator]
    cells: dict[CellKey, CellResult] = {}
    for n, subset, (place, arm) in itertools.product(sizes, range(3), enumerate(drawn)):
        _add(cells, n=n, subset=subset, arm=str(arm), accuracy=0.9 + 0.001 * (place + subset % 2))
    html, _ = write_report(tmp_path, analyze(cells), _facts())
    _, text = _parsed(html)
    assert all(str(arm) in text for arm in drawn)
    assert (tmp_path / "accuracy.svg").exists()


def test_one_subset_makes_curves_without_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "svg_of", lambda figure, _: figure)
    figure: Any = plots.accuracies(_analysis((1, 10), subsets=1))
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == list(ARMS)
    assert not any(band.get_paths() for band in axes.collections)


def test_the_page_says_that_nothing_is_finished_and_numbers_are_not_for_citing(tmp_path: Path) -> None:
    facts = _facts(
        identity={**_facts().identity, "held_out": "validation"},
        quality=(
            {
                "name": "fd[digitnet-64]@10k",
                "value": 3.21,
                "n": 10000,
                "interval": (3.0, 3.4),
                "training_floor": {"mean": 2.3, "n": 10000},
                "unseen_floor": {"mean": 1.2, "n": 5000},
            },
        ),
    )
    _, text = _parsed(write_report(tmp_path, analyze({}), facts)[0])
    assert "No verdict" in text
    assert "Unfinished: 0 of 40 cells" in text
    assert "not for citing" in text
    assert re.search(r"fd\[digitnet-64\]@10k\s+n = 10.000\s+3.21\s+3 to 3.4\s+2.3\s+1.2\s+n = 5.000", text)


def test_a_sheet_has_one_column_per_class() -> None:
    from io import BytesIO

    from PIL import Image

    images = np.full((4, 16, 16, 1), 10, np.uint8) * np.arange(1, 5, dtype=np.uint8)[:, None, None, None]
    png = plots.sheet(images, np.array([0, 2, 2, 1]), classes=3, rows=2)
    pixels = np.asarray(Image.open(BytesIO(png)))
    assert pixels.shape == (32, 48)
    assert [[int(pixels[8 + 16 * row, 8 + 16 * column]) for column in range(3)] for row in range(2)] == [
        [10, 40, 20],
        [0, 0, 30],
    ]


def test_a_folder_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DigitforgeError, match="cannot create"):
        write_report(tmp_path / "file" / "folder", analyze({}), _facts())
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    with pytest.raises(DigitforgeError, match=r"report\.html"):
        write_report(tmp_path / "out", analyze({}), _facts())
    assert not list(tmp_path.rglob("*.tmp"))


def _unbalanced() -> Analysis:
    cells: dict[CellKey, CellResult] = {}
    arms = {"classical+oversampled": 0.3, "classical+gan (semi)": 0.6, "classical+gan (semi, 5×)": 0.7, "real": 0.1}
    for n in (10, 100):
        for subset in range(3):
            for arm, recall in arms.items():
                rare = round(100 * recall) + subset + n // 10
                confusion = tuple(
                    tuple(
                        (rare if j == 8 else 100 - rare if j == 3 else 0) if i == 8 else 100 * (i == j)
                        for j in range(10)
                    )
                    for i in range(10)
                )
                key = CellKey(n_per_class=n, subset=subset, arm=Arm.parse(arm))
                accuracy = sum(row[i] for i, row in enumerate(confusion)) / 1000
                cells[key] = CellResult(key=key, accuracy=accuracy, confusion=confusion, seconds=1.0)
    return analyze(cells, minority=[8])


@pytest.mark.usefixtures("with_blank_plots")
def test_rare_classes_worth_power_and_variants_are_explained_and_plots_are_written_beside_the_page(
    tmp_path: Path,
) -> None:
    identity = {**_facts().identity, "cut": {"8": 0.01}, "noisy_labels": 0.2}
    _, text = _parsed(write_report(tmp_path, _unbalanced(), _facts(identity=identity))[0])
    for said in (
        "of class 8 only 1 % of that number",
        "20 % of the real images have a wrong label",
        "points of balanced accuracy",
        "“5×” has five per real image",
        "the generator has seen real images that the classifier has not, but no labels",
        "recall of rare classes +30.00",
        "The effect equals",
        "Two sizes cannot show",
        "rare classes 62.00",
    ):
        assert said in text, said
    assert text.count("This is descriptive") == 2  # sizes
    assert "“fresh”" not in text
    assert {path.name for path in tmp_path.glob("*.svg")} == {
        "accuracy.svg",
        "differences.svg",
        "other-differences.svg",
        "confusion-10.svg",
        "confusion-100.svg",
    }


def test_sizes_with_the_baseline_alone_have_no_confusion_matrix() -> None:
    cells: dict[CellKey, CellResult] = {}
    for n, arms in ((10, ARMS), (20, ("classical",)), (50, ("classical",)), (100, ARMS), (1000, ARMS)):
        for arm in arms:
            _add(cells, n=n, subset=0, arm=arm, accuracy=ARMS[arm])
    compared = page._compared(analyze(cells))
    assert list(compared) == [10, 100]
    assert [str(result.arm) for result in compared[10]] == ["classical", "classical+gan (oracle)"]


def test_confusion_is_shown_for_many_classes_too() -> None:
    analysis = _unbalanced()
    names = [f"class {i}" for i in range(10)] + ["x"] * 20
    wide = [replace(arm, confusion=tuple(tuple(1 for _ in range(30)) for _ in range(30))) for arm in analysis.arms[:2]]
    drawn = confusion.confusions(wide, names, title="confusion")
    assert "class 3" not in drawn  # 30 names have no room
    assert drawn.count("var(--accent)") == 2 * 30 * 29


def test_names_of_near_points_cover_neither_each_other_nor_a_point_nor_the_line_at_zero() -> None:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    points = {"semi minimax-058e1b": (6.2, 4.6), "semi dense-bn-374555": (7.5, 4.8), "semi dcgan-77af9f": (9.1, 3.7)}
    points |= {"semi bp-gan-acd983": (121.0, 0.0), "semi mlp-d9da3f": (130.0, -0.3)}  # at the right edge
    axes = Figure(figsize=(3.5, 4.2)).add_subplot()
    axes.plot([x for x, _ in points.values()], [y for _, y in points.values()], linestyle="none", marker="o")
    axes.set_xscale("log")
    scatter.name_points(axes, list(points.values()), points)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == list(points)
    for number, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:number]) == 0
        assert axes.bbox.x0 < box.x0
        assert box.x1 < axes.bbox.x1
        zero = axes.transData.transform((1, 0))[1]
        assert not box.y0 < zero < box.y1
    centers = [Bbox.from_bounds(x, y, 1, 1) for x, y in axes.transData.transform(list(points.values()))]
    assert sum(box.count_overlaps(centers) for box in boxes) == 0


CHINESE = ("猫", "犬", "鳥", "魚", "馬", "牛", "羊", "豚", "鶏", "兎")


def _lines(plot: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", plot)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("names", [CHINESE, tuple(f"강아지 {i}" for i in range(10)), ("ねこ", *"012345678")])
def test_class_names_that_no_font_has_are_numbers_with_a_key(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svg, "_fonts", lambda: ("DejaVu Sans",))  # the same on every machine
    svg.can_draw.cache_clear()
    html, _ = write_report(tmp_path, _analysis(), _facts(class_names=names))
    drawn = _lines((tmp_path / "confusion-10.svg").read_text("utf-8"))
    assert drawn.count("7") >= 4  # two matrices with rows and columns
    assert not [line for line in drawn if not line.isascii()]
    assert f"Classes: {', '.join(f'{i} {name}' for i, name in enumerate(names))}." in html.read_text("utf-8").replace(
        "\u00a0", " "
    )
    svg.can_draw.cache_clear()


def test_ticks_of_a_matrix() -> None:
    assert confusion.tick_texts("012") == (["0", "1", "2"], ["0", "1", "2"])
    assert confusion.tick_texts(["cat", "dog"]) == (["cat", "dog"], ["cat", "dog"])
    assert confusion.tick_texts(["Sneaker", "Bag"]) == (["0", "1"], ["Sneaker 0", "Bag 1"])
    assert confusion.tick_texts(["a name of many words", "Bag"]) == (["0", "1"], ["0", "1"])
    assert confusion.key("0123456789") == confusion.key(["Sneaker", "Bag"]) == ""
    assert confusion.key(["a name of many words", "Bag"]) == "0\u00a0a name of many words, 1\u00a0Bag"


def test_long_names_in_the_plot_of_differences_stay_inside_and_keep_their_sizes() -> None:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    cells: dict[CellKey, CellResult] = {}
    long = "classical+gan (transfer forge-unlabeled-0123456789abcdef, expansion 1.25)"
    for subset in range(4):
        for arm in ("real", "classical", "classical+gan (transfer forge-unlabeled-0123456789abcdef)", long):
            _add(cells, n=1000, subset=subset, arm=arm, accuracy=0.5 + 0.01 * subset)
    analysis = analyze(cells)
    lines = _lines(plots.forest(analysis.comparisons, analysis.measure))
    assert sum(line.endswith("n\u00a0=\u00a01000") for line in lines) == len(analysis.comparisons)
    font = FontProperties(family=["DejaVu Sans"], size=svg.SMALL)
    for line in lines:
        assert text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] < 72 * svg.WIDTH - 6


@pytest.mark.parametrize("sizes", [(10,), (1, 10)])
def test_an_axis_of_accuracies_ends_at_0_and_100_percent(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells: dict[CellKey, CellResult] = {}
    for n, subset in itertools.product(sizes, range(3)):
        _add(cells, n=n, subset=subset, arm="real", accuracy=(0.3, 0.9, 0.9)[subset])
        _add(cells, n=n, subset=subset, arm="classical", accuracy=(0.1, 0.1, 0.6)[subset])
    analysis = analyze(cells)
    ends = [end for r in analysis.arms if r.interval for end in (r.interval.low, r.interval.high)]
    assert min(ends) < 0
    assert max(ends) > 1
    monkeypatch.setattr(plots, "svg_of", lambda figure, _: figure)
    figure: Any = plots.accuracies(analysis)
    (axes,) = figure.axes
    low, high = axes.get_xlim() if len(sizes) == 1 else axes.get_ylim()
    assert -1 <= low < high <= 101
