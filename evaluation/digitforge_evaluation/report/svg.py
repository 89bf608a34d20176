"""Plots as SVG: one drawing for light and dark pages, and for wide and narrow ones.

A plot is drawn in placeholder colors, which become the CSS variables of ``colors.css``. An ``<svg>`` element inside a
page takes them from the page. An SVG file brings them along.
"""

from __future__ import annotations

import io
import re
from functools import cache
from importlib.resources import files
from typing import Any, Final
from xml.sax.saxutils import quoteattr

# Placeholders: matplotlib writes them into the SVG as they are.
INK: Final = "#000001"
LINE: Final = "#000002"
ACCENT: Final = "#000003"
PAPER: Final = "#000004"
_VARIABLES: Final = {INK: "var(--ink)", LINE: "var(--line)", ACCENT: "var(--accent)", PAPER: "var(--paper)"}

WIDTH: Final = 4.2  # inches of 72 units: on a screen of 400 pixels, text of 9 units is 11 pixels high
TEXT: Final = 9.0  # size of labels and legends
SMALL: Final = 8.0  # size of names and numbers inside a plot
_FILE_WIDTH: Final = 560  # pixels of an SVG file where there is room for them
_FONTS: Final = ("DejaVu Sans", "Verdana")  # equally wide, so that text takes the room that it was given
#: Fonts for Chinese, Japanese and Korean names. The installed ones are used.
_EAST_ASIAN: Final = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo"),
)


@cache
def _fonts() -> tuple[str, ...]:
    from matplotlib.font_manager import get_font_names

    installed = set(get_font_names())
    return (*_FONTS, *(name for name in _EAST_ASIAN if name in installed))


@cache
def can_draw(text: str) -> bool:
    """Whether the fonts of a plot have all characters of *text*."""
    from matplotlib.font_manager import FontProperties, findfont, get_font, get_font_names

    missing = {ord(character) for character in text}
    for name in set(_fonts()) & set(get_font_names()):
        missing -= get_font(findfont(FontProperties(family=[name]))).get_charmap().keys()
    return not missing


def wrapped(text: str, *, units: float, size: float) -> list[str]:
    """Break *text* between words into lines of at most *units*, as wide as they are drawn at font size *size*."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=list(_FONTS[:1]), size=size)
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and text_to_path.get_text_width_height_descent(longer, font, ismath=False)[0] > units:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def axes_of(*, height: float) -> tuple[Any, Any]:
    """A figure of *height* inches with one pair of axes, and these axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=PAPER)
    axes = figure.add_subplot(facecolor="none")
    axes.tick_params(which="both", colors=INK, length=0, labelsize=TEXT)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=TEXT)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(LINE)
    axes.set_axisbelow(True)
    return figure, axes


def legend_below(figure: Any, *, columns: int) -> None:
    """Add the figure's legend below its axes."""
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, labelcolor=INK, fontsize=TEXT)


def svg_of(figure: Any, description: str) -> str:
    """The figure as an ``<svg>`` element for an HTML page.

    Args:
        figure: a matplotlib figure in the placeholder colors of this module.
        description: what a screen reader says.
    """
    from matplotlib import rc_context

    drawn = io.StringIO()
    # The salt makes names inside the SVG differ between the plots of a page, and be the same in every run.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": description, "font.sans-serif": list(_fonts())}):
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<!--.*?-->|\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    text = re.sub(r"<svg[^>]*>", f'<svg {box[0]} role="img" aria-label={quoteattr(description)}>', text, count=1)
    text = text.replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", text)
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, variable)
    return text


def svg_file(element: str) -> bytes:
    """The content of an SVG file: an element from `svg_of` with its colors for light and dark pages."""
    colors = files("digitforge_evaluation.report").joinpath("colors.css").read_text("utf-8")
    width, height = re.findall(r"[\d.]+", element[element.index("viewBox") :])[2:4]
    size = f'width="{_FILE_WIDTH}" height="{round(_FILE_WIDTH * float(height) / float(width))}"'
    start, body = element.split(">", 1)
    start = start.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" {size}')
    return f"{start}>\n<style>\n{colors}</style>{body}".encode()
