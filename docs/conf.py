"""The settings of the site: `make docs` builds it into build/docs."""

from __future__ import annotations

import os
import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Final

from sphinx.application import Sphinx

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"

project = "digitforge"
author = "the digitforge authors"
project_copyright = f"2026, {author}"
version = release = version_of("digitforge")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "any"  # `DigitClient.sample` in a docstring is a link

html_theme = "furo"
html_title = f"digitforge {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False

myst_heading_anchors = 3
myst_enable_extensions = ["smartquotes"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
autodoc_mock_imports = ["torch"]  # the one library with an adapter that the development tools leave out
napoleon_numpy_docstring = True  # the sampler's docstrings follow scikit-learn
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True

# -- links

#: The repository in the browser, where a build knows it: in GitHub's own jobs. Elsewhere links lead into this checkout.
REPOSITORY: Final = "/".join(filter(None, (os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY"))))
#: Files at the top that are pages of the site.
PAGES: Final = {
    ROOT / "README.md": DOCS / "index.md",
    ROOT / "CHANGELOG.md": DOCS / "changelog.md",
    ROOT / "CONTRIBUTING.md": DOCS / "contributing.md",
}
LINK: Final = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?(\))")
FENCED: Final = re.compile(r"(^```.*?^```)", flags=re.M | re.S)


def adapt_links(text: str, *, source: Path, page: Path) -> str:
    """Make the relative links of a Markdown file, which lead through the repository, lead through the site.

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
        if opening.startswith("!") or path.is_relative_to(DOCS):
            target = os.path.relpath(path, page.parent)
        elif REPOSITORY:
            target = f"{REPOSITORY}/{'tree' if path.is_dir() else 'blob'}/main/{path.relative_to(ROOT)}"
        else:
            target = path.as_uri()
        return f"{opening}{target}{anchor}{closing}"

    parts = FENCED.split(text)
    parts[::2] = [LINK.sub(adapted, outside) for outside in parts[::2]]
    return "".join(parts)


def adapt_page(app: Sphinx, name: str, content: list[str]) -> None:
    path = Path(app.env.doc2path(name))
    if path.suffix == ".md":
        content[0] = adapt_links(content[0], source=path, page=path)


def adapt_included(app: Sphinx, relative: Path, name: str, content: list[str]) -> None:
    source = (DOCS / relative).resolve()
    content[0] = adapt_links(content[0], source=source, page=Path(app.env.doc2path(name)))


def setup(app: Sphinx) -> None:
    app.connect("source-read", adapt_page)
    app.connect("include-read", adapt_included)
