"""What runs are called in a list: what they are about, and different from each other."""

from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flows import Flow

from flows.index_image import index_image
from flows.publish_image import publish_image
from flows.verify_image import verify_image
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.request import BranchRequest
from soci_pipeline.registry.reference import ImageReference
from tasks.run_names import branch_name

COMMIT = "c0ffee" + "0" * 34


def name_of(started: Flow[..., Any], **parameters: Any) -> str:
    state: Any = started(**parameters, return_state=True)
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(str(state.state_details.flow_run_id))).name


@pytest.mark.parametrize(
    ("started", "parameters", "start"),
    [
        (
            publish_image,
            {
                "image": "localhost:1/team/app",
                "source": "https://git.example.com/app.git",
                "ref": "v1",
                "platforms": [],
            },
            "team/app from git.example.com/app.git v1 #",
        ),
        (publish_image, {}, "no image from no source"),
        (verify_image, {"reference": "localhost:1/team/app"}, "localhost:1/team/app #"),
        (index_image, {}, "no reference #"),
    ],
)
def test_two_runs_of_one_image_have_different_names(
    started: Flow[..., Any], parameters: dict[str, Any], start: str
) -> None:
    first, second = name_of(started, **parameters), name_of(started, **parameters)
    assert first.startswith(start)
    assert second.startswith(start)
    assert first != second


def test_a_branch_is_named_after_platform_image_and_commit() -> None:
    @flow(flow_run_name=branch_name)
    def branch_flow(branch: BranchRequest) -> str:
        return branch.image.name

    request = BranchRequest(
        image=ImageReference.parse("localhost:1/team/app"),
        platform=Platform("linux", "arm64"),
        source=ResolvedSource(url="https://git.example.com/a.git", ref="refs/heads/main", commit=COMMIT, commit_time=1),
    )
    assert name_of(branch_flow, branch=request).startswith("linux/arm64 team/app c0ffee000000 #")
