"""Deprecated method names, from before the client was split into blobs, manifests, tags and referrers."""

import operator
import warnings
from typing import Any, Final

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.registry.referrers import Referrers

_NEW_NAMES: Final = {
    "head_manifest": "manifests.head",
    "get_manifest": "manifests.get",
    "put_manifest": "manifests.put",
    "delete_manifest": "manifests.delete",
    "delete_tag": "tags.delete",
    "list_tags": "tags.list",
    "has_blob": "blobs.exists",
    "read_blob": "blobs.read",
    "stream_blob": "blobs.stream",
    "read_range": "blobs.read_range",
    "upload_blob": "blobs.upload",
    "upload_bytes": "blobs.upload_bytes",
}


def by_deprecated_name(client: object, name: str) -> Any:
    """Return the method that replaces a deprecated name, with a warning; raise `AttributeError` for any other name."""
    if name not in _NEW_NAMES:
        raise AttributeError(f"{type(client).__name__!r} object has no attribute {name!r}")
    # The warning must name the caller of the client's `__getattr__`, which calls this function.
    _warn(name, _NEW_NAMES[name], level=4)
    return operator.attrgetter(_NEW_NAMES[name])(client)


class CallableReferrers(Referrers):
    """Also accepts the deprecated ``client.referrers(...)``, now ``client.referrers.list(...)``."""

    def __call__(self, repository: str, digest: Digest, artifact_type: str | None = None) -> tuple[Descriptor, ...]:
        """List the referrers, with a warning."""
        _warn("referrers(...)", "referrers.list(...)", level=3)
        return self.list(repository, digest, artifact_type)


def _warn(old: str, new: str, *, level: int) -> None:
    warnings.warn(f"RegistryClient.{old} is deprecated: use RegistryClient.{new}", DeprecationWarning, stacklevel=level)
