"""Annotation keys that tie the parts of a published image together, and the ones that say where it came from.

SOCI's keys are those of soci-snapshotter (docs/soci-index-manifest-v2.md), Docker's those of BuildKit
(docs/attestations/attestation-storage.md), the others the image-spec's (annotations.md, "Pre-Defined Annotation Keys").
"""

from typing import Final

from soci_pipeline.oci.descriptor import Descriptor

SOCI_INDEX_DIGEST: Final = "com.amazon.soci.index-digest"
"""On an image manifest (and its descriptor): the digest of its v2 SOCI index."""

IMAGE_MANIFEST_DIGEST: Final = "com.amazon.soci.image-manifest-digest"
"""On the descriptor of a v2 SOCI index: the digest of the image manifest that it belongs to."""

IMAGE_LAYER_DIGEST: Final = "com.amazon.soci.image-layer-digest"
"""On the descriptor of a zTOC: the digest of its layer."""

IMAGE_LAYER_MEDIA_TYPE: Final = "com.amazon.soci.image-layer-mediaType"
"""On the descriptor of a zTOC: the media type of its layer."""

SPAN_SIZE: Final = "com.amazon.soci.span-size"
"""On the descriptor of a zTOC: the span size in bytes, as text."""

DISABLE_XATTRS: Final = "com.amazon.soci.disable-xattrs"
"""On the descriptor of a zTOC: ``true`` where a runtime need not look at extended attributes."""

BUILD_TOOL_IDENTIFIER: Final = "com.amazon.soci.build-tool-identifier"
"""On a SOCI index: what made it."""

REFERENCE_DIGEST: Final = "vnd.docker.reference.digest"
"""On the descriptor of a BuildKit attestation: the digest of the image manifest that it speaks of."""

REFERENCE_TYPE: Final = "vnd.docker.reference.type"
"""On the descriptor of a BuildKit attestation: `ATTESTATION_TYPE`."""

ATTESTATION_TYPE: Final = "attestation-manifest"

REVISION: Final = "org.opencontainers.image.revision"
SOURCE: Final = "org.opencontainers.image.source"
CREATED: Final = "org.opencontainers.image.created"

REF_NAME: Final = "org.opencontainers.image.ref.name"
"""On a descriptor of a layout's ``index.json``: what the image is called there."""

CONTAINERD_NAME: Final = "io.containerd.image.name"
"""As `REF_NAME`, the whole reference; `docker save` and `ctr image export` write both."""


def is_attestation(entry: Descriptor) -> bool:
    """Whether an entry of an image index is a BuildKit attestation."""
    return entry.annotations.get(REFERENCE_TYPE) == ATTESTATION_TYPE
