"""Media types that this project reads or writes, and the compression of each layer type.

Sources: OCI image-spec (media-types.md), Docker image manifest v2.2, soci-snapshotter (docs/soci-index-manifest-v2.md).
"""

from enum import StrEnum

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"

DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_FOREIGN_LAYER_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

SOCI_INDEX_V1 = "application/vnd.amazon.soci.index.v1+json"
SOCI_INDEX_V2 = "application/vnd.amazon.soci.index.v2+json"
SOCI_LAYER = "application/octet-stream"
SOCI_PREFETCH = "application/vnd.amazon.soci.prefetch.v1+json"

BUILDKIT_CACHE = "application/vnd.buildkit.cacheconfig.v0"
"""The config of a build cache, in an image manifest or, as written by older releases, in an index."""

IN_TOTO = "application/vnd.in-toto+json"

IMAGE_MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
IMAGE_INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
# Requests always accept all four types: ECR answers "not found" for a manifest whose type is not accepted.
MANIFESTS = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)


class Compression(StrEnum):
    """Compression of a layer, according to its media type."""

    GZIP = "gzip"
    NONE = "none"
    ZSTD = "zstd"
    UNKNOWN = "unknown"


GZIP_MAGIC = b"\x1f\x8b"
"""The first bytes of a gzip stream (RFC 1952, section 2.3.1)."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""The first bytes of a zstd frame (RFC 8878, section 3.1.1)."""


_COMPRESSIONS = {
    OCI_LAYER: Compression.NONE,
    OCI_LAYER_GZIP: Compression.GZIP,
    OCI_LAYER_ZSTD: Compression.ZSTD,
    DOCKER_LAYER: Compression.NONE,
    DOCKER_LAYER_GZIP: Compression.GZIP,
    DOCKER_LAYER_ZSTD: Compression.ZSTD,
}


def layer_compression(media_type: str) -> Compression:
    """Return the compression that a layer's media type states; ``UNKNOWN`` for foreign and other types."""
    return _COMPRESSIONS.get(media_type, Compression.UNKNOWN)


def is_foreign_layer(media_type: str) -> bool:
    """Return whether registries do not store such a layer (non-distributable layers, Windows base layers)."""
    return media_type == DOCKER_FOREIGN_LAYER_GZIP or ".nondistributable." in media_type
