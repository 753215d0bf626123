"""Annotation keys that tie the parts of a published image together, and the ones that say where it came from.

SOCI's keys are those of soci-snapshotter (docs/soci-index-manifest-v2.md), Docker's those of BuildKit
(docs/attestations/attestation-storage.md), the others the image-spec's (annotations.md, "Pre-Defined Annotation Keys").
"""

from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

from soci_pipeline.soci import index as soci

SOCI_INDEX_DIGEST = soci.INDEX_DIGEST
"""On an image manifest (and its descriptor): the digest of its v2 SOCI index."""

IMAGE_MANIFEST_DIGEST = soci.IMAGE_MANIFEST_DIGEST
"""On the descriptor of a v2 SOCI index: the digest of the image manifest that it belongs to."""

IMAGE_LAYER_DIGEST = soci.IMAGE_LAYER_DIGEST
"""On the descriptor of a zTOC: the digest of its layer."""

IMAGE_LAYER_MEDIA_TYPE = soci.IMAGE_LAYER_MEDIA_TYPE
"""On the descriptor of a zTOC: the media type of its layer."""

SPAN_SIZE = soci.SPAN_SIZE
"""On the descriptor of a zTOC: the span size in bytes, as text."""

REFERENCE_DIGEST = "vnd.docker.reference.digest"
"""On the descriptor of a BuildKit attestation: the digest of the image manifest that it speaks of."""

REFERENCE_TYPE = "vnd.docker.reference.type"
"""On the descriptor of a BuildKit attestation: `ATTESTATION_TYPE`."""

ATTESTATION_TYPE = "attestation-manifest"

REVISION = "org.opencontainers.image.revision"
SOURCE = "org.opencontainers.image.source"
CREATED = "org.opencontainers.image.created"


def commit_annotations(*, revision: str, source: str, committed: datetime) -> dict[str, str]:
    """The annotations of an image index built from one commit; nothing in them depends on when it was built.

    ``committed`` is the commit's own time. Credentials in the source's URL are left out.
    """
    moment = committed.astimezone(UTC).replace(microsecond=0)
    return {
        CREATED: moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        REVISION: revision,
        SOURCE: without_credentials(source),
    }


def without_credentials(url: str) -> str:
    """A git URL without user and password; ``git@host:path`` and local paths are left as they are."""
    parts = urlsplit(url)
    if not parts.scheme or "@" not in parts.netloc:
        return url
    user, host = parts.netloc.rsplit("@", 1)
    # ssh's user is part of the address and no secret; a password behind it is one.
    kept = f"{user.split(':', 1)[0]}@{host}" if parts.scheme == "ssh" else host
    return urlunsplit(parts._replace(netloc=kept))
