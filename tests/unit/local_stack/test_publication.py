"""A publication followed to its end, against a server that answers as Prefect does and a registry of its own."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from local_stack import publication
from local_stack.git_server import GitServer
from local_stack.publication import publish
from local_stack.stack import Stack
from soci_pipeline.errors import BranchFailed, StackError
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.records import PlatformImage
from tests.support.images import AMD64, ARM64, image_layout
from tests.support.published import tag
from tests.support.webhook import Recorded, loopback

DEPLOYMENT, RUN, AMD_RUN, ARM_RUN = (str(UUID(int=number)) for number in range(1, 5))
REPOSITORY = "demo/app"


@dataclass
class Prefect:
    """A run that is in each of ``states`` for one look; its branches' logs and records."""

    states: list[tuple[str, str]]
    records: list[str]
    logs: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    asked_for: Any = None

    def answer(self, request: Recorded) -> tuple[int, Any]:
        path = request.path
        if path == "/deployments/name/publish-image/publish":
            return 200, {"id": DEPLOYMENT}
        if path == f"/deployments/{DEPLOYMENT}/create_flow_run":
            self.asked_for = request.body["parameters"]
            return 201, {"id": RUN}
        if path == f"/flow_runs/{RUN}":
            kind, message = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return 200, {"state_type": kind, "state": {"message": message}}
        if path == "/flow_runs/filter":
            return 200, [{"id": AMD_RUN, "name": "linux/amd64 x"}, {"id": ARM_RUN, "name": "linux/arm64 x"}]
        if path == "/artifacts/filter":
            return 200, [{"data": text} for text in self.records]
        if path == "/logs/filter":
            lines = self.logs.get(request.body["logs"]["flow_run_id"]["any_"][0], [])
            return 200, [{"level": level, "message": text} for level, text in lines[request.body["offset"] :]]
        return 404, {"detail": path}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "_LOOK_SECONDS", 0.01)


@pytest.fixture
def image(tmp_path: Path, client: RegistryClient) -> Layout:
    """What the run has published, under one tag."""
    layout = image_layout(tmp_path / "image", AMD64)
    tag(client, layout, layout.root(), "one", repository=REPOSITORY)
    return layout


BUILDKIT = [
    (20, f"#5 sha256:{'1a' * 32} 8.39MB / 21.72MB 0.2s"),
    (20, "#5 ..."),
    (20, f"#5 sha256:{'1a' * 32} done"),
]


def _record(layout: Layout, platform: Platform) -> str:
    return PlatformImage(platform=platform, manifest=layout.root()).model_dump_json()


def _publish(prefect: Prefect, client: RegistryClient, folder: Path) -> publication.Publication:
    with loopback(prefect.answer) as url:
        stack = Stack(
            folder=folder,
            prefect_api_url=url,
            prefect_ui_url="http://ui",
            registry=client.registry,
            docker_host=None,
            git=GitServer(folder, 0, {}),
            workers={},
            env={},
        )
        return publish(stack, REPOSITORY, {"ref": "main"})


def test_what_was_published_is_read_from_the_registry_and_from_the_branches(
    tmp_path: Path, client: RegistryClient, image: Layout
) -> None:
    records = [_record(image, ARM64), _record(image, AMD64)]
    prefect = Prefect([("SCHEDULED", ""), ("RUNNING", ""), ("COMPLETED", "")], records)
    made = _publish(prefect, client, tmp_path)
    assert prefect.asked_for == {"image": f"{client.registry}/{REPOSITORY}", "ref": "main"}
    assert made.reference == f"{client.registry}/{REPOSITORY}:one"
    assert (made.index, made.tags) == (image.root().digest, ("one",))
    assert [record.platform for record in made.platforms] == [AMD64, ARM64]
    assert made.run_url == f"http://ui/runs/flow-run/{RUN}"


def test_every_line_of_the_run_and_its_branches_is_shown_once_without_what_prefect_and_buildkit_always_say(
    tmp_path: Path, client: RegistryClient, image: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    logs = {
        RUN: [(20, "resolved main to 1234"), (20, "Finished in state Completed()")],
        AMD_RUN: [(20, "Worker 'soci-amd64-local' took it"), (30, "a layer is too small"), *BUILDKIT],
        ARM_RUN: [(20, "pushed the image")],
    }
    prefect = Prefect([("RUNNING", ""), ("RUNNING", ""), ("COMPLETED", "")], [_record(image, AMD64)], logs)
    with caplog.at_level(logging.INFO):
        _publish(prefect, client, tmp_path)
    shown = [(each.levelno, each.getMessage()) for each in caplog.records if each.getMessage().startswith("  ")]
    assert shown == [
        (20, "  publish      resolved main to 1234"),
        (30, "  linux/amd64  a layer is too small"),
        (20, f"  linux/amd64  {BUILDKIT[-1][1]}"),
        (20, "  linux/arm64  pushed the image"),
    ]


@pytest.mark.parametrize("kind", ["FAILED", "CRASHED", "CANCELLED"])
def test_a_run_that_does_not_complete_ends_with_its_message(
    tmp_path: Path, client: RegistryClient, image: Layout, kind: str
) -> None:
    with pytest.raises(BranchFailed, match=f"the flow run ended as {kind}: linux/arm64: no space left"):
        _publish(Prefect([(kind, "linux/arm64: no space left")], []), client, tmp_path)


def test_a_repository_with_two_tagged_images_does_not_tell_what_was_published(
    tmp_path: Path, client: RegistryClient
) -> None:
    layout = image_layout(tmp_path / "image", AMD64)
    tag(client, layout, layout.root(), "one", repository=REPOSITORY)
    other = image_layout(tmp_path / "other", ARM64)
    tag(client, other, other.root(), "two", repository=REPOSITORY)
    with pytest.raises(StackError, match="has 2 tagged images instead of one"):
        _publish(Prefect([("COMPLETED", "")], []), client, tmp_path)


def test_a_branch_whose_record_cannot_be_read_is_no_success(
    tmp_path: Path, client: RegistryClient, image: Layout
) -> None:
    with pytest.raises(StackError, match="cannot read the record of a branch:"):
        _publish(Prefect([("COMPLETED", "")], ['{"platform": "linux/amd64"}']), client, tmp_path)
