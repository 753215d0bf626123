"""Access to AWS: imports boto3 only when it is needed, and converts its exceptions to this library's errors.

boto3 is an extra (``soci-pipeline[aws]``). Unless a session is passed in, boto3 finds the credentials: environment,
shared configuration, or the role of the instance or task.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import ModuleType
from typing import TYPE_CHECKING

from soci_pipeline.errors import CredentialsRefused, ExitCode, InvalidInput, SociPipelineError, ToolMissing

if TYPE_CHECKING:
    import boto3
    from botocore.config import Config

_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "NotAuthorized", "UnauthorizedOperation"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_UNKNOWN = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
# AWS names the denied action. It may differ from the called one, such as a KMS action for an encrypted resource.
_DENIED_ACTION = re.compile(r"not authorized to perform:? ([a-z0-9-]+:[A-Za-z0-9]+)")
_RENEW = (
    "Renew them: sign in again (aws sso login, a new assumed role), or restart the service that provides them to this "
    "machine."
)
_TEMPORARY = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "LimitExceededException",
        "RequestTimeout",
        "ServerException",
        "ServiceUnavailable",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


class AwsRefused(SociPipelineError):
    """AWS returned an error other than a permission error; ``code`` is AWS's error code."""

    exit_code = ExitCode.REGISTRY_REFUSED

    def __init__(self, reason: str, *, code: str, advice: str | None = None, temporary: bool = False) -> None:
        super().__init__(reason, advice=advice, temporary=temporary)
        self.code = code


class AwsDenied(CredentialsRefused):
    """The AWS credentials are valid, but a policy does not allow the action."""


class AwsUnreachable(SociPipelineError):
    """No usable response from AWS: name resolution, connection, timeout, or a response that is not from AWS."""

    exit_code = ExitCode.REGISTRY_UNREACHABLE
    default_advice = "Check the region, the network, and the VPC endpoints of the subnet."

    def __init__(self, reason: str) -> None:
        super().__init__(reason, temporary=True)


def session(profile: str | None = None) -> "boto3.Session":
    """Return a boto3 session with the environment's credentials and region; raise the errors of `opening`.

    The region is boto3's own (``AWS_DEFAULT_REGION`` or the profile), else ``AWS_REGION``, which ECS and Lambda set and
    the other SDKs read, but boto3 does not.
    """
    with opening():
        import boto3

        found = boto3.Session(profile_name=profile)
        other = os.environ.get("AWS_REGION")
        if found.region_name is None and other:
            return boto3.Session(profile_name=profile, region_name=other)
    return found


@contextlib.contextmanager
def opening() -> Iterator[None]:
    """Convert the errors of creating a boto3 session in this block.

    Raises `ToolMissing` if the extra is not installed, `CredentialsRefused` for a missing profile, and `InvalidInput`
    for an AWS configuration that cannot be parsed.
    """
    exceptions = _exceptions()
    try:
        yield
    except exceptions.ProfileNotFound as error:
        raise CredentialsRefused(
            f"no AWS credentials: {error}",
            advice="Correct AWS_PROFILE, or add the profile to AWS's configuration (aws configure --profile NAME).",
        ) from error
    except exceptions.ConfigParseError as error:
        raise InvalidInput(f"AWS's configuration: {error}", advice="Correct the file, or AWS_CONFIG_FILE.") from error


def _exceptions() -> ModuleType:
    try:
        import boto3  # noqa: F401 - botocore without boto3 is not enough
        from botocore import exceptions
    except ImportError as error:
        raise ToolMissing(
            "boto3 is not installed; it is required for AWS",
            advice="Install the extra: pip install 'soci-pipeline[aws]'.",
        ) from error
    return exceptions


def config(*, read_timeout_s: float = 30.0) -> "Config":
    """Return the settings of every client: standard retries (including throttling) and finite timeouts.

    Raises `InvalidInput` if ``AWS_MAX_ATTEMPTS`` is not a valid number.
    """
    from botocore.config import Config

    # Read the variable here, because an explicit setting overrides it.
    attempts = os.environ.get("AWS_MAX_ATTEMPTS") or "5"
    if not re.fullmatch(r"[1-9][0-9]{0,3}", attempts):
        raise InvalidInput(
            f"AWS_MAX_ATTEMPTS must be a positive integer, not {attempts[:40]!r}",
            advice="Set it to 1 or more, or unset it.",
        )
    return Config(
        retries={"mode": "standard", "total_max_attempts": int(attempts)},
        connect_timeout=10,
        read_timeout=read_timeout_s,
        user_agent_extra="soci-pipeline",
    )


def calling(action: str, *, on: str, region: str | None = None) -> AbstractContextManager[None]:
    """Wrap one call: ``action`` is the IAM action (``ecr:CreateRepository``), ``on`` is the resource.

    Raises `CredentialsRefused` naming the action, `AwsUnreachable`, `AwsRefused` with AWS's error code, `InvalidInput`
    for an invalid parameter, profile or region, or if nothing answers in a ``region`` without such a service; and
    `ToolMissing` if the extra is not installed.
    """
    return _translated(action, on, region)


def aws_call(action: str, *, on: str, region: str | None = None) -> AbstractContextManager[None]:
    """Like `calling`, for an action taken from a list (`ecr_actions`) instead of a literal in the code."""
    return _translated(action, on, region)


@contextlib.contextmanager
def _translated(action: str, on: str, region: str | None) -> Iterator[None]:
    exceptions = _exceptions()
    from botocore.parsers import ResponseParserError

    try:
        yield
    except exceptions.ClientError as error:
        raise _refusal(error.response, action, on) from error
    except ResponseParserError as error:
        # `from None`: its message is the whole response, such as the error page of a proxy.
        raise AwsUnreachable(f"{action} on {on}: the response is not valid for AWS ({type(error).__name__})") from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise CredentialsRefused(
            f"no AWS credentials found for {action} on {on}",
            advice="Give the worker a role, or set AWS_PROFILE or the AWS_* variables.",
        ) from error
    except (
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
        exceptions.CredentialRetrievalError,
        exceptions.MetadataRetrievalError,
    ) as error:
        raise CredentialsRefused(
            f"cannot get the AWS credentials for {action} on {on} ({type(error).__name__})", advice=_RENEW
        ) from error
    except exceptions.InvalidConfigError as error:
        # boto3 resolves a profile's source profile only when credentials are needed.
        raise InvalidInput(
            f"AWS's configuration: {error}", advice="Correct the profile in the file, or AWS_PROFILE."
        ) from error
    except exceptions.ParamValidationError as error:
        raise InvalidInput(f"{action} on {on}: {error}") from error
    except (exceptions.NoRegionError, exceptions.InvalidRegionError) as error:
        raise InvalidInput(
            f"no valid AWS region is set for {action}",
            advice="Set AWS_REGION, or a region in the AWS profile.",
        ) from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        service = action.partition(":")[0]
        if region is not None and not _is_known(service, region):
            raise InvalidInput(
                f"{service} does not answer in the region {region}, and boto3 does not know it there",
                advice="Correct the region in the reference or URL.",
            ) from error
        raise AwsUnreachable(f"{action} on {on}: no answer ({type(error).__name__})") from error


def _is_known(service: str, region: str) -> bool:
    """Whether the installed boto3 knows the service in that region; it may not know a new region that works."""
    import botocore.session

    known = botocore.session.get_session()
    return any(region in known.get_available_regions(service, name) for name in known.get_available_partitions())


def _refusal(response: object, action: str, on: str) -> SociPipelineError:
    fields = response.get("Error", {}) if isinstance(response, dict) else {}
    code, message = str(fields.get("Code", "Unknown")), str(fields.get("Message", ""))[:500]
    if code in _EXPIRED:
        return CredentialsRefused(f"the AWS credentials to call {action} on {on} have expired ({code})", advice=_RENEW)
    if code in _UNKNOWN:
        return CredentialsRefused(
            f"AWS does not recognise the credentials used for {action} on {on} ({code})",
            advice="Correct them and the clock of the machine; a region that is not enabled for the account "
            "gives the same error.",
        )
    if code in _DENIED:
        found = _DENIED_ACTION.search(message)
        missing = found[1] if found else action
        return AwsDenied(
            f"AWS does not allow {missing} on {on} ({code})",
            advice=f"Add {missing} for it to the policy of the role (the project's CloudFormation templates have the "
            "least that is enough); what belongs to another account needs it in its own policy too.",
        )
    return AwsRefused(f"{action} on {on}: {code}: {message}", code=code, temporary=code in _TEMPORARY)
