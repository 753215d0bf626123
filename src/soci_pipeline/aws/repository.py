"""Look up ECR repositories, and create missing ones on request, configured for image indexes and their parts.

The registry may belong to another account if its policy allows the caller: account and region are parsed from its host
name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from soci_pipeline.aws.client import AwsRefused, calling, config, session
from soci_pipeline.aws.ecr import EcrRegistry
from soci_pipeline.aws.lifecycle import ExpiringTags, lifecycle_policy
from soci_pipeline.errors import InvalidInput
from soci_pipeline.registry.tag_mutability import MutabilityMode, TagMutability

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_ecr.client import ECRClient
    from mypy_boto3_ecr.type_defs import CreateRepositoryRequestTypeDef, EncryptionConfigurationTypeDef


@dataclass(frozen=True, slots=True)
class Repository:
    """The relevant properties of a repository: URI, ARN, tag mutability, and lifecycle policy (JSON) if it has one."""

    uri: str
    arn: str
    created: bool
    mutability: TagMutability
    lifecycle: str | None


_FIXED = TagMutability(mode=MutabilityMode.IMMUTABLE)


@dataclass(frozen=True, slots=True)
class NewRepository:
    """The settings with which a missing repository is created.

    ``kms_key`` is a key's ARN, or ``aws/ecr`` for the key managed by AWS; None encrypts with AES-256. Only the tag
    mutability, scanning and lifecycle settings can be changed later.
    """

    mutability: TagMutability = _FIXED
    scan_on_push: bool = True
    kms_key: str | None = None
    expiring: ExpiringTags | None = None


def ensure_repository(
    registry: str,
    repository: str,
    *,
    create: NewRepository | None = None,
    aws: "boto3.Session | None" = None,
    endpoint_url: str | None = None,
) -> Repository:
    """Look a repository up; create it if it is missing and ``create`` is given. Idempotent and safe to run in parallel.

    ``aws`` is the session whose credentials are used, None for boto3's default chain. Raises `InvalidInput` if the
    repository is missing (or the registry is not a private ECR registry), and the errors of `aws.client.calling`.
    """
    place = private_registry(registry)
    with calling("ecr:DescribeRepositories", on=f"{registry}/{repository}", region=place.region):
        client: ECRClient = (aws or session()).client(
            "ecr", region_name=place.region, endpoint_url=endpoint_url, config=config()
        )
    calls = _Calls(client, place, repository)
    found = calls.describe()
    if found is None and create is None:
        raise InvalidInput(
            f"the repository {repository!r} does not exist in {registry}",
            advice="Create it with the project's CloudFormation templates, or let the pipeline create it "
            "(SOCI_PIPELINE_REGISTRY_CREATE_REPOSITORY=true).",
        )
    made = calls.create(create) if found is None and create is not None else None
    fields = made or found or calls.describe()
    if fields is None:
        raise InvalidInput(
            f"the repository {repository!r} of {registry} was deleted in the meantime", advice="Try again."
        )
    lifecycle = calls.lifecycle()
    if lifecycle is None and create is not None and create.expiring is not None:
        lifecycle = calls.expire(create.expiring)
    return _repository(fields, created=made is not None, lifecycle=lifecycle)


@dataclass(frozen=True, slots=True)
class _Calls:
    client: "ECRClient"
    place: EcrRegistry
    name: str

    @property
    def where(self) -> str:
        return f"{self.place.host}/{self.name}"

    @property
    def account(self) -> str:
        return self.place.account or ""

    def describe(self) -> Mapping[str, Any] | None:
        try:
            with calling("ecr:DescribeRepositories", on=self.where, region=self.place.region):
                answer = self.client.describe_repositories(registryId=self.account, repositoryNames=[self.name])
        except AwsRefused as error:
            if error.code == "RepositoryNotFoundException":
                return None
            raise
        return dict(answer["repositories"][0])

    def create(self, new: NewRepository) -> Mapping[str, Any] | None:
        """Create the repository and return its fields; None if it was created concurrently."""
        wanted: CreateRepositoryRequestTypeDef = {
            "registryId": self.account,
            "repositoryName": self.name,
            "imageTagMutability": new.mutability.mode.value,
            "imageScanningConfiguration": {"scanOnPush": new.scan_on_push},
            "encryptionConfiguration": _encryption(new.kms_key),
        }
        if new.mutability.filters:
            filters = new.mutability.filters
            wanted["imageTagMutabilityExclusionFilters"] = [
                {"filterType": "WILDCARD", "filter": each} for each in filters
            ]
        try:
            with calling("ecr:CreateRepository", on=self.where):
                answer = self.client.create_repository(**wanted)
        except AwsRefused as error:
            if error.code == "RepositoryAlreadyExistsException":
                return None
            raise
        return dict(answer["repository"])

    def lifecycle(self) -> str | None:
        try:
            with calling("ecr:GetLifecyclePolicy", on=self.where):
                answer = self.client.get_lifecycle_policy(registryId=self.account, repositoryName=self.name)
        except AwsRefused as error:
            if error.code == "LifecyclePolicyNotFoundException":
                return None
            raise
        return answer["lifecyclePolicyText"]

    def expire(self, tags: ExpiringTags) -> str:
        policy = lifecycle_policy(tags)
        with calling("ecr:PutLifecyclePolicy", on=self.where):
            self.client.put_lifecycle_policy(
                registryId=self.account, repositoryName=self.name, lifecyclePolicyText=policy
            )
        return policy


def _encryption(kms_key: str | None) -> "EncryptionConfigurationTypeDef":
    if kms_key is None:
        return {"encryptionType": "AES256"}
    return {"encryptionType": "KMS"} if kms_key == "aws/ecr" else {"encryptionType": "KMS", "kmsKey": kms_key}


def private_registry(registry: str) -> EcrRegistry:
    """Parse a registry's host name; raise `InvalidInput` if it is not a private ECR registry."""
    place = EcrRegistry.parse(registry)
    if place is None or place.account is None:
        raise InvalidInput(
            f"{registry!r} is not a private ECR registry",
            advice="The format is <account>.dkr.ecr.<region>.amazonaws.com.",
        )
    return place


def _repository(fields: Mapping[str, Any], *, created: bool, lifecycle: str | None) -> Repository:
    filters = fields.get("imageTagMutabilityExclusionFilters") or ()
    return Repository(
        uri=str(fields["repositoryUri"]),
        arn=str(fields["repositoryArn"]),
        created=created,
        mutability=TagMutability.of(
            str(fields.get("imageTagMutability", "MUTABLE")), (str(item["filter"]) for item in filters)
        ),
        lifecycle=lifecycle,
    )
