"""Settings of the documentation site. `make docs` builds it into build/docs."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy.typing
from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"

project = "digitforge"
author = "the digitforge authors"
project_copyright = f"2026, {author}"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "any"  # `DigitClient.sample` in a docstring is a link

html_theme = "furo"
html_title = f"digitforge {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False

myst_heading_anchors = 3
myst_enable_extensions = ["smartquotes"]
nb_execution_mode = "off"  # the outputs are in the file; a test runs the notebook

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_preserve_defaults = True
autodoc_mock_imports = ["torch"]  # the one library with an adapter that the development tools leave out
napoleon_numpy_docstring = True  # the sampler's docstrings follow scikit-learn
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True

nitpick_ignore_regex = [
    # Names of other libraries. The build works offline, so it cannot look them up.
    ("py:class", r"(collections\.abc|enum|os|pandas|pathlib|numpy|np|npt|grpc|keras|tensorflow|tf|torch)\..+"),
    ("py:class", "Path|Mapping|Sequence"),
    # Types of some public fields and arguments. The reference leaves them out, because few readers need them.
    ("py:class", r"([a-z_]+\.)*(CellResult|Headers|PixelRange|Scheduler|State|Strategy|Transport|Trouble|_\w+)"),
    ("py:class", r"digitforge_evaluation\.experiment\.([a-z]+\.)(Comparison|Design|Estimate|Interval|Worth)"),
    ("py:class", r"digitforge_evaluation\.metrics\.([a-z_]+\.)(Gaussian|Nearness|PRDC)"),
    ("py:class", r"digitforge_evaluation\.quality\.([a-z_]+\.)(Accuracies|Real|Reference|Sample|Training)"),
]

# -- types

T = TypeVar("T")


class NDArray(Generic[T]):
    """Replaces NumPy's type, which the reference would show as ndarray[tuple[Any, ...], dtype[T]]."""


class ArrayLike:
    """Replaces NumPy's type, which the reference would show as a union of seven types."""


for stand_in in (NDArray, ArrayLike):
    stand_in.__module__ = "numpy.typing"
    setattr(numpy.typing, stand_in.__name__, stand_in)

# Napoleon reads "text: more text" in the documentation of a field as a type and a description. We write no types there.
GoogleDocstring._parse_attribute_docstring = GoogleDocstring._consume_to_end  # type: ignore[method-assign]


def keep_numpy_types(*event: Any) -> None:
    """Show numpydoc types, such as "array-like of shape (n, pixels)", as text. Sphinx would look for classes."""
    lines: list[str] = event[-1]
    if any(re.fullmatch(r" *-{3,}", line) for line in lines):
        lines[:] = [re.sub(r"^(\w+) : (.+)$", r"\1 : ``\2``", line) for line in lines]


# -- links

#: Address of the repository. Only GitHub's own jobs know it. In other builds, links lead into this checkout.
REPOSITORY: Final = "/".join(filter(None, (os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY"))))
#: Files at the top of the repository that are pages of the site.
PAGES: Final = {
    ROOT / "README.md": DOCS / "index.md",
    ROOT / "CHANGELOG.md": DOCS / "changelog.md",
    ROOT / "CONTRIBUTING.md": DOCS / "contributing.md",
}
#: The committed experiments. The build writes their reports into the site.
EXPERIMENTS: Final = ROOT / "evaluation" / "results"
LINK: Final = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?(\))")
FENCED: Final = re.compile(r"(^```.*?^```)", flags=re.M | re.S)


def adapt_links(text: str, *, source: Path, page: Path) -> str:
    """Rewrite the relative links of a Markdown file, which fit the repository, so that they fit the site.

    Args:
        text: Markdown.
        source: the file it comes from.
        page: the file of the page that it appears on.
    """

    def adapted(link: re.Match[str]) -> str:
        opening, target, anchor, closing = link[1], link[2], link[3] or "", link[4]
        path = (source.parent / target).resolve()
        if re.match(r"[a-z]+:", target) or not path.exists():
            return link[0]
        path = PAGES.get(path, path)
        label = opening.strip("[](")
        if path.parent == EXPERIMENTS:
            report = DOCS / "results" / path.name / "report.html"
            return f'<a href="{os.path.relpath(report, page.parent)}">{label}</a>'
        if opening.startswith("!") or path.is_relative_to(DOCS):
            target = os.path.relpath(path, page.parent)
        elif REPOSITORY:
            target = f"{REPOSITORY}/{'tree' if path.is_dir() else 'blob'}/main/{path.relative_to(ROOT)}"
        else:
            return f'<a href="{path.as_uri()}{anchor}">{label}</a>'  # Markdown makes no links to files
        return f"{opening}{target}{anchor}{closing}"

    parts = FENCED.split(text)
    parts[::2] = [LINK.sub(adapted, outside) for outside in parts[::2]]
    return "".join(parts)


def name_defaults(*event: Any) -> tuple[str | None, str | None]:
    """Show the values of the client's constants in signatures, not their names."""
    from digitforge_client import client  # late: the replaced types must be there first

    signature, returned = event[-2:]
    for name in ("DEFAULT_TARGET", "MODEL_NAME", "MAX_ROWS"):
        signature = signature and re.sub(rf"\b{name}\b", repr(getattr(client, name)), signature)
    return signature, returned


def adapt_page(app: Sphinx, name: str, content: list[str]) -> None:
    path = Path(app.env.doc2path(name))
    if path.suffix == ".md":
        content[0] = adapt_links(content[0], source=path, page=path)


def adapt_included(app: Sphinx, relative: Path, name: str, content: list[str]) -> None:
    source = (DOCS / relative).resolve()
    content[0] = adapt_links(content[0], source=source, page=Path(app.env.doc2path(name)))


def write_reports(app: Sphinx, error: Exception | None) -> None:
    """Write the report of each committed experiment into the site."""
    if error or app.builder.name != "html":
        return
    from digitforge_evaluation import experiment_folder  # late: it needs SciPy and matplotlib

    folders = [results.parent for results in sorted(EXPERIMENTS.glob("*/results.jsonl"))]
    experiment_folder.report_together(folders, out=app.outdir / "results")


def import_tensorflow(*event: Any) -> None:
    """Import TensorFlow before the reference needs it, without its messages."""
    if any(name.startswith("api/") for name in event[-1]):
        from digitforge_client.common.command import import_quietly

        import_quietly("tensorflow")


def setup(app: Sphinx) -> None:
    app.connect("env-before-read-docs", import_tensorflow)
    app.connect("autodoc-process-docstring", keep_numpy_types, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", name_defaults)
    app.connect("source-read", adapt_page)
    app.connect("include-read", adapt_included)
    app.connect("build-finished", write_reports)
