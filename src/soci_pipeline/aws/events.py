"""EventBridge events of CodeCommit and ECR as typed records.

Field names and values are those of the services' own events (CodeCommit user guide, "Monitoring events"; ECR user
guide, "Events and EventBridge"). Delivery is best effort, and events are not signed: anyone who may write to the queue
can forge them, so access is controlled by the queue policy.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from soci_pipeline.aws.partition import partition_of
from soci_pipeline.errors import InvalidInput
from soci_pipeline.validation import in_one_line, problems_of

_SHOWN = 5
_ACCOUNT = r"^[0-9]{12}$"
_ECR_NAME = r"^[a-z0-9]+([._/-]+[a-z0-9]+)*$"


class _Fields(BaseModel):
    # Services add fields to their events without notice, so unknown fields are ignored.
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class _Event(_Fields):
    id: str = Field(min_length=1, max_length=100)
    account: str = Field(pattern=_ACCOUNT)
    region: str = Field(max_length=60)
    time: datetime

    @field_validator("region")
    @classmethod
    def _region_is_in_a_partition(cls, region: str) -> str:
        try:
            partition_of(region)
        except InvalidInput as error:
            raise ValueError(error.reason) from error
        return region

    @property
    def dns_suffix(self) -> str:
        """The DNS suffix of the region's partition."""
        return partition_of(self.region).dns_suffix


class CodeCommitDetail(_Fields):
    """The ``detail`` of a repository state change; a deleted reference may have no commit."""

    event: Literal["referenceCreated", "referenceUpdated", "referenceDeleted"]
    repository_name: str = Field(alias="repositoryName", pattern=r"^[\w.-]{1,100}$")
    reference_type: Literal["branch", "tag"] = Field(alias="referenceType")
    reference_name: str = Field(alias="referenceName", min_length=1, max_length=512)
    reference_full_name: str = Field(alias="referenceFullName", min_length=1, max_length=512)
    commit_id: str | None = Field(default=None, alias="commitId")
    old_commit_id: str | None = Field(default=None, alias="oldCommitId")


class CodeCommitEvent(_Event):
    """A branch or tag of a CodeCommit repository was created, moved or deleted."""

    source: Literal["aws.codecommit"]
    detail_type: Literal["CodeCommit Repository State Change"] = Field(alias="detail-type")
    detail: CodeCommitDetail

    @property
    def clone_url(self) -> str:
        """The repository's HTTPS URL, in the form that git's CodeCommit credential helper requires."""
        return f"https://git-codecommit.{self.region}.{self.dns_suffix}/v1/repos/{self.detail.repository_name}"


class EcrPushDetail(_Fields):
    """The ``detail`` of an image action; a manifest pushed by digest has an empty or missing tag."""

    action: Literal["PUSH"] = Field(alias="action-type")
    result: Literal["SUCCESS", "FAILURE"]
    repository_name: str = Field(alias="repository-name", pattern=_ECR_NAME, max_length=256)
    image_digest: str = Field(alias="image-digest", pattern=r"^sha256:[0-9a-f]{64}$")
    image_tag: str = Field(default="", alias="image-tag", pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$")
    manifest_media_type: str = Field(default="", alias="manifest-media-type", max_length=200)
    artifact_media_type: str = Field(default="", alias="artifact-media-type", max_length=200)


class EcrPushEvent(_Event):
    """A manifest was pushed to an ECR repository."""

    source: Literal["aws.ecr"]
    detail_type: Literal["ECR Image Action"] = Field(alias="detail-type")
    detail: EcrPushDetail

    @property
    def repository(self) -> str:
        """The repository with its registry: ``<account>.dkr.ecr.<region>.amazonaws.com/<name>``."""
        return f"{self.account}.dkr.ecr.{self.region}.{self.dns_suffix}/{self.detail.repository_name}"


AwsEvent = Annotated[CodeCommitEvent | EcrPushEvent, Field(discriminator="source")]
_ADAPTER: TypeAdapter[CodeCommitEvent | EcrPushEvent] = TypeAdapter(AwsEvent)


def parse_event(document: bytes | str | Mapping[str, Any]) -> CodeCommitEvent | EcrPushEvent:
    """Parse and validate an EventBridge event; raise `InvalidInput` with the invalid fields."""
    try:
        if isinstance(document, bytes | str):
            return _ADAPTER.validate_json(document)
        return _ADAPTER.validate_python(document)
    except ValidationError as error:
        raise InvalidInput(
            f"not a CodeCommit or ECR event: {in_one_line(problems_of(error)[:_SHOWN], whole='event')}",
            advice="The queue accepts only `CodeCommit Repository State Change` and `ECR Image Action` (PUSH) events.",
        ) from error
