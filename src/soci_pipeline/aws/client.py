"""The door to AWS: boto3 is imported when it is needed, and its exceptions become errors of this library.

boto3 is an extra (``soci-pipeline[aws]``). Account, region and role are boto3's own business: environment,
shared configuration, or the role of the instance or task.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from soci_pipeline.errors import CredentialsRefused, ExitCode, SociPipelineError, ToolMissing

if TYPE_CHECKING:
    import boto3
    from botocore.config import Config

_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "UnrecognizedClientException",
    }
)
_TEMPORARY = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "LimitExceededException",
        "RequestTimeout",
        "ServerException",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


class AwsRefused(SociPipelineError):
    """AWS answered with an error that is not about permissions; ``code`` is AWS's own name of it."""

    exit_code = ExitCode.REGISTRY_REFUSED

    def __init__(self, reason: str, *, code: str, advice: str | None = None, temporary: bool = False) -> None:
        super().__init__(reason, advice=advice, temporary=temporary)
        self.code = code


class AwsUnreachable(SociPipelineError):
    """No answer from AWS: name resolution, connection or time-out."""

    exit_code = ExitCode.REGISTRY_UNREACHABLE
    default_advice = "Check the region, the network, and the VPC endpoints of the subnet."

    def __init__(self, reason: str) -> None:
        super().__init__(reason, temporary=True)


def session() -> "boto3.Session":
    """A boto3 session of the surrounding credentials; raises `ToolMissing` where the extra is not installed."""
    try:
        import boto3
    except ImportError as error:
        raise ToolMissing(
            "boto3 is not installed, and AWS cannot be spoken to without it",
            advice="Install the extra: pip install 'soci-pipeline[aws]'.",
        ) from error
    return boto3.Session()


def config(*, read_timeout_s: float = 30.0) -> "Config":
    """Settings of every client: standard retries (throttling included), and no wait without an end."""
    from botocore.config import Config

    return Config(
        # The usual variable still counts: an explicit setting would silence it.
        retries={"mode": "standard", "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", "5"))},
        connect_timeout=10,
        read_timeout=read_timeout_s,
        user_agent_extra="soci-pipeline",
    )


@contextlib.contextmanager
def calling(action: str, *, on: str) -> Iterator[None]:
    """Wrap one call: ``action`` is the IAM action (``ecr:CreateRepository``), ``on`` what it was asked for.

    Raises `CredentialsRefused` naming the action, `AwsUnreachable`, or `AwsRefused` with AWS's code.
    """
    from botocore import exceptions

    try:
        yield
    except exceptions.ClientError as error:
        raise _refusal(error.response, action, on) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.TokenRetrievalError) as error:
        raise CredentialsRefused(
            f"no AWS credentials to call {action} on {on}",
            advice="Give the worker a role, or set AWS_PROFILE or the AWS_* variables.",
        ) from error
    except exceptions.NoRegionError as error:
        raise CredentialsRefused(
            f"no AWS region to call {action} on {on}", advice="Set AWS_REGION, or name the region in the configuration."
        ) from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        raise AwsUnreachable(f"{action} on {on}: no answer ({type(error).__name__})") from error


def _refusal(response: object, action: str, on: str) -> SociPipelineError:
    fields = response.get("Error", {}) if isinstance(response, dict) else {}
    code, message = str(fields.get("Code", "Unknown")), str(fields.get("Message", ""))[:300]
    if code in _DENIED:
        return CredentialsRefused(
            f"AWS does not allow {action} on {on} ({code})",
            advice=f"Add {action} for it to the policy of the role; deployments/cloudformation has one that is enough.",
        )
    return AwsRefused(f"{action} on {on}: {code}: {message}", code=code, temporary=code in _TEMPORARY)
