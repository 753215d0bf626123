"""What deletes manifests and tags from a registry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from soci_pipeline.log import logger
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import ManifestUnknown, RegistryError


class Remover(Protocol):
    """What deletes: the distribution API (`OneByOne`), or the registry's own (`aws.ecr_images.EcrImages`)."""

    def delete_manifests(self, repository: str, digests: Sequence[Digest]) -> Mapping[Digest, str]:
        """Delete manifests, none a part of another, with their tags; those that are gone already are fine.

        Returns those that had to stay, with the reason.
        """

    def delete_tag(self, repository: str, tag: str) -> None:
        """Take a tag off a manifest that stays; a `RegistryError` of status 405 says that it cannot be done."""


@dataclass(frozen=True, slots=True)
class OneByOne:
    """Deletes by the distribution API."""

    client: RegistryClient

    def delete_manifests(self, repository: str, digests: Sequence[Digest]) -> Mapping[Digest, str]:
        """One request a manifest."""
        for digest in digests:
            try:
                self.client.manifests.delete(repository, digest)
            except ManifestUnknown as error:
                # A registry that deletes nothing may answer 404, too.
                if self.client.manifests.head(repository, digest) is not None:
                    raise RegistryError(error.reason, code="UNSUPPORTED", status=405, url=error.url) from error
                logger().debug("%s is gone already", digest)
        return {}

    def delete_tag(self, repository: str, tag: str) -> None:
        """One request."""
        self.client.tags.delete(repository, tag)
