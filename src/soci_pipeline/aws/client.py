"""The door to AWS: boto3 is imported when it is needed, and its exceptions become errors of this library.

boto3 is an extra (``soci-pipeline[aws]``). Where no session is handed in, account and role are boto3's own business:
environment, shared configuration, or the role of the instance or task.
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
# AWS names the action that failed, which may be another than the one that was called (a key's, for an encrypted thing).
_DENIED_ACTION = re.compile(r"not authorized to perform:? ([a-z0-9-]+:[A-Za-z0-9]+)")
_RENEW = "Renew them: sign in again (aws sso login, a new assumed role), or restart what hands them to this machine."
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
    """AWS answered with an error that is not about permissions; ``code`` is AWS's own name of it."""

    exit_code = ExitCode.REGISTRY_REFUSED

    def __init__(self, reason: str, *, code: str, advice: str | None = None, temporary: bool = False) -> None:
        super().__init__(reason, advice=advice, temporary=temporary)
        self.code = code


class AwsDenied(CredentialsRefused):
    """AWS knows the credentials, and a policy does not allow the action."""


class AwsUnreachable(SociPipelineError):
    """No answer from AWS: name resolution, connection or time-out."""

    exit_code = ExitCode.REGISTRY_UNREACHABLE
    default_advice = "Check the region, the network, and the VPC endpoints of the subnet."

    def __init__(self, reason: str) -> None:
        super().__init__(reason, temporary=True)


def session(profile: str | None = None) -> "boto3.Session":
    """A boto3 session of the surrounding credentials and region; raises what `opening` does.

    The region is boto3's own (``AWS_DEFAULT_REGION``, the profile), or else ``AWS_REGION``, which ECS and Lambda set,
    the other SDKs read, and boto3 alone does not.
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
    """Wrap the making of a session, wherever that is done.

    Raises `ToolMissing` where the extra is not installed, `CredentialsRefused` for a profile that is not there, and
    `InvalidInput` for a configuration of AWS that cannot be read.
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
        import boto3  # noqa: F401 - what comes with it is of no use alone
        from botocore import exceptions
    except ImportError as error:
        raise ToolMissing(
            "boto3 is not installed, and AWS cannot be spoken to without it",
            advice="Install the extra: pip install 'soci-pipeline[aws]'.",
        ) from error
    return exceptions


def config(*, read_timeout_s: float = 30.0) -> "Config":
    """Settings of every client: standard retries (throttling included), and no wait without an end.

    Raises `InvalidInput` for an ``AWS_MAX_ATTEMPTS`` that is no number.
    """
    from botocore.config import Config

    # The usual variable still counts: an explicit setting would silence it.
    attempts = os.environ.get("AWS_MAX_ATTEMPTS") or "5"
    if not re.fullmatch(r"[1-9][0-9]{0,3}", attempts):
        raise InvalidInput(
            f"AWS_MAX_ATTEMPTS is {attempts[:40]!r}, and no number of attempts",
            advice="Set it to 1 or more, or unset it.",
        )
    return Config(
        retries={"mode": "standard", "total_max_attempts": int(attempts)},
        connect_timeout=10,
        read_timeout=read_timeout_s,
        user_agent_extra="soci-pipeline",
    )


def calling(action: str, *, on: str, region: str | None = None) -> AbstractContextManager[None]:
    """Wrap one call: ``action`` is the IAM action (``ecr:CreateRepository``), ``on`` what it was asked for.

    Raises `CredentialsRefused` naming the action, `AwsUnreachable`, `AwsRefused` with AWS's code, or `InvalidInput`
    for a parameter or a profile that cannot be meant, and where nothing answers in a ``region`` without such a service;
    `ToolMissing` where the extra is not installed.
    """
    return _translated(action, on, region)


def trying(action: str, *, on: str, region: str | None = None) -> AbstractContextManager[None]:
    """As `calling`, for an action out of a list (`ecr_actions`) instead of one that the code names itself."""
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
        # Without a cause: its text is the whole page, of a proxy for example.
        raise AwsUnreachable(f"{action} on {on}: the answer is not one of AWS ({type(error).__name__})") from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise CredentialsRefused(
            f"no AWS credentials to call {action} on {on}",
            advice="Give the worker a role, or set AWS_PROFILE or the AWS_* variables.",
        ) from error
    except (
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
        exceptions.CredentialRetrievalError,
        exceptions.MetadataRetrievalError,
    ) as error:
        raise CredentialsRefused(
            f"the AWS credentials to call {action} on {on} cannot be had ({type(error).__name__})", advice=_RENEW
        ) from error
    except exceptions.InvalidConfigError as error:
        # A profile that names another one is followed only when credentials are wanted.
        raise InvalidInput(
            f"AWS's configuration: {error}", advice="Correct the profile in the file, or AWS_PROFILE."
        ) from error
    except exceptions.ParamValidationError as error:
        raise InvalidInput(f"{action} on {on}: {error}") from error
    except (exceptions.NoRegionError, exceptions.InvalidRegionError) as error:
        raise InvalidInput(
            f"no AWS region, or none that can be meant, to call {action}",
            advice="Set AWS_REGION, or a region in the AWS profile.",
        ) from error
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
        service = action.partition(":")[0]
        if region is not None and not _is_known(service, region):
            raise InvalidInput(
                f"nothing answers for {service} in the region {region}, and boto3 knows no such service there",
                advice="Correct the region in the reference or address.",
            ) from error
        raise AwsUnreachable(f"{action} on {on}: no answer ({type(error).__name__})") from error


def _is_known(service: str, region: str) -> bool:
    """Whether the installed boto3 knows the service in that region; a new region may be unknown and answer."""
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
            f"AWS does not know the credentials that called {action} on {on} ({code})",
            advice="Correct them, and the clock of the machine; a region that has to be enabled first refuses so too.",
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
