"""A nightly publication in the local stack: a night without a change publishes nothing, and says so."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from local_stack.prebuilt_images import served
from local_stack.stack import PLATFORMS, Stack
from soci_pipeline.archive.write import write_archive
from soci_pipeline.cli import main
from soci_pipeline.errors import ExitCode
from soci_pipeline.prefect_rest.client import PrefectApi
from soci_pipeline.registry.client import RegistryClient
from tests.support import publications as seen
from tests.support.images import Layer, gzip_layer, image_layout

REPOSITORY = "nightly/shop"
APPLICATION = gzip_layer({"app/main": b"print()\n"})


@pytest.fixture
def archives(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address and the folder of what a build would make."""
    folder = tmp_path / "archives"
    folder.mkdir()
    with served(folder) as address:
        yield address, folder


def built(folder: Path, base: bytes) -> None:
    """Write what a build on some base image makes."""
    layers: list[Layer] = [gzip_layer({"etc/base": base}), APPLICATION]
    for platform in PLATFORMS:
        layout = image_layout(folder / "layout", platform, layers)
        write_archive(layout, folder / f"{platform.slug}.tar")
        shutil.rmtree(folder / "layout")


def test_only_a_night_that_changed_something_publishes(
    stack: Stack, archives: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = archives
    tree = tmp_path / "tree"
    tree.mkdir()

    publication = {
        "name": "shop-nightly",
        "image": f"{stack.registry}/{REPOSITORY}",
        "source": "https://git.example.com/acme/shop.git",
        "tags": ["nightly-{date}", "nightly"],
        "pull": True,
        "unless_same_as": "nightly",
        "builder": "prebuilt",
        "prebuilt": f"{address}/{{platform}}.tar",
        "soci": {"min_layer_size": 0},
        "schedule": {"cron": "17 3 * * *", "active": False},
        "concurrency": {"limit": 1, "when_busy": "skip"},
    }
    file = tmp_path / "publications.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "owner": "nightly", "publications": [publication]}))
    monkeypatch.setenv("PREFECT_API_URL", stack.prefect_api_url)
    assert main(["setup", "--publications", str(file)]) == ExitCode.OK

    def night(number: int, base: bytes) -> tuple[str, set[str]]:
        built(folder, base)
        (tree / "README").write_text(f"night {number}\n")
        source = stack.git.serve_snapshot(tree, "nightly")
        parameters: dict[str, Any] = {
            "source": source.url,
            "ref": source.commit,
            # The rest is what the publication says; all of this happens in one night.
            "tags": [f"nightly-{number}", "nightly"],
        }
        with PrefectApi(stack.prefect_api_url) as api:
            run_id = api.create_run("publish-image/shop-nightly", parameters)
        assert seen.end_of(stack, run_id).is_completed
        with RegistryClient(stack.registry) as client:
            return run_id, set(client.tags.list(REPOSITORY))

    assert night(1, b"12.1")[1] == {"nightly", "nightly-1"}
    unchanged, tags = night(2, b"12.1")
    assert tags == {"nightly", "nightly-1"}
    artifacts = seen.ask(stack, "/artifacts/filter", {"flow_runs": {"id": {"any_": [unchanged]}}})
    assert any("# Unchanged" in str(each["data"]) for each in artifacts)
    assert night(3, b"12.2")[1] == {"nightly", "nightly-1", "nightly-3"}
