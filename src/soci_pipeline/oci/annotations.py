"""Annotation keys that link the parts of a published image and record its origin.

Sources: soci-snapshotter for SOCI's keys (docs/soci-index-manifest-v2.md), BuildKit for Docker's
(docs/attestations/attestation-storage.md), image-spec for the others (annotations.md, "Pre-Defined Annotation Keys").
"""

from typing import Final

from soci_pipeline.oci.descriptor import Descriptor

SOCI_INDEX_DIGEST: Final = "com.amazon.soci.index-digest"
"""On an image manifest (and its descriptor): the digest of its v2 SOCI index."""

IMAGE_MANIFEST_DIGEST: Final = "com.amazon.soci.image-manifest-digest"
"""On the descriptor of a v2 SOCI index: the digest of its image manifest."""

IMAGE_LAYER_DIGEST: Final = "com.amazon.soci.image-layer-digest"
"""On the descriptor of a zTOC: the digest of its layer."""

IMAGE_LAYER_MEDIA_TYPE: Final = "com.amazon.soci.image-layer-mediaType"
"""On the descriptor of a zTOC: the media type of its layer."""

SPAN_SIZE: Final = "com.amazon.soci.span-size"
"""On the descriptor of a zTOC: the span size in bytes, as a decimal string."""

DISABLE_XATTRS: Final = "com.amazon.soci.disable-xattrs"
"""On the descriptor of a zTOC: ``true`` if a runtime does not need to read extended attributes."""

BUILD_TOOL_IDENTIFIER: Final = "com.amazon.soci.build-tool-identifier"
"""On a SOCI index: the tool that built it."""

REFERENCE_DIGEST: Final = "vnd.docker.reference.digest"
"""On the descriptor of a BuildKit attestation: the digest of the attested image manifest."""

REFERENCE_TYPE: Final = "vnd.docker.reference.type"
"""On the descriptor of a BuildKit attestation: `ATTESTATION_TYPE`."""

ATTESTATION_TYPE: Final = "attestation-manifest"

REVISION: Final = "org.opencontainers.image.revision"
SOURCE: Final = "org.opencontainers.image.source"
CREATED: Final = "org.opencontainers.image.created"

REF_NAME: Final = "org.opencontainers.image.ref.name"
"""On a descriptor in a layout's ``index.json``: the name of the image."""

CONTAINERD_NAME: Final = "io.containerd.image.name"
"""Like `REF_NAME`, but the full reference; `docker save` and `ctr image export` write both."""


def is_attestation(entry: Descriptor) -> bool:
    """Return whether an entry of an image index is a BuildKit attestation."""
    return entry.annotations.get(REFERENCE_TYPE) == ATTESTATION_TYPE
