"""The report in a real browser: narrow, wide, dark, printed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from digitforge_evaluation import experiment_folder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RESULTS = Path(__file__).parents[3] / "evaluation" / "results" / "distance"
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a committed experiment with many generators, whose names are long."""
    return experiment_folder.report(RESULTS, tmp_path_factory.mktemp("report"))[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 500, 1000, 1600])
def test_nothing_is_cut_at_any_width(width: int, scheme: str, report: Path, browser: Any) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.evaluate("""() => [...document.querySelectorAll("td, th, svg text")].filter(element => {
        const box = element.getBoundingClientRect()
        const frame = (element.closest("svg") ?? document.querySelector("main")).getBoundingClientRect()
        return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1)
    }).map(element => element.textContent)""")
    assert cut == []
    page.close()


def test_a_print_shows_what_is_folded_on_white(report: Path, browser: Any) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(report.as_uri())
    hidden = page.evaluate("[...document.querySelectorAll('details > :not(summary)')].map(e => e.checkVisibility())")
    assert hidden
    assert not any(hidden)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    printed = page.evaluate(
        "[...document.querySelectorAll('details > :not(summary)')].map(e => e.getBoundingClientRect().height)"
    )
    assert min(printed) > 20
    for element in ("h2", "summary"):  # no heading at the end of a page
        assert page.evaluate(f"getComputedStyle(document.querySelector('{element}')).breakAfter") == "avoid"
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()
