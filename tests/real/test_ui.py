"""Prefect's UI in a browser: what people see of a publication, and a publication that they start from the form.

``--screenshots FOLDER`` also writes the README's pictures, of what the tests have found on the page.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Response, expect

from local_stack.prebuilt_images import prebuilt_archives, served
from local_stack.publication import Publication, publish
from local_stack.stack import PLATFORMS, Stack
from local_stack.toolchain import Toolchain
from soci_pipeline.deployment_names import PUBLISH
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.project import project_folder
from tests.support import browser
from tests.support import publications as seen

pytestmark = [pytest.mark.first, pytest.mark.timeout(900)]

EXAMPLE = "examples/hello-web"
expect.set_options(timeout=browser.PATIENCE_SECONDS * 1000)
# What the graph of a run with a single task shows at least.
_ONE_TASK = 40
NAMES = [str(platform) for platform in PLATFORMS]

Picture = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Published:
    """A publication of prebuilt images (no engine is needed), and the parameters that it was started with."""

    publication: Publication
    parameters: dict[str, Any]

    @property
    def run_id(self) -> str:
        return self.publication.run_url.rpartition("/")[2]


@pytest.fixture(scope="module")
def published(stack: Stack, toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    project = project_folder()
    archives = prebuilt_archives(
        tmp_path_factory.mktemp("prebuilt"), PLATFORMS, application=project / EXAMPLE / "app", toolchain=toolchain
    )
    source = stack.git.serve_snapshot(project / EXAMPLE, "web", message="The example")
    with served(archives) as address:
        parameters = {
            "source": source.url,
            "tags": ["{short_sha}"],
            "builder": "prebuilt",
            "prebuilt": f"{address}/{{platform}}.tar",
        }
        yield Published(publish(stack, "shop/web", parameters), parameters)


@pytest.fixture(scope="module")
def chromium(
    toolchain: Toolchain,
    tmp_path_factory: pytest.TempPathFactory,
    or_skip: Callable[[], AbstractContextManager[None]],
) -> Iterator[BrowserContext]:
    with or_skip():
        unpacked = browser.chromium(toolchain)
    with browser.running(unpacked, tmp_path_factory.mktemp("browser")) as context:
        yield context


@pytest.fixture
def page(chromium: BrowserContext) -> Iterator[Page]:
    opened = chromium.new_page()
    yield opened
    opened.close()


@pytest.fixture
def picture(request: pytest.FixtureRequest, page: Page) -> Picture:
    """Writes a picture of the upper part of the page, ``height`` pixels, where pictures are asked for."""
    folder = request.config.getoption("--screenshots")

    def write(name: str, height: int) -> None:
        if folder is not None:
            browser.write_picture(page, Path(folder) / f"{name}.png", height=height)

    return write


def test_the_run_shows_its_branches_side_by_side_behind_the_source(
    stack: Stack, published: Published, page: Page, picture: Picture
) -> None:
    with page.expect_response(re.compile("/graph-v2")) as answer:
        page.goto(_run_page(stack, published.run_id))
    nodes = {node["label"]: node for _, node in answer.value.json()["nodes"]}
    (source,) = [node for label, node in nodes.items() if label.startswith("resolve source")]
    for name in NAMES:
        (branch,) = [node for label, node in nodes.items() if name in label]
        assert branch["kind"] == "flow-run"
        assert source["id"] in {parent["id"] for parent in branch["parents"]}
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    browser.wait_until_drawn(page.locator("canvas").first)
    picture("run", 520)

    page.get_by_role("tab", name="Subflow Runs").click()
    for name in NAMES:
        expect(page.get_by_role("tabpanel").get_by_text(f"{name} shop/web").first).to_be_visible()


def test_the_summary_answers_what_was_published_and_how_it_is_pulled(
    stack: Stack, published: Published, page: Page, picture: Picture
) -> None:
    page.goto(_run_page(stack, published.run_id))
    _open_artifact(page, "publication-shop-web")
    # Beside it, hidden, stands its source text.
    summary = page.get_by_test_id("markdown-display")
    expect(summary.get_by_role("heading", name="shop/web", exact=True)).to_be_visible()
    expect(summary.get_by_text("ready for lazy loading")).to_be_visible()
    expect(summary.get_by_text(f"docker pull {published.publication.reference}")).to_be_visible()
    for image in published.publication.platforms:
        expect(summary.get_by_role("cell", name=str(image.manifest.digest)).first).to_be_visible()
    expect(summary.get_by_text("too-small: ").first).to_be_visible()
    picture("summary", 920)


def test_the_summary_fits_a_page_of_1440_pixels(stack: Stack, published: Published, page: Page) -> None:
    page.goto(_run_page(stack, published.run_id))
    _open_artifact(page, "publication-shop-web")
    expect(page.get_by_test_id("markdown-display").get_by_text("too-small: ").first).to_be_visible()
    assert _cut_off(page) == []


def test_a_failed_run_says_its_cause_once_and_has_an_artifact_with_the_next_step(
    stack: Stack, published: Published, page: Page, picture: Picture
) -> None:
    parameters = published.parameters | {"image": f"{stack.registry}/shop/failing", "ref": "no-such-branch"}
    with PrefectApi(stack.prefect_api_url) as api:
        run_id = api.create_run(PUBLISH, parameters)
    state = seen.end_of(stack, run_id)
    assert state.kind == "FAILED"
    assert "no-such-branch" in state.message[:60]
    lines = _log_of(stack, run_id)
    assert sum("no-such-branch" in line and "Failed with" in line for line in lines) == 1
    assert not [line for line in lines if "unexpected exception" in line or "Finished in state Failed" in line]

    page.goto(_run_page(stack, run_id))
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible()
    expect(page.get_by_text("publish-image", exact=True).first).to_be_visible()
    expect(page.get_by_text("Failed with SourceError").first).to_be_visible()
    browser.wait_until_drawn(page.locator("canvas").first, colours=_ONE_TASK)
    picture("failed-run", 920)
    _open_artifact(page, "failed-publish-image")
    shown = page.get_by_test_id("markdown-display")
    expect(shown.get_by_role("heading", name="Next step")).to_be_visible()
    expect(shown.get_by_role("link", name="The log of this run")).to_be_visible()
    assert _cut_off(page) == []
    picture("failure", 620)


def test_the_page_of_failed_branches_links_to_each_of_their_runs_and_fits(
    stack: Stack, published: Published, page: Page, picture: Picture
) -> None:
    image = {"image": f"{stack.registry}/shop/failing-branches"}
    missing = {"prebuilt": published.parameters["prebuilt"].replace("{platform}", "missing-{platform}")}
    with PrefectApi(stack.prefect_api_url) as api:
        run_id = api.create_run(PUBLISH, published.parameters | image | missing)
    assert seen.end_of(stack, run_id).kind == "FAILED"

    page.goto(_run_page(stack, run_id))
    _open_artifact(page, "failed-publish-image")
    shown = page.get_by_test_id("markdown-display")
    for name in NAMES:
        expect(shown.get_by_role("cell", name=name, exact=True).first).to_be_visible()
    for branch in seen.branches(stack, run_id):
        expect(shown.locator(f'a[href*="{branch}"]').first).to_be_visible()
    expect(shown.get_by_role("heading", name="Next step")).to_be_visible()
    assert _cut_off(page) == []
    picture("failed-branches", 920)


def test_the_list_of_deployments_says_what_each_does(stack: Stack, page: Page, picture: Picture) -> None:
    page.goto(f"{stack.prefect_ui_url}/v2/deployments")
    for name in ("publish", "verify", "index", "prune", "linux-amd64", "linux-arm64"):
        expect(page.get_by_role("link", name=name, exact=True).first).to_be_visible()
    expect(page.get_by_role("link", name="default", exact=True)).to_have_count(0)
    picture("deployments", 920)


def test_a_branch_shows_its_steps_its_progress_and_its_layers(
    stack: Stack, published: Published, page: Page, picture: Picture
) -> None:
    runs = {str(seen.ask(stack, f"/flow_runs/{each}")["name"]): each for each in seen.branches(stack, published.run_id)}
    (branch,) = [each for name, each in runs.items() if "linux/arm64" in name]
    page.goto(_run_page(stack, branch))
    page.get_by_role("tab", name="Task Runs").click()
    for step in ("fetch source", "build", "import", "index", "upload layers", "push"):
        expect(page.get_by_role("tabpanel").get_by_text(f"{step} linux/arm64", exact=True).first).to_be_visible()
    page.get_by_role("tab", name="Artifacts").click()
    expect(page.get_by_text("Upload of linux/arm64").first).to_be_visible()
    _open_artifact(page, "layers-shop-web-linux-arm64")
    (image,) = [each for each in published.publication.platforms if str(each.platform) == "linux/arm64"]
    shown = page.get_by_test_id("markdown-display")
    for layer in image.layers:
        for digest in filter(None, (layer.digest, layer.ztoc)):
            expect(shown.get_by_text(str(digest)).first).to_be_visible()
    expect(shown.get_by_text("too-small: ").first).to_be_visible()
    assert _cut_off(page) == []
    picture("layers", 760)


def test_a_publication_is_started_from_the_form(
    stack: Stack, published: Published, page: Page, picture: Picture
) -> None:
    deployment = seen.ask(stack, f"/deployments/name/{PUBLISH}")["id"]
    page.goto(f"{stack.prefect_ui_url}/v2/deployments/deployment/{deployment}/run")
    image = f"{stack.registry}/shop/from-the-form"
    page.get_by_label("Image", exact=True).fill(image)
    page.get_by_label("Source", exact=True).fill(published.parameters["source"])
    expect(page.get_by_text("The target: registry/repository, without a tag.")).to_be_visible()
    picture("form", 1000)
    page.get_by_label("Prebuilt image (Optional)").fill(published.parameters["prebuilt"])
    page.get_by_role("button", name="Select Builder").click()
    page.get_by_role("option", name="prebuilt").click()
    answer = _submitted(page)
    assert answer.ok, answer.text()
    run = answer.json()
    assert run["parameters"]["image"] == image
    assert run["parameters"]["builder"] == "prebuilt"
    assert run["parameters"]["platforms"] == NAMES

    page.goto(_run_page(stack, run["id"]))
    expect(page.get_by_text(re.compile("^(Running|Completed)$")).first).to_be_visible()
    # What was left empty in the form is as good as absent: the run is not refused.
    assert seen.end_of(stack, run["id"]).is_completed


def _run_page(stack: Stack, run_id: str) -> str:
    return f"{stack.prefect_ui_url}/v2/runs/flow-run/{run_id}"


def _log_of(stack: Stack, run_id: str) -> list[str]:
    """The lines of a failed run; the last ones arrive some seconds after its state."""
    query = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
    lines: list[str] = []
    for _ in range(browser.PATIENCE_SECONDS):
        lines = [str(line["message"]) for line in seen.ask(stack, "/logs/filter", query)]
        if any("Failed with" in line for line in lines):
            time.sleep(3)
            return [str(line["message"]) for line in seen.ask(stack, "/logs/filter", query)]
        time.sleep(1)
    return lines


def _cut_off(page: Page) -> list[str]:
    """The tables and blocks of an artifact that are wider than its part of the page."""
    found: list[str] = page.get_by_test_id("markdown-display").evaluate(
        """shown => [...shown.querySelectorAll("table, pre")]
            .filter(part => part.scrollWidth > part.clientWidth + 1
                || part.getBoundingClientRect().right > shown.getBoundingClientRect().right + 1)
            .map(part => part.innerText.slice(0, 80))"""
    )
    return found


def _submitted(page: Page) -> Response:
    """Submit the form, again where the server is too busy: SQLite locks its database, and the UI asks only once."""
    for _ in range(5):
        with page.expect_response(re.compile("/create_flow_run$")) as answer:
            page.get_by_role("button", name="Submit").click()
        if answer.value.status != 503:
            return answer.value
    pytest.fail("the server stayed too busy")


def _open_artifact(page: Page, key: str) -> None:
    """From the page of a run to its artifact."""
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text(re.compile(f"^{key}")).first.click()
    page.wait_for_url(re.compile("/artifacts/artifact/"))
