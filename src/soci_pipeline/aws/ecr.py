"""Credentials for Amazon ECR: registry host names, login tokens, and the IAM permissions for each operation.

Images themselves are transferred with `soci_pipeline.registry`, as for every other registry. A token of
``ecr:GetAuthorizationToken`` is a user name and a password for 12 hours. It is cached until shortly before it expires
and then requested again on demand, so a build that outlives it can still push.
"""

import base64
import binascii
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pydantic import SecretStr

from soci_pipeline.aws.client import calling, config, session
from soci_pipeline.aws.ecr_actions import DELETE, PULL, PUSH
from soci_pipeline.aws.partition import is_aws_suffix, partition_of
from soci_pipeline.errors import CredentialsRefused, InvalidInput
from soci_pipeline.registry.auth import Credentials

if TYPE_CHECKING:
    import boto3

PUBLIC_REGISTRY = "public.ecr.aws"
LEAST_PART_BYTES = 5 << 20
PART_BYTES = 10 << 20
"""The part size of uploads: ECR takes parts of 5 to 10 MiB, except for the last one."""
_PUBLIC_REGION = "us-east-1"  # the only region in which ecr-public issues tokens
_PRIVATE = re.compile(
    r"(?P<account>[0-9]{12})\."
    r"(?:dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)|dkr-ecr(?:-fips)?\.(?P<dual>[a-z0-9-]+))\.(?P<suffix>[a-z0-9.-]+)\Z"
)
_REFRESH_BEFORE_S = 30 * 60.0
"""How long before its expiry a token is replaced, in seconds: no single upload should take longer."""


@dataclass(frozen=True, slots=True)
class EcrRegistry:
    """The account and region in a registry's host name; the public gallery has no account."""

    host: str
    region: str
    account: str | None

    @classmethod
    def parse(cls, host: str) -> Self | None:
        """Parse ``<account>.dkr.ecr.<region>.amazonaws.com`` (any partition, FIPS, dual-stack) or ``public.ecr.aws``.

        Returns None for other registries. Raises `InvalidInput` for a region under the domain of another partition.
        """
        if host == PUBLIC_REGISTRY:
            return cls(host, _PUBLIC_REGION, None)
        found = _PRIVATE.match(host)
        if found is None or not is_aws_suffix(found["suffix"]):
            return None
        region = found["region"] or found["dual"]
        partition = partition_of(region)
        expected = partition.dns_suffix if found["region"] else partition.dual_stack_suffix
        if found["suffix"] != expected:
            advice = (
                f"Registries there end in {expected}."
                if expected
                else "There are no private registries in that partition."
            )
            raise InvalidInput(f"the region {region} does not belong to {found['suffix']}: {host}", advice=advice)
        return cls(host, region, found["account"])


def permissions(place: EcrRegistry) -> dict[str, str]:
    """Return how to grant ``pull``, ``push`` and ``delete`` in that registry with IAM: an advice sentence for each.

    There is no ``pull`` for the public gallery: every authenticated caller may pull, and IAM has no action for it.
    """
    if place.account is None:
        return {"push": _statement("ecr-public", PUSH), "delete": _statement("ecr-public", DELETE)}
    return {
        "pull": _statement("ecr", PULL),
        "push": _statement("ecr", PUSH),
        "delete": _statement("ecr", DELETE),
    }


def _statement(service: str, names: Sequence[str]) -> str:
    actions = ", ".join(f"{service}:{name}" for name in names)
    return (
        f"Add an IAM statement to the role's policy that allows {actions} on the repository's ARN; "
        "a repository of another account also needs it in its own policy."
    )


@dataclass(frozen=True, slots=True)
class _Token:
    credentials: Credentials
    expires_at: float


class EcrCredentials:
    """Credentials of ECR registries, as a `registry.auth.CredentialProvider`; thread-safe.

    ``aws`` is the session whose credentials are used, None for boto3's default chain. ``endpoint_url`` is for tests and
    VPC endpoints with custom names. ``clock`` returns seconds since the epoch.
    """

    def __init__(
        self,
        aws: "boto3.Session | None" = None,
        *,
        endpoint_url: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._aws = aws
        self._endpoint_url = endpoint_url
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[str, _Token] = {}

    def credentials_for(self, registry: str) -> Credentials | None:
        """Return the user and password of an ECR registry, from a cached or new token; None for other registries.

        Raises `CredentialsRefused`, `AwsUnreachable`, `AwsRefused`, or `ToolMissing` without the ``aws`` extra.
        """
        place = EcrRegistry.parse(registry)
        if place is None:
            return None
        with self._lock:
            token = self._tokens.get(registry)
            if token is None or token.expires_at - _REFRESH_BEFORE_S <= self._clock():
                token = self._tokens[registry] = self._new_token(place)
            return token.credentials

    def forget(self, registry: str) -> None:
        """Drop the cached token after the registry has rejected it, so that the next call requests a new one."""
        with self._lock:
            self._tokens.pop(registry, None)

    def _new_token(self, place: EcrRegistry) -> _Token:
        answer = self._ask(place)
        try:
            user, _, password = base64.b64decode(answer["authorizationToken"], validate=True).decode().partition(":")
            expires_at = answer["expiresAt"].timestamp()
        except (KeyError, AttributeError, binascii.Error, UnicodeDecodeError) as error:
            raise CredentialsRefused(f"ECR returned an invalid token for {place.host}") from error
        # A token that is already expired is used once and not cached (clocks differ; emulators issue such tokens).
        return _Token(Credentials(username=user, password=SecretStr(password)), expires_at)

    def _ask(self, place: EcrRegistry) -> Mapping[str, Any]:
        aws = self._aws or session()
        if place.account is None:
            with calling("ecr-public:GetAuthorizationToken", on=place.host, region=place.region):
                public = aws.client(
                    "ecr-public", region_name=place.region, endpoint_url=self._endpoint_url, config=config()
                )
                return dict(public.get_authorization_token()["authorizationData"])
        with calling("ecr:GetAuthorizationToken", on=place.host, region=place.region):
            private = aws.client("ecr", region_name=place.region, endpoint_url=self._endpoint_url, config=config())
            # The token grants access to every registry that the caller may use, in this or another account.
            return dict(private.get_authorization_token()["authorizationData"][0])
