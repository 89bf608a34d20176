"""The page in Chromium: what people see, hear, click, drag, copy and download. The server is a real process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run
from playwright.sync_api import Browser, Download, Error, Locator, Page, expect, sync_playwright
from ports import free_port
from serve_process import Process, serving

from digitforge_client import DigitClient
from digitforge_serving import EmbeddedServer

#: Debian's chromium, Chrome, or the browser that `playwright install chromium` downloads.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LOADED_MS = 60_000  # for a busy machine; a page that is ready does not wait


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"needs Chromium, such as Debian's package chromium: {error.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(exported_model: Path, toy_version: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server with the tiny generator and a model that is not a generator. `page` is the address of its page."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(toy_version, folder / "toy/1")
    models = [("digits", exported_model), ("toy", folder / "toy")]
    listed = "".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}\n' for name, path in models
    )
    (folder / "models.config").write_text(f"model_config_list {{\n{listed}}}\n")
    (folder / "monitoring.config").write_text("prometheus_config { enable: true }")
    flags = ["--port=0", f"--rest-api-port={free_port()}", "--json", "--model-config-file=models.config"]
    with serving(folder, *flags, "--monitoring-config-file=monitoring.config") as process:
        yield process


@pytest.fixture(scope="module")
def addresses(server: Process) -> dict[str, str]:
    return json.loads(server.line())


@pytest.fixture
def page(browser: Browser, addresses: dict[str, str]) -> Iterator[Page]:
    """The page, with images and a walk. A script's error, or one in the console, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(f"http://{addresses['rest_target']}/")
    drawn(page, "40 images of seed 0")
    yield page
    context.close()
    assert not problems


def drawn(page: Page, status: str) -> None:
    """Wait until the images of the last choice are there, with the walk and the code that belong to them."""
    expect(page.locator("main[aria-busy=false]")).to_be_visible(timeout=LOADED_MS)
    expect(page.locator("#status")).to_contain_text(status, timeout=LOADED_MS)


def tiles(page: Page) -> Locator:
    return page.get_by_role("listbox", name="Images").get_by_role("option")


def choose(page: Page, *, classes: str = "", count: int | None = None, seed: int | None = None) -> None:
    if classes:
        page.get_by_role("button", name="None").click()
        for name in classes:
            page.get_by_role("checkbox", name=name, exact=True).check()
    if count is not None:
        page.get_by_label("Number of images").fill(str(count))
    if seed is not None:
        page.get_by_role("spinbutton", name="Seed").fill(str(seed))


def scale(page: Page, name: str, amount: float) -> None:
    page.get_by_role("radio", name=name).check()
    slider = page.locator("#amount")
    slider.evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})); }",
        str(amount),
    )


def saved(download: Download, folder: Path) -> Path:
    path = folder / download.suggested_filename
    download.save_as(path)
    return path


def npz(page: Page, folder: Path) -> dict[str, Any]:
    with page.expect_download() as found:
        page.get_by_role("button", name="Download npz").click()
    with np.load(saved(found.value, folder)) as archive:
        return dict(archive)


def code(page: Page, tab: str, of: str = "the images") -> str:
    page.get_by_role("combobox", name="Of").select_option(of)
    page.get_by_role("tab", name=tab).click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#code").inner_text()
    return str(copied)


def images_of(snippet: str, variable: str, folder: Path) -> np.ndarray:
    """Run copied Python code as a program, and return the images that it has got."""
    script = folder / "snippet.py"
    script.write_text(f"{snippet}\nimport numpy\nnumpy.save('images.npy', {variable})\n")
    subprocess.run(
        [sys.executable, script], cwd=folder, check=True, timeout=240, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    return np.load(folder / "images.npy")


def images_of_curl(snippet: str) -> np.ndarray:
    """Run a copied curl command in a shell, and return the images that it has got."""
    answer = subprocess.run(["bash", "-c", snippet], check=True, timeout=240, capture_output=True).stdout
    outputs = json.loads(answer)["outputs"]
    return np.array(outputs["images"] if isinstance(outputs, dict) else outputs, np.uint8)


def test_the_page_shows_the_images_that_the_client_gets(page: Page, addresses: dict[str, str], tmp_path: Path) -> None:
    expect(tiles(page)).to_have_count(40)
    downloaded = npz(page, tmp_path)
    with DigitClient(addresses["grpc_target"]) as client:
        batch = client.sample(40, seed=0)
    assert np.array_equal(downloaded["x"], batch.images)
    assert np.array_equal(downloaded["y"], batch.labels)
    assert np.array_equal(downloaded["seeds"], batch.seeds)
    assert str(downloaded["generator_id"]) == batch.generator_id
    shown = (
        page.locator("#digits canvas")
        .nth(13)
        .evaluate("canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)")
    )
    assert np.array_equal(np.array(shown).reshape(28, 28, 4)[..., 0], batch.images[13])


def test_downloads_are_those_of_the_command(page: Page, addresses: dict[str, str], tmp_path: Path) -> None:
    choose(page, classes="38", count=23, seed=5)
    drawn(page, "23 images of seed 5")
    labels = ",".join("38"[row % 2] for row in range(23))
    out = [str(tmp_path / "command.npz"), str(tmp_path / "command.png")]
    run(
        "sample",
        "--server",
        addresses["grpc_target"],
        "--labels",
        labels,
        "--seed",
        "5",
        "--out",
        out[0],
        "--out",
        out[1],
    )
    ours = npz(page, tmp_path)
    with np.load(out[0]) as archive:
        assert ours.keys() == set(archive.files)
        for name in archive.files:
            assert np.array_equal(ours[name], archive[name]), name
    from PIL import Image

    with page.expect_download() as found:
        page.get_by_role("button", name="Download PNG").click()
    picture = saved(found.value, tmp_path)
    assert picture.name == "digits-seed-5-n-23.png"
    with Image.open(picture) as page_picture, Image.open(out[1]) as command_picture:
        assert np.array_equal(np.asarray(page_picture.convert("L")), np.asarray(command_picture.convert("L")))


@pytest.mark.parametrize(("scaling", "amount"), [(None, 0), ("Truncation", 0.8), ("Expansion", 1.3)])
def test_copied_code_gives_the_images_of_the_page(
    page: Page, tmp_path: Path, scaling: str | None, amount: float
) -> None:
    choose(page, classes="127", count=11, seed=3)
    if scaling is not None:
        scale(page, scaling, amount)
    drawn(page, "11 images of seed 3")
    shown = npz(page, tmp_path)["x"]
    assert np.array_equal(images_of_curl(code(page, "curl"))[..., 0], shown)
    assert np.array_equal(images_of(code(page, "gRPC"), "images", tmp_path)[..., 0], shown)
    ours = images_of(code(page, "Python"), "batch.images", tmp_path)
    # The page and the client each compute scaled latents, to 9 digits.
    assert np.abs(ours.astype(int) - shown).max() <= (0 if scaling is None else 1)


def walk_image(page: Page) -> np.ndarray:
    pixels = page.locator("#walk-now").evaluate(
        "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)"
    )
    return np.array(pixels).reshape(28, 28, 4)[..., 0]


@pytest.mark.parametrize("scaling", [None, "Truncation"])
def test_dragging_one_image_onto_another_walks_between_them(
    page: Page, addresses: dict[str, str], tmp_path: Path, scaling: str | None
) -> None:
    if scaling is not None:
        scale(page, scaling, 0.8)
        expect(page.locator("#code")).to_contain_text("truncation=0.8")
    tiles(page).nth(2).drag_to(tiles(page).nth(8))
    expect(page.locator("#walk-first-name")).to_have_text("A: digit 2, row seed 2")
    expect(page.locator("#walk-last-name")).to_have_text("B: digit 8, row seed 8")
    page.get_by_role("combobox", name="Steps").select_option("8")
    expect(page.locator("#position-shown")).to_have_text("5 of 8")
    ours = images_of(code(page, "Python", "the walk"), "images", tmp_path)
    curl = images_of_curl(code(page, "curl", "the walk"))
    for step in (0, 3, 7):
        page.get_by_role("slider", name="Position").fill(str(step))
        expect(page.locator("#position-shown")).to_have_text(f"{step + 1} of 8")
        assert np.array_equal(walk_image(page), curl[step, ..., 0])
        assert np.abs(walk_image(page) - ours[step].reshape(28, 28)).max() <= 1


def test_the_walk_works_with_the_keyboard_alone(page: Page) -> None:
    page.get_by_role("spinbutton", name="Seed").focus()
    for _ in range(20):  # from the seed to the first image
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('tile')"):
            break
    expect(tiles(page).first).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    page.keyboard.press("Space")
    expect(page.locator("#walk-first-name")).to_have_text("A: digit 2, row seed 2")
    expect(page.locator("#walk-last-name")).to_have_text("B: digit 9, row seed 39")
    selected = page.locator("[role=option][aria-selected=true]")
    expect(selected).to_have_count(2)
    page.get_by_role("slider", name="Position").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("slider", name="Position")).to_have_attribute(
        "aria-valuetext", "step 2 of 16, from digit 2 to digit 9"
    )
    page.get_by_role("tab", name="Python").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="curl")).to_be_focused()
    expect(page.locator("#code")).to_contain_text("curl --silent")


#: Elements without a name.
UNNAMED = """() => {
  const named = element => element.labels?.length || element.ariaLabel || element.textContent.trim()
    || element.getAttribute("aria-labelledby");
  const all = document.querySelectorAll("button, input, select, summary, a, canvas[role], svg[role], [role=tabpanel]");
  const unnamed = Array.from(all).filter(element => element.checkVisibility() && !named(element));
  return unnamed.map(element => element.outerHTML);
}"""
#: Elements that a window of this width cuts off.
CUT_OFF = """() => {
  const cut = element => {
    const box = element.getBoundingClientRect();
    return box.left < 0 || box.right > innerWidth + 1;
  };
  return Array.from(document.querySelectorAll("button, input, select, canvas, h2, dd"))
    .filter(element => element.checkVisibility() && cut(element)).map(element => element.outerHTML);
}"""
#: Texts whose contrast with their background is below 4.5 (WCAG 2.2, 1.4.3, level AA).
FAINT = """() => {
  const parse = color => color.match(/[\\d.]+/g).map(Number);
  const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const background = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = [];
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !element.checkVisibility() || element.matches("option")) continue;
    const both = [parse(getComputedStyle(element).color), background(element)].map(luminance);
    const light = Math.max(...both), dark = Math.min(...both);
    if ((light + 0.05) / (dark + 0.05) < 4.5) faint.push(element.outerHTML);
  }
  return faint;
}"""


def test_everything_has_a_name_for_screen_readers(page: Page) -> None:
    assert page.evaluate(UNNAMED) == []
    snapshot = page.locator("body").aria_snapshot()
    for part in (
        'heading "digitforge" [level=1]',
        'heading "Walk between two images" [level=2]',
        'listbox "Images"',
        'option "digit 3, row seed 3"',
        'group "Classes"',
        'group "Latents"',
    ):
        assert part in snapshot
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_all_widths_and_its_text_has_contrast(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for width in (400, 600, 800, 1000, 1280, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(CUT_OFF) == []
    assert page.evaluate(FAINT) == []


def test_the_address_of_the_page_keeps_the_choices(page: Page) -> None:
    choose(page, classes="4", count=6, seed=77)
    scale(page, "Expansion", 1.5)
    drawn(page, "6 images of seed 77")
    expect(page.locator("#code")).to_contain_text("client.sample(6, labels=4, seed=77, expansion=1.5)")
    before = page.locator("#code").inner_text()
    page.reload()
    drawn(page, "6 images of seed 77")
    expect(page.locator("#code")).to_have_text(before, use_inner_text=True)


def test_the_card_and_the_metrics_are_there(page: Page) -> None:
    card = page.get_by_role("region", name="Model card")
    expect(card.locator("dl")).to_contain_text("28 × 28 × 1")
    live = page.get_by_role("region", name="Server")
    expect(live.locator("dd").first).to_contain_text(re.compile(r"\d+ OK"), timeout=LOADED_MS)
    count = int(re.findall(r"(\d+) OK", live.locator("dd").first.inner_text())[0])
    page.get_by_role("button", name="Random").click()
    expect(live.locator("dd").first).not_to_have_text(f"{count} OK", timeout=LOADED_MS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": " "}, "No class is chosen. Choose at least one."),
        ({"count": 0}, "The number of images must be a whole number from 1 to "),
        ({"seed": 2**21}, "The seed must be a whole number from 0 to 2\u202f097\u202f151."),
    ],
)
def test_wrong_choices_are_explained_without_moving_the_controls(
    page: Page, change: dict[str, Any], message: str
) -> None:
    controls = page.get_by_role("group", name="Classes")
    before = controls.bounding_box()
    if change == {"classes": " "}:
        page.get_by_role("button", name="None").click()
    else:
        choose(page, **change)
    expect(page.get_by_role("alert")).to_contain_text(message)
    assert controls.bounding_box() == before
    page.get_by_role("button", name="All").click()
    choose(page, count=40, seed=0)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_model_that_is_not_a_generator_is_explained(page: Page) -> None:
    page.get_by_role("combobox", name="Model").select_option("toy")
    expect(page.get_by_role("alert")).to_contain_text("Model toy is not a digitforge generator")
    page.get_by_role("combobox", name="Model").select_option("digits")
    drawn(page, "40 images of seed 0")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_page_of_another_server_shows_the_same_and_survives_its_end(
    browser: Browser, exported_model: Path, tmp_path: Path
) -> None:
    upstream = tmp_path / "upstream"
    upstream.mkdir()
    flags = [f"--model-base-path={exported_model}", "--port=0", f"--rest-api-port={free_port()}", "--json"]
    with serving(upstream, *flags) as process:
        rest = json.loads(process.line())["rest_target"]
        with serving(tmp_path, f"--page-for=http://{rest}", f"--rest-api-port={free_port()}", "--json") as forwarding:
            page = browser.new_page()
            page.goto(json.loads(forwarding.line())["page"])
            drawn(page, "40 images of seed 0")
            downloaded = npz(page, tmp_path)
            process.end(signal.SIGTERM)
            page.get_by_role("button", name="Random").click()
            expect(page.get_by_role("alert")).to_contain_text("The server behind this page cannot be reached.")
            forwarding.end(signal.SIGTERM)
            choose(page, seed=9)
            expect(page.get_by_role("alert")).to_contain_text("The server does not answer. Check that it runs")
            page.close()
    with EmbeddedServer(exported_model) as target, DigitClient(target) as client:
        assert np.array_equal(downloaded["x"], client.sample(40, seed=0).images)
