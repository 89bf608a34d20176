"""The report of a measurement as a page: the same figures, and readable at any width."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from digitforge_client.errors import DataError
from digitforge_evaluation.features.extract import digitnet
from digitforge_evaluation.images.sources import ImageSet
from digitforge_evaluation.quality.assess import Pictures, Report, assess
from digitforge_evaluation.quality.comparison import RealData
from digitforge_evaluation.quality.page import number, summary, write_page
from digitforge_evaluation.quality.registry import METRICS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def measured(real: RealData) -> tuple[Report, Pictures]:
    source = ImageSet(real.train.images[::2], real.train.labels[::2], "some/very/long/path/to/<images>" + "s" * 60)
    shown: list[Pictures] = []
    report = assess(source, network=digitnet(), n=280, real=real, show=shown.append)
    return report, shown[0]


@pytest.fixture(scope="module")
def page(measured: tuple[Report, Pictures], real: RealData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    write_page(path, *measured, real)
    return path


def test_the_page_has_every_figure_reason_and_note_of_the_report(measured: tuple[Report, Pictures], page: Path) -> None:
    report, _ = measured
    html = page.read_text("utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.replace("&#39;", "'")))

    for found in report.figures:
        assert found.name in text
        assert METRICS[found.key].title in text
        assert number(found.value) in text
        if found.training_floor:
            assert number(found.training_floor.mean) in text
    for why in report.left_out.values():
        assert why in text
    for note in report.notes:
        assert note.replace("<", "&lt;").replace(">", "&gt;") in text
    for sentence in (report.about_features.made, report.about_features.sees, report.about_features.misses):
        assert sentence in text
    assert [each.title for each in report.agreements] == re.findall(
        r"<tr><td>(\d)<br><span class=\"soft\">label agreement", html
    )
    assert html.count('class="near"') == 16
    assert not re.search(r"https?://(?!www.w3.org)|<script|<link|<images>", html)
    assert summary(report) in text


def test_without_real_images_the_page_has_what_is_known(tmp_path: Path, real: RealData) -> None:
    shown: list[Pictures] = []
    report = assess(ImageSet(real.train.images, None, "images"), network=digitnet(), n=500, show=shown.append)
    write_page(tmp_path / "report.html", report, shown[0], None)

    html = (tmp_path / "report.html").read_text("utf-8")
    assert "fd[digitnet-64]@500" in html
    assert "Real, held out" not in html
    assert 'class="near"' not in html
    assert "One column for each class" not in html


def test_a_page_that_cannot_be_written_names_the_file(measured: tuple[Report, Pictures], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file"):
        write_page(tmp_path / "file" / "report.html", *measured, None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_nothing_is_cut_at_any_width_in_light_and_dark(page: Path) -> None:
    playwright: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(23, 27, 35)")):
            for width in (360, 500, 1200):
                tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                tab.goto(page.as_uri())
                tab.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
                assert tab.evaluate("document.documentElement.scrollWidth") <= width
                cut = tab.evaluate("""() => [...document.querySelectorAll("td, th, dd, dt, h1")].filter(element => {
                    const box = element.getBoundingClientRect()
                    const frame = document.querySelector("main").getBoundingClientRect()
                    return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1)
                }).map(element => element.textContent)""")
                assert cut == []
                assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == paper
                tab.close()
        browser.close()
