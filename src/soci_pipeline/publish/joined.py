"""What the join needs around it: how children are read from a registry, and the annotations that a commit gives."""

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.media_types import IMAGE_INDEXES, IMAGE_MANIFESTS
from soci_pipeline.publish.annotations import SOURCE, commit_annotations
from soci_pipeline.publish.source import ResolvedSource
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import is_loopback


def reader(client: RegistryClient, repository: str) -> Callable[[Descriptor], bytes]:
    """Reads manifests and small blobs of one repository, verified."""

    def read(descriptor: Descriptor) -> bytes:
        if descriptor.media_type in IMAGE_MANIFESTS | IMAGE_INDEXES:
            return client.get_manifest(repository, descriptor.digest)[1]
        return client.read_blob(repository, descriptor)

    return read


def index_annotations(source: ResolvedSource) -> dict[str, str]:
    """The annotations of the image index; an address that means nothing on another machine is left out.

    The local stack serves its source on a port that changes, and the digest must not change with it.
    """
    found = commit_annotations(
        revision=source.commit, source=source.url, committed=datetime.fromtimestamp(source.commit_time, UTC)
    )
    if source.url.startswith(("/", "file:")) or is_loopback(urlsplit(source.url).netloc.rpartition("@")[2]):
        del found[SOURCE]
    return found
