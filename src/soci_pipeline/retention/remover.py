"""Deletion of manifests and tags from a registry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from soci_pipeline.log import logger
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import ManifestUnknown, RegistryError


class Remover(Protocol):
    """Deletes with the distribution API (`OneByOne`) or the registry's own API (`aws.ecr_images.EcrImages`)."""

    def delete_manifests(self, repository: str, digests: Sequence[Digest]) -> Mapping[Digest, str]:
        """Delete manifests with their tags; none may be a part of another, and missing ones are ignored.

        Returns those that could not be deleted, with the reason.
        """

    def delete_tag(self, repository: str, tag: str) -> None:
        """Delete a tag but not its manifest; raise `RegistryError` with status 405 if this is not supported."""


@dataclass(frozen=True, slots=True)
class OneByOne:
    """Deletes with the distribution API."""

    client: RegistryClient

    def delete_manifests(self, repository: str, digests: Sequence[Digest]) -> Mapping[Digest, str]:
        """Delete manifests with one request each; raise `RegistryError` with status 405 if deletion has no effect."""
        for digest in digests:
            try:
                self.client.manifests.delete(repository, digest)
            except ManifestUnknown as error:
                # A registry that does not support deletion may also return 404.
                if self.client.manifests.head(repository, digest) is not None:
                    raise RegistryError(error.reason, code="UNSUPPORTED", status=405, url=error.url) from error
                logger().debug("%s is already deleted", digest)
        return {}

    def delete_tag(self, repository: str, tag: str) -> None:
        """Delete a tag."""
        self.client.tags.delete(repository, tag)
