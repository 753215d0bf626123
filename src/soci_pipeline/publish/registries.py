"""The registry of a publication: one client with this machine's settings and credentials, and its tag mutability."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from soci_pipeline.aws.ecr import LEAST_PART_BYTES, PART_BYTES, EcrCredentials, EcrRegistry, permissions
from soci_pipeline.aws.lifecycle import ExpiringTags, rules_for_untagged
from soci_pipeline.aws.repository import NewRepository, ensure_repository
from soci_pipeline.log import logger
from soci_pipeline.registry.auth import CredentialChain, CredentialProvider, default_credentials
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.connection import is_plain
from soci_pipeline.registry.errors import AccessRefused, RegistryError, RegistryUnreachable
from soci_pipeline.registry.reference import ImageReference, is_local_registry
from soci_pipeline.registry.settings import ClientSettings
from soci_pipeline.registry.tag_mutability import MutabilityMode, TagMutability
from soci_pipeline.settings import EcrSettings, Settings
from soci_pipeline.urls import host_and_port

if TYPE_CHECKING:
    import boto3


_QUICK = ClientSettings(
    attempts=2, backoff_base=0.5, backoff_cap=0.5, connect_timeout=3.0, read_timeout=10.0, deadline=20.0
)


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a registry, for our client or a program; ``ca_file`` (PEM) is trusted in addition to the system's.

    With ``credentials`` None, a program uses this machine's `docker login`.
    """

    credentials: CredentialProvider | None = None
    plain_http: bool = False
    ca_file: Path | None = None


def connection_to(image: ImageReference, settings: Settings, *, aws: "boto3.Session | None" = None) -> Connection:
    """Return how this machine reaches the registry of ``image``.

    Credentials come from the environment, Docker's configuration, and ECR's tokens. An explicit ``aws`` session for ECR
    takes precedence over the machine's own.
    """
    wanted = settings.registry
    plain = image.registry in wanted.plain_http or is_plain(image.registry, ca_file=wanted.ca_file)
    return Connection(_credentials(image.registry, aws), plain, wanted.ca_file)


def _credentials(registry: str, aws: "boto3.Session | None") -> CredentialProvider:
    if EcrRegistry.parse(registry) is None:
        return default_credentials()
    tokens = EcrCredentials(aws)
    return CredentialChain(default_credentials(), tokens) if aws is None else tokens


def connect(
    image: ImageReference,
    settings: Settings,
    *,
    aws: "boto3.Session | None" = None,
    limits: ClientSettings | None = None,
) -> RegistryClient:
    """Return a client for the registry of ``image`` with this machine's settings and credentials."""
    way, ecr = connection_to(image, settings, aws=aws), EcrRegistry.parse(image.registry)
    return RegistryClient(
        image.registry,
        credentials=way.credentials,
        plain_http=way.plain_http,
        ca_file=way.ca_file,
        settings=limits or _client_settings(settings.registry.part_size, is_ecr=ecr is not None),
        permissions=None if ecr is None else permissions(ecr),
    )


def _client_settings(part_size: int | None, *, is_ecr: bool) -> ClientSettings:
    if is_ecr:
        return ClientSettings(part_size=max(LEAST_PART_BYTES, min(part_size or PART_BYTES, PART_BYTES)))
    return ClientSettings() if part_size is None else ClientSettings(part_size=part_size)


def prepare(image: ImageReference, settings: Settings, *, aws: "boto3.Session | None" = None) -> TagMutability:
    """Return which tags of the repository can move; create a missing ECR repository first if the settings allow it.

    Other registries create repositories with the first push, and have no readable rule for tags.
    """
    place = EcrRegistry.parse(image.registry)
    if place is None or place.account is None:
        return TagMutability()
    create = _new_repository(settings.ecr) if settings.registry.create_repository else None
    found = ensure_repository(image.registry, image.repository, create=create, aws=aws)
    for rule in rules_for_untagged(found.lifecycle) if found.lifecycle else ():
        logger().warning("%s in the lifecycle policy of %s deletes parts of published images", rule, image)
    return found.mutability


def _new_repository(wanted: EcrSettings) -> NewRepository:
    mode = MutabilityMode.IMMUTABLE_WITH_EXCLUSION if wanted.mutable_tags else MutabilityMode.IMMUTABLE
    rule = TagMutability.of(mode, wanted.mutable_tags)
    return NewRepository(
        mutability=TagMutability() if "*" in wanted.mutable_tags else rule,
        scan_on_push=wanted.scan_on_push,
        kms_key=wanted.kms_key,
        expiring=ExpiringTags(wanted.expiring_tags, wanted.expire_after_days) if wanted.expiring_tags else None,
    )


def check_answers(image: ImageReference, settings: Settings) -> None:
    """Check that a registry answers, with one short retry; raise `RegistryUnreachable` with its host and port.

    No credentials are sent. A registry that answers with an error passes: `check_push` retries and reports that.
    """
    way = connection_to(image, settings)
    with RegistryClient(image.registry, plain_http=way.plain_http, ca_file=way.ca_file, settings=_QUICK) as client:
        try:
            client.ping()
        except RegistryUnreachable as error:
            place = host_and_port(error.url)
            raise RegistryUnreachable(
                f"no registry answers at {place}: {error.reason}", url=error.url, advice=_next_step(error)
            ) from error
        except RegistryError as error:
            logger().debug("%s answers: %s", image.registry, error.reason)


def _next_step(error: RegistryUnreachable) -> str | None:
    if error.advice != RegistryUnreachable.default_advice:
        return error.advice
    place = host_and_port(error.url)
    if is_local_registry(place):
        return f"Start a registry on {place} (`soci-pipeline registry serve` starts one), or correct IMAGE."
    return f"Check the host and port of IMAGE, and that this machine can connect to {place}."


def check_push(client: RegistryClient, repository: str) -> None:
    """Check before a build that the registry answers and accepts a push with these credentials; nothing is stored.

    An upload session is opened and cancelled. Raises `AccessRefused`, `RegistryUnreachable` or another `RegistryError`.
    """
    try:
        client.ping()
    except AccessRefused as error:
        # A login may be limited to one repository (403); the upload session shows whether it is enough.
        if error.status != httpx.codes.FORBIDDEN:
            raise
    client.blobs.probe_upload(repository)
