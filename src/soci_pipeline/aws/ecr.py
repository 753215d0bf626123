"""Amazon ECR's control plane: login tokens, repositories, and whether their tags may move.

Images themselves go through `soci_pipeline.registry` as with every other registry. A token of
``ecr:GetAuthorizationToken`` is a user name and a password for twelve hours; it is kept until shortly before its end
and asked for again on demand, so that a build which outlives it can still push.
"""

import base64
import binascii
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import SecretStr

from soci_pipeline.aws.client import AwsRefused, calling, config, session
from soci_pipeline.errors import CredentialsRefused, InvalidInput
from soci_pipeline.registry.auth import Credentials
from soci_pipeline.registry.tag_mutability import TagMutability

if TYPE_CHECKING:
    from mypy_boto3_ecr.client import ECRClient

PUBLIC_REGISTRY = "public.ecr.aws"
_PUBLIC_REGION = "us-east-1"  # the only region in which ecr-public hands out tokens
_PRIVATE = re.compile(
    r"(?P<account>[0-9]{12})\."
    r"(?:dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?"
    r"|dkr-ecr(?:-fips)?\.(?P<dual>[a-z0-9-]+)\.on\.(?:aws|amazonwebservices\.com\.cn))\Z"
)
_REFRESH_BEFORE_S = 30 * 60.0
"""A token is replaced this long before its end: no single upload should outlive what is left of it."""


@dataclass(frozen=True, slots=True)
class EcrRegistry:
    """The account and region that a registry's host name says; the public gallery has no account."""

    host: str
    region: str
    account: str | None

    @classmethod
    def parse(cls, host: str) -> Self | None:
        """Read ``<account>.dkr.ecr.<region>.amazonaws.com[.cn]`` (FIPS and dual-stack too) or ``public.ecr.aws``.

        None for every other registry.
        """
        if host == PUBLIC_REGISTRY:
            return cls(host, _PUBLIC_REGION, None)
        found = _PRIVATE.match(host)
        if found is None:
            return None
        return cls(host, found["region"] or found["dual"], found["account"])


@dataclass(frozen=True, slots=True)
class _Token:
    credentials: Credentials
    expires_at: float


class EcrCredentials:
    """Credentials of ECR registries, as a `registry.auth.CredentialProvider`; thread-safe.

    ``endpoint_url`` is for tests and VPC endpoints with a name of their own. ``clock`` gives seconds since the epoch.
    """

    def __init__(self, *, endpoint_url: str | None = None, clock: Callable[[], float] = time.time) -> None:
        self._endpoint_url = endpoint_url
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[str, _Token] = {}

    def credentials_for(self, registry: str) -> Credentials | None:
        """The user and password of an ECR registry, from the kept token or a new one; None for other registries.

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
        """Drop the kept token, so that the next call asks for a new one: the registry has refused this one."""
        with self._lock:
            self._tokens.pop(registry, None)

    def _new_token(self, place: EcrRegistry) -> _Token:
        answer = self._ask(place)
        try:
            user, _, password = base64.b64decode(answer["authorizationToken"], validate=True).decode().partition(":")
            expires_at = answer["expiresAt"].timestamp()
        except (KeyError, AttributeError, binascii.Error, UnicodeDecodeError) as error:
            raise CredentialsRefused(f"ECR's token for {place.host} is not one") from error
        # A token that is said to be over already is used once and never kept (clocks differ; emulators make such).
        return _Token(Credentials(username=user, password=SecretStr(password)), expires_at)

    def _ask(self, place: EcrRegistry) -> Mapping[str, Any]:
        if place.account is None:
            public = session().client(
                "ecr-public", region_name=place.region, endpoint_url=self._endpoint_url, config=config()
            )
            with calling("ecr-public:GetAuthorizationToken", on=place.host):
                return dict(public.get_authorization_token()["authorizationData"])
        private = _client(place.region, self._endpoint_url)
        with calling("ecr:GetAuthorizationToken", on=place.host):
            # The token is the caller's own and opens every registry that its role may reach, this account's or not.
            return dict(private.get_authorization_token()["authorizationData"][0])


@dataclass(frozen=True, slots=True)
class EcrRepository:
    """What matters about a repository: its address, and the rule of its tags (see `tag_mutability`)."""

    uri: str
    arn: str
    created: bool
    mutability: TagMutability


def ensure_repository(
    registry: str,
    repository: str,
    *,
    create: bool = False,
    mutability: Literal["MUTABLE", "IMMUTABLE"] = "IMMUTABLE",
    scan_on_push: bool = True,
    endpoint_url: str | None = None,
) -> EcrRepository:
    """Look a repository up, and make it if it is missing and ``create`` is true; safe to run twice or at once.

    Raises `InvalidInput` if it is missing (or the registry is not ECR), and the errors of `aws.client.calling`.
    """
    place = _private(registry)
    client = _client(place.region, endpoint_url)
    found = _describe(client, place, repository)
    if found is not None:
        return _repository(found, created=False)
    if not create:
        raise InvalidInput(
            f"the repository {repository!r} does not exist in {registry}",
            advice="Make it with deployments/cloudformation, or let the pipeline create it.",
        )
    try:
        with calling("ecr:CreateRepository", on=f"{registry}/{repository}"):
            made = client.create_repository(
                registryId=place.account or "",
                repositoryName=repository,
                imageTagMutability=mutability,
                imageScanningConfiguration={"scanOnPush": scan_on_push},
            )
    except AwsRefused as error:
        if error.code != "RepositoryAlreadyExistsException":
            raise
        found = _describe(client, place, repository)  # another run was faster
        if found is None:
            raise
        return _repository(found, created=False)
    return _repository(made["repository"], created=True)


def tag_mutability(registry: str, repository: str, *, endpoint_url: str | None = None) -> TagMutability:
    """Read a repository's rule for its tags; raises `InvalidInput` if the repository does not exist."""
    return ensure_repository(registry, repository, create=False, endpoint_url=endpoint_url).mutability


def _private(registry: str) -> EcrRegistry:
    place = EcrRegistry.parse(registry)
    if place is None or place.account is None:
        raise InvalidInput(
            f"{registry!r} is not a private ECR registry",
            advice="It is written <account>.dkr.ecr.<region>.amazonaws.com.",
        )
    return place


def _client(region: str, endpoint_url: str | None) -> "ECRClient":
    return session().client("ecr", region_name=region, endpoint_url=endpoint_url, config=config())


def _describe(client: "ECRClient", place: EcrRegistry, repository: str) -> Mapping[str, Any] | None:
    try:
        with calling("ecr:DescribeRepositories", on=f"{place.host}/{repository}"):
            answer = client.describe_repositories(registryId=place.account or "", repositoryNames=[repository])
    except AwsRefused as error:
        if error.code == "RepositoryNotFoundException":
            return None
        raise
    return dict(answer["repositories"][0])


def _repository(fields: Mapping[str, Any], *, created: bool) -> EcrRepository:
    filters = fields.get("imageTagMutabilityExclusionFilters") or ()
    return EcrRepository(
        uri=str(fields["repositoryUri"]),
        arn=str(fields["repositoryArn"]),
        created=created,
        mutability=TagMutability.of(
            str(fields.get("imageTagMutability", "MUTABLE")), (str(item["filter"]) for item in filters)
        ),
    )
