"""The receiver in the local stack: a signed push ends in a verified tag, once, also where Prefect was down."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from local_stack.prebuilt_images import served
from local_stack.stack import PLATFORMS, Stack
from soci_pipeline.archive.write import write_archive
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.verification.verify import verify
from soci_pipeline.webhook.service import serving
from tests.support import webhook as support
from tests.support.images import image_layout
from tests.support.switch import Switch
from tests.support.webhook import Recorded, loopback, runs_of, send, stored_run, until

LOCAL = {"allow_loopback_hosts": True}
"""The stack's git server is on loopback."""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image a platform, as archives over HTTP: nothing has to be built."""
    folder = tmp_path_factory.mktemp("archives")
    for platform in PLATFORMS:
        layout = image_layout(folder / platform.slug, platform)
        write_archive(layout, folder / f"{platform.slug}.tar")
        shutil.rmtree(folder / platform.slug)
    with served(folder) as address:
        yield address


class Shop:
    """A source that the stack serves, the rule that publishes it, and the pushes that ask for it."""

    def __init__(self, stack: Stack, archives: str, folder: Path, name: str) -> None:
        tree = folder / "tree"
        tree.mkdir()
        (tree / "README").write_text(f"{name}\n")
        self.source = stack.git.serve_snapshot(tree, name)
        self.repository = f"webhook/{name}"
        self.rule = support.rule(
            parameters={
                "image": f"{stack.registry}/{self.repository}",
                "source": "${clone_url}",
                "ref": "${commit}",
                "tags": ["{short_sha}"],
                "builder": "prebuilt",
                "prebuilt": f"{archives}/{{platform}}.tar",
                "soci": {"min_layer_size": 0},
            }
        )

    def push(self) -> dict[str, Any]:
        repository = {"full_name": "team/shop", "clone_url": self.source.url}
        commit = self.source.commit
        return support.github_push(repository=repository, after=commit, head_commit={"id": commit})

    def check(self, stack: Stack) -> None:
        """The tag is there, alone, and what it names can be read through to the last byte."""
        tag = self.source.commit[:12]
        with RegistryClient(stack.registry) as client:
            assert client.tags.list(self.repository) == (tag,)
            report = verify(client, self.repository, tag, mode="all", platforms=PLATFORMS)
        assert report.ok, report.findings


def test_a_signed_push_starts_a_publish_that_ends_with_a_verified_tag(
    stack: Stack, archives: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_TOKEN", "a token for the fake forge")
    shop = Shop(stack, archives, tmp_path, "pushed")
    statuses: list[Recorded] = []

    def forge(request: Recorded) -> tuple[int, Any]:
        statuses.append(request)
        return 201, {}

    with loopback(forge) as forge_url:
        source = support.document(tmp_path)["sources"][0]
        source["status"] = {"token": {"env": "FORGE_TOKEN"}, "api_url": forge_url}
        prefect = {"api_url": stack.prefect_api_url, "ui_url": stack.prefect_ui_url, "poll_outcomes_every_s": 0.5}
        configuration = support.configuration(tmp_path, sources=[source], rules=[shop.rule], prefect=prefect, **LOCAL)
        with serving(configuration) as (address, service):
            key = send(address, shop.push())["runs"][0]["key"]
            until(lambda: stored_run(service, key).outcome in {"COMPLETED", "FAILED", "CRASHED"}, seconds=240)
            assert stored_run(service, key).outcome == "COMPLETED"
            assert send(address, shop.push(), delivery="2")["status"] == "duplicate"
            until(lambda: bool(statuses) and statuses[-1].body["state"] == "success", seconds=20)
    assert statuses[0].body["state"] == "pending"
    assert statuses[-1].path == f"/repos/team/shop/statuses/{shop.source.commit}"
    shop.check(stack)


def test_prefect_was_down_while_the_event_came_and_it_is_published_once_when_it_is_back(
    stack: Stack, archives: str, tmp_path: Path
) -> None:
    shop = Shop(stack, archives, tmp_path, "late")
    with Switch(int(urlsplit(stack.prefect_api_url).port or 0)) as switch:
        prefect = {"api_url": f"http://127.0.0.1:{switch.port}/api", "poll_outcomes_every_s": 0.5, "timeout_s": 5}
        configuration = support.configuration(tmp_path, rules=[shop.rule], prefect=prefect, **LOCAL)
        with serving(configuration) as (address, service):
            key = send(address, shop.push())["runs"][0]["key"]
            until(lambda: stored_run(service, key).attempts >= 2, seconds=30)
            assert send(address, shop.push(), delivery="2")["status"] == "duplicate"
            switch.on()
            until(lambda: stored_run(service, key).outcome in {"COMPLETED", "FAILED", "CRASHED"}, seconds=240)
    assert len(runs_of(stack.prefect_api_url, key)) == 1
    shop.check(stack)
