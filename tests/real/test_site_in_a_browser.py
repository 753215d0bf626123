"""The documentation site, opened from a folder in a browser that cannot reach any other host."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from local_stack.toolchain import Toolchain
from tests.support import browser
from tests.support.documentation_site import built
from tests.support.once_per_run import OncePerRun

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")


@pytest.fixture
def page(toolchain: Toolchain, tmp_path: Path, or_skip: Callable[[], AbstractContextManager[None]]) -> Iterator[Page]:
    with or_skip():
        chromium = browser.chromium(toolchain)
    with browser.running(chromium, tmp_path / "browser") as context:
        yield context.new_page()


@pytest.fixture
def requested(page: Page, once_per_run: OncePerRun) -> list[str]:
    """The URLs that the browser has requested since it opened the site's root."""
    site = once_per_run.get("site", built)
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto((site / "index.html").as_uri())
    page.wait_for_url("**/docs/index.html")
    return urls


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("checkpoint", "Glossary"),
        ("immutable tag", "Troubleshooting"),
        ("retry", "Run workers"),
        ("Fargate", "How lazy loading works, and when it does not help"),
    ],
)
def test_a_search_finds_a_page_without_a_server_and_without_another_host(
    page: Page, requested: list[str], words: str, title: str
) -> None:
    search = page.get_by_placeholder("Search").first
    search.fill(words)
    search.press("Enter")
    page.wait_for_url("**/search.html?q=*")
    # Sphinx lists headings of the page too.
    result = page.locator("#search-results a").filter(has_text=title).first
    expect(result).to_be_visible()
    result.click()
    expect(page.get_by_role("heading", level=1, name=title)).to_be_visible()
    assert len(requested) > 10
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []


def test_the_theme_switches_between_light_and_dark(page: Page, requested: list[str]) -> None:
    def background() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    seen = {background()}
    for _ in range(2):
        page.locator("button.theme-toggle:visible").first.click()
        seen.add(background())
    assert len(seen) == 2
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
