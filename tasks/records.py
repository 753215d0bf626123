"""Branch records through Prefect's API, which every worker can reach without a shared disk or a bucket."""

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
from tasks.outage import retry_during_outage


def write_record(image: PlatformImage) -> None:
    """Attach the branch's record to the current flow run."""
    artifact = ArtifactCreate(
        type=RECORD,
        description=f"The record of {image.platform}, as the join reads it",
        data=image.model_dump_json(),
        flow_run_id=UUID(flow_run.get_id()),
    )
    with get_client(sync_client=True) as client:
        # A duplicate, created if the first response was lost, is identical.
        retry_during_outage(lambda: client.create_artifact(artifact))


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
    """Return the record of a completed branch; raise `BranchFailed` if there is none that can be parsed."""
    with get_client(sync_client=True) as client:
        found = retry_during_outage(
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
