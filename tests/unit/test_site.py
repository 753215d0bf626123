"""The documentation site: `make docs` builds it strictly, it is complete, and it loads nothing from elsewhere."""

import functools
import html.parser
import re
import shutil
import urllib.parse
from pathlib import Path

import pytest

import soci_pipeline
from tests.support.documentation_site import REPOSITORY, built, make_docs
from tests.support.once_per_run import OncePerRun

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")

# What a browser loads by itself, by element; links that a reader may follow are not among it.
_LOADED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
}


class _Page(html.parser.HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        self.loaded |= {values[name] for name in _LOADED.get(tag, ()) if name in values}
        if tag == "a" and "href" in values:
            self.links.add(values["href"])


@functools.cache
def _page(path: Path) -> _Page:
    return _Page(path.read_text())


@pytest.fixture(scope="module")
def site(once_per_run: OncePerRun) -> Path:
    return once_per_run.get("site", built)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with the site's configuration and two pages."""
    folder = tmp_path / "project"
    (folder / "docs" / "images").mkdir(parents=True)
    (folder / "src").symlink_to(REPOSITORY / "src")
    (folder / "docs" / "conf.py").write_bytes((REPOSITORY / "docs" / "conf.py").read_bytes())
    (folder / "docs" / "static").symlink_to(REPOSITORY / "docs" / "static")
    (folder / "docs" / "index.md").write_text("# Start\n\n## Guides\n\n- [First guide](guide.md)\n")
    (folder / "docs" / "guide.md").write_text("# A guide\n\n## It's `here`!\n\n## Twice\n\n## Twice\n")
    return folder


def _add(project: Path, text: str) -> None:
    with (project / "docs" / "guide.md").open("a") as guide:
        guide.write(f"\n{text}\n")


def _pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_the_site_has_every_page_of_the_documentation(site: Path) -> None:
    sources = [*(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / name for name in ("README.md", "CHANGELOG.md"))]
    pages = [path.relative_to(REPOSITORY).with_suffix(".html") for path in sources]
    assert len(pages) > 40
    assert [page for page in pages if not (site / page).exists()] == []


def test_the_start_page_leads_to_the_sections(site: Path) -> None:
    (target,) = re.findall(r'content="0; url=([^"]+)"', (site / "index.html").read_text())
    text = (site / target).read_text()
    captions = re.findall(r'class="caption"[^>]*><span class="caption-text">([^<]+)<', text)
    assert captions == ["Tutorials", "How-to guides", "Reference", "Explanation", "Project"]
    links = {(site / target).parent.joinpath(link).resolve() for link in _page(site / target).links}
    assert {site / "CHANGELOG.html", site / "docs/adr/README.html", site / "docs/python-api.html"} <= links


def test_the_reference_of_every_public_name_is_in_the_site(site: Path) -> None:
    anchors = _page(site / "docs" / "python-api.html").anchors
    assert {f"soci_pipeline.{name}" for name in soci_pipeline.__all__} <= anchors
    assert {"soci_pipeline.Layout.open", "soci_pipeline.SociPipelineError.retry_after"} <= anchors


def test_an_example_in_a_docstring_is_rendered_as_code(site: Path) -> None:
    text = (site / "docs" / "python-api.html").read_text()
    assert '<div class="highlight-python ' in text
    assert "```" not in text


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    outside = {
        (page.relative_to(site).as_posix(), url)
        for page in _pages(site)
        for url in _page(page).loaded
        if urllib.parse.urlsplit(url).scheme not in {"", "data"} or urllib.parse.urlsplit(url).netloc
    }
    assert outside == set()
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(\s*|@import\s+)[\"']?(?:https?:)?//[^)\"']*", style.read_text()) == []
    for script in site.rglob("*.js"):
        assert not re.search(r"\b(?:import|fetch|importScripts)\(\s*[\"'](?:https?:)?//", script.read_text())


def test_every_link_inside_the_site_leads_to_a_file_and_a_heading(site: Path) -> None:
    broken = set()
    for page in _pages(site):
        for link in _page(page).links | _page(page).loaded:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme:
                continue
            target = (page.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else page
            exists = target.is_file() and target.is_relative_to(site)
            anchor = urllib.parse.unquote(parts.fragment)
            if not exists or (anchor and target.suffix == ".html" and anchor not in _page(target).anchors):
                broken.add((page.relative_to(site).as_posix(), link))
    assert broken == set()


def test_the_site_has_a_search_and_a_dark_mode(site: Path) -> None:
    assert '"ztoc"' in (site / "searchindex.js").read_text() or "ztoc:" in (site / "searchindex.js").read_text()
    for page in _pages(site):
        if page != site / "index.html":
            assert 'action="' in page.read_text(), page
            assert "theme-toggle" in page.read_text(), page


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[a](missing.md)", "missing.md"),
        ("[a](index.md#missing)", "missing"),
        ("[a](#missing)", "missing"),
        ("[a](#Twice)", "Twice"),
        ("[a](../missing)", "missing"),
        ("[a](../missing/)", "missing"),
        ("[a](../missing.yaml)", "missing.yaml"),
        ("![a](images/missing.png)", "images/missing.png"),
    ],
)
def test_a_broken_link_fails_the_build_with_its_page_and_line(project: Path, text: str, named: str) -> None:
    _add(project, text)
    done = make_docs(project, project / "site")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if "guide.md:9: WARNING" in line]
    assert named in line


def test_a_page_that_is_in_no_navigation_fails_the_build(project: Path) -> None:
    (project / "docs" / "orphan.md").write_text("# An orphan\n")
    _add(project, "[a](orphan.md)")
    done = make_docs(project, project / "site")
    assert done.returncode != 0
    assert "orphan.md: WARNING: document isn't included in any toctree" in done.stderr


def test_links_that_work_on_a_forge_work_on_the_site(project: Path) -> None:
    (project / "examples" / "one").mkdir(parents=True)
    (project / "examples" / "one" / "README.md").write_text("# Example\n")
    (project / "docs" / "index.md").write_text(
        "# Start\n\n## Guides\n\n- [First guide](guide.md)\n- [Example](../examples/one/README.md)\n"
    )
    (project / "docs" / "images" / "one.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>\n')
    (project / "run.sh").write_text("true\n")
    links = ["#its-here", "#twice-1", "index.md#guides", "../run.sh", "../examples/one", "../examples"]
    _add(project, "\n".join(f"[a link]({link})" for link in links) + "\n\n![a picture](images/one.svg)")
    done = make_docs(project, project / "site")
    assert (done.returncode, done.stderr) == (0, "")
    page = _page(project / "site" / "docs" / "guide.html")
    # The heading has the forge's anchor and that of Sphinx, to which a link leads.
    assert {"its-here", "it-s-here"} <= page.anchors
    assert {"#it-s-here", "index.html#guides", "../examples/one/README.html"} <= page.links
    assert len([link for link in page.links if link.endswith("/run.sh")]) == 1
    assert not [link for link in page.links if "examples" in link and "README" not in link]


def test_a_page_is_rendered_as_a_forge_renders_it(project: Path) -> None:
    """No syntax of the generator's own: what looks like it is text."""
    _add(project, 'A list:\n- one\n  - two\n\n% no comment\n\n{code}`x` -- "quoted"\n\n(target)=\n\n+++')
    done = make_docs(project, project / "site")
    assert (done.returncode, done.stderr) == (0, "")
    text = (project / "site" / "docs" / "guide.html").read_text()
    assert re.search(r"<li><p>one</p>\s*<ul>\s*<li><p>two</p></li>", text)
    for each in ("% no comment", "{code}<code", '-- "quoted"', "(target)=", "+++"):
        assert each in text.replace("&quot;", '"')
