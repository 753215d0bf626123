"""Find the ECR permissions that a role is missing for one repository, without changing anything.

Each action is called such that it can only read or fail: with the digest or upload ID of something nonexistent.
"Access denied" then means a missing permission, and any other error that the call was allowed. Actions that would write
(`PutImage`, `CreateRepository`, …) are never called; they are checked with IAM's policy simulator, if that is allowed.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from soci_pipeline.aws.client import AwsDenied, AwsRefused, AwsUnreachable, aws_call, calling, config, session
from soci_pipeline.aws.ecr import EcrRegistry
from soci_pipeline.aws.identity import Identity
from soci_pipeline.aws.partition import partition_of
from soci_pipeline.oci.digest import Digest

if TYPE_CHECKING:
    import boto3
    from mypy_boto3_ecr.client import ECRClient


@dataclass(frozen=True, slots=True)
class Access:
    """The actions on one repository, sorted: allowed, missing, and those that could not be checked."""

    allowed: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def find_access(
    place: EcrRegistry, repository: str, caller: Identity, actions: Sequence[str], *, aws: "boto3.Session | None" = None
) -> Access:
    """Check ``actions`` (names without ``ecr:``) on a repository; raise the errors of `client.calling`."""
    used = aws or session()
    with calling("ecr:DescribeRepositories", on=place.host, region=place.region):
        client: ECRClient = used.client("ecr", region_name=place.region, config=config())
    harmless = _harmless(client, place.account or "", repository)
    found: dict[str, bool | None] = {}
    for action in dict.fromkeys(actions):
        found[action] = _is_allowed(action, harmless[action], place) if action in harmless else None
    found |= _simulated(used, caller, place, repository, [name for name, answer in found.items() if answer is None])
    return Access(
        allowed=tuple(sorted(name for name, answer in found.items() if answer is True)),
        missing=tuple(sorted(name for name, answer in found.items() if answer is False)),
        unknown=tuple(sorted(name for name, answer in found.items() if answer is None)),
    )


def _harmless(client: "ECRClient", account: str, name: str) -> Mapping[str, Callable[[], object]]:
    """Return a call for each action that only reads, or that refers to something nonexistent."""
    missing_digest = str(Digest.of(uuid.uuid4().bytes))
    upload = str(uuid.uuid4())
    return {
        "GetAuthorizationToken": client.get_authorization_token,
        "DescribeRepositories": lambda: client.describe_repositories(registryId=account, repositoryNames=[name]),
        "GetLifecyclePolicy": lambda: client.get_lifecycle_policy(registryId=account, repositoryName=name),
        "DescribeImages": lambda: client.describe_images(registryId=account, repositoryName=name, maxResults=1),
        "ListImages": lambda: client.list_images(registryId=account, repositoryName=name, maxResults=1),
        "BatchGetImage": lambda: client.batch_get_image(
            registryId=account, repositoryName=name, imageIds=[{"imageDigest": missing_digest}]
        ),
        "BatchCheckLayerAvailability": lambda: client.batch_check_layer_availability(
            registryId=account, repositoryName=name, layerDigests=[missing_digest]
        ),
        "GetDownloadUrlForLayer": lambda: client.get_download_url_for_layer(
            registryId=account, repositoryName=name, layerDigest=missing_digest
        ),
        "UploadLayerPart": lambda: client.upload_layer_part(
            registryId=account,
            repositoryName=name,
            uploadId=upload,
            partFirstByte=0,
            partLastByte=0,
            layerPartBlob=b"0",
        ),
        "CompleteLayerUpload": lambda: client.complete_layer_upload(
            registryId=account, repositoryName=name, uploadId=upload, layerDigests=[missing_digest]
        ),
        "BatchDeleteImage": lambda: client.batch_delete_image(
            registryId=account, repositoryName=name, imageIds=[{"imageDigest": missing_digest}]
        ),
    }


def _is_allowed(action: str, call: Callable[[], object], place: EcrRegistry) -> bool | None:
    try:
        with aws_call(f"ecr:{action}", on=place.host, region=place.region):
            call()
    except AwsRefused as error:
        # A temporary error, or a code that is only a 5xx status, means that the service failed: unknown.
        return None if error.temporary or error.code.startswith("5") else True
    except AwsDenied:
        return False
    return True


def _simulated(
    aws: "boto3.Session", caller: Identity, place: EcrRegistry, repository: str, actions: Sequence[str]
) -> dict[str, bool | None]:
    """Return the IAM simulator's decision on each action for the caller's policies; empty if it cannot be used."""
    if not actions:
        return {}
    partition = partition_of(place.region).name
    resource = f"arn:{partition}:ecr:{place.region}:{place.account}:repository/{repository}"
    try:
        with calling("iam:SimulatePrincipalPolicy", on=caller.policy_source):
            answer = aws.client("iam", region_name=place.region, config=config()).simulate_principal_policy(
                PolicySourceArn=caller.policy_source,
                ActionNames=[f"ecr:{name}" for name in actions],
                ResourceArns=[resource],
            )
    except (AwsDenied, AwsRefused, AwsUnreachable):
        return {}
    decisions = {each["EvalActionName"]: each["EvalDecision"] == "allowed" for each in answer["EvaluationResults"]}
    return {name: decisions.get(f"ecr:{name}") for name in actions}
