"""The registry of a publication: one client with this machine's settings and credentials, and the rule of its tags."""

import os
from typing import BinaryIO

from soci_pipeline.aws.ecr import EcrCredentials, EcrRegistry, ensure_repository
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.auth import CredentialChain, CredentialProvider, default_credentials
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.registry.tag_mutability import TagMutability
from soci_pipeline.settings import Settings


def credentials_for(image: ImageReference) -> CredentialProvider:
    """What this machine has for the registry of an image: environment, Docker's configuration, and ECR's tokens."""
    providers = [default_credentials()]
    if EcrRegistry.parse(image.registry) is not None:
        providers.append(EcrCredentials())
    return CredentialChain(*providers)


def connect(image: ImageReference, settings: Settings) -> RegistryClient:
    """A client for the registry of ``image``, with this machine's settings and credentials."""
    return RegistryClient(
        image.registry,
        credentials=credentials_for(image),
        plain_http=True if image.registry in settings.registry.plain_http else None,
        ca_file=settings.registry.ca_file,
    )


def prepare(image: ImageReference, settings: Settings) -> TagMutability:
    """Which tags of the repository may move; a missing repository of ECR is made first where the settings say so.

    Other registries make repositories on the first push, and have no rule for tags that could be asked for.
    """
    place = EcrRegistry.parse(image.registry)
    if place is None or place.account is None:
        return TagMutability()
    create = settings.registry.create_repository
    return ensure_repository(image.registry, image.repository, create=create).mutability


class _OnlyAsked(Exception):
    """The session is open, which is all that was to be known."""


def check_push(client: RegistryClient, repository: str) -> None:
    """Find out before a build whether the registry answers and lets these credentials push; nothing is stored.

    An upload session for a blob that does not exist is opened and given up. Raises `AccessRefused`,
    `RegistryUnreachable` or another `RegistryError`.
    """
    nonce = os.urandom(32)
    blob = Descriptor(media_type="application/octet-stream", digest=Digest.of(nonce), size=len(nonce))

    def give_up() -> BinaryIO:
        raise _OnlyAsked

    client.ping()
    try:
        client.upload_blob(repository, blob, give_up)
    except _OnlyAsked:
        return
