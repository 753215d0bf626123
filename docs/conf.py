"""Configuration of the documentation site: ``make docs`` builds it with Sphinx, MyST and Furo.

The sources are the repository's own Markdown files, in their places and without any markup for the site, so that they
read the same on a forge. The navigation is made of the links in two of them: `docs/index.md`, whose headings become its
sections, and `docs/adr/README.md`. Warnings are errors: a page that neither links to, a link to a missing file or
heading, or a docstring that cannot be rendered fails the build.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from docutils import nodes
from pygments.lexers import BashLexer
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import soci_pipeline  # noqa: E402

project = "soci-pipeline"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/**.md",
    "deployments/**README.md",
    "examples/**README.md",
    "tests/support/README.md",
]
exclude_patterns = [".*", "build-output", "dist"]

# GitHub's rules: an anchor for each heading, straight quotes, and no syntax of MyST's own.
myst_heading_anchors = 6
smartquotes = False
myst_disable_syntax = ["myst_block_break", "myst_line_comment", "myst_role", "myst_target"]

# Docstrings are written with Markdown's single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "soci-pipeline"
html_copy_source = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["narrow.css"]

DECISIONS = "docs/adr/README"
API_PAGE = "docs/python-api"
# Rendered below the text of the page.
API_REFERENCE = """
```{eval-rst}
.. automodule:: soci_pipeline
   :members:
   :imported-members:
   :undoc-members:
   :exclude-members: model_config
```
"""

_HEADING = re.compile(r"^## +(.+)$", re.MULTILINE)
_PAGE_LINK = re.compile(r"\[([^\[\]]+)\]\(([^()#\s]+)\.md\)")
_MARKDOWN_FENCE = re.compile(r"^(`{3,})(\w*)$")


def _toctree(caption: str, entries: Iterable[str]) -> str:
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "```{toctree}", *options, "", *dict.fromkeys(entries), "```", ""])


def _navigation(text: str) -> str:
    """Return a table of contents for each section of a page: its links, under their own text."""
    start, *sections = _HEADING.split(text)
    captioned = [("", start), *zip(sections[::2], sections[1::2], strict=True)]
    return "".join(
        _toctree(caption, (f"{' '.join(title.split())} <{page}>" for title, page in links))
        for caption, part in captioned
        if (links := _PAGE_LINK.findall(part))
    )


def _extend_source(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add to a page what only the site has."""
    if docname == root_doc:
        source[0] += _navigation(source[0])
    elif docname == DECISIONS:
        source[0] += _toctree("", (page for _, page in _PAGE_LINK.findall(source[0])))
    elif docname == API_PAGE:
        for name in soci_pipeline.__all__:
            getattr(soci_pipeline, name)  # autodoc sees only the names that have been imported
        source[0] += API_REFERENCE


def _link_folders(app: Sphinx, doctree: nodes.document) -> None:
    """Point links to folders of the repository at the folder's README, or keep only their text if it has none."""
    folder = (ROOT / app.env.docname).parent
    for link in list(doctree.findall(addnodes.pending_xref)):
        target = (folder / link["reftarget"]).resolve()
        if link.get("reftype") != "myst" or link.get("refdomain") == "doc" or not target.is_dir():
            continue
        readme = (target / "README").relative_to(app.srcdir).as_posix()
        if readme in app.env.found_docs:
            link["refdomain"], link["reftarget"], link["reftargetid"] = "doc", readme, None
        else:
            link.replace_self(link.children)


def _fences_to_rst(app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """Turn the fenced blocks of a docstring into directives of reStructuredText."""
    converted: list[str] = []
    fence = ""
    for line in lines:
        found = _MARKDOWN_FENCE.match(line)
        if found and not fence:
            fence = found[1]
            converted += [f".. code-block:: {found[2] or 'text'}", ""]
        elif fence and line == fence:
            fence = ""
        else:
            converted.append(f"   {line}" if fence else line)
    lines[:] = converted


def _write_start_page(app: Sphinx, failure: Exception | None) -> None:
    """Let the root of the site lead to its first page."""
    if failure is None and app.builder.format == "html":
        target = f"{root_doc}.html"
        (Path(app.outdir) / "index.html").write_text(
            f'<!doctype html>\n<meta charset="utf-8">\n<title>{project}</title>\n'
            f'<meta http-equiv="refresh" content="0; url={target}">\n<a href="{target}">{project}</a>\n'
        )


def setup(app: Sphinx) -> None:
    """Register the handlers."""
    app.connect("source-read", _extend_source)
    app.connect("doctree-read", _link_folders)
    app.connect("autodoc-process-docstring", _fences_to_rst)
    app.connect("build-finished", _write_start_page)
    # Pygments takes a `console` block for a session with prompts; here the commands stand alone.
    app.add_lexer("console", BashLexer)
