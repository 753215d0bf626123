"""Branch records through Prefect's API: the way back that every worker has, without a shared disk or a bucket."""

from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterType, FlowRunFilter, FlowRunFilterId
from prefect.runtime import flow_run
from pydantic import ValidationError

from soci_pipeline.errors import BranchFailed
from soci_pipeline.oci.platform import Platform
from soci_pipeline.prefect_rest.runs import RECORD, RESULT
from soci_pipeline.publish.records import PublicationResult
from soci_pipeline.soci.index.records import PlatformImage
from tasks.artifacts import make_artifact
from tasks.outage import patiently


def write_record(image: PlatformImage) -> None:
    """Attach the branch's record to the flow run that this is called in."""
    artifact = ArtifactCreate(
        type=RECORD,
        description=f"The record of {image.platform}, as the join reads it",
        data=image.model_dump_json(),
        flow_run_id=UUID(flow_run.get_id()),
    )
    with get_client(sync_client=True) as client:
        # A second one, where the answer to the first was lost, says the same.
        patiently(lambda: client.create_artifact(artifact))


def _store(*, key: str, **fields: Any) -> None:  # noqa: ARG001 - a key would be shared by all runs
    with get_client(sync_client=True) as client:
        client.create_artifact(ArtifactCreate(**fields))


def write_result(result: PublicationResult) -> None:
    """Attach the publication's result to its flow run, for the command that waits for it; a failure is only logged."""
    make_artifact(
        _store,
        key="result",
        type=RESULT,
        description=f"The result for {result.reference}",
        data=result.model_dump_json(),
        flow_run_id=UUID(flow_run.get_id()),
    )


def read_record(run_id: UUID, platform: Platform) -> PlatformImage:
    """The record of a branch that has completed; raises `BranchFailed` where it left none that can be read."""
    with get_client(sync_client=True) as client:
        found = patiently(
            lambda: client.read_artifacts(
                artifact_filter=ArtifactFilter(type=ArtifactFilterType(any_=[RECORD])),
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])),
            )
        )
    if not found:
        raise BranchFailed(f"{platform}: its flow run completed without a record")
    newest = max(found, key=lambda artifact: artifact.created or 0)
    try:
        return PlatformImage.model_validate_json(str(newest.data))
    except ValidationError as error:
        raise BranchFailed(f"{platform}: its record cannot be read: {error!s:.500}") from error
