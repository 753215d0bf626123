"""Records of an indexed image, for users and other machines: digests and reasons, but no blobs.

All records are immutable and can be serialised as JSON.
"""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.platform import Platform
from soci_pipeline.soci.gzip.span_size import DEFAULT_SPAN_SIZE, LARGEST_SPAN_SIZE
from soci_pipeline.soci.reasons import Reason
from soci_pipeline.validation import Parameters


class IndexVersion(StrEnum):
    """v1: a referrer of the image manifest. v2: an entry of the image index, found by the manifest's annotation."""

    V1 = "v1"
    V2 = "v2"


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SociOptions(Parameters):
    """Options for indexing layers; the defaults of the sizes are those of the reference.

    ``span_size`` is in bytes of the uncompressed layer, ``min_layer_size`` in bytes of the stored layer.
    """

    version: IndexVersion = Field(
        default=IndexVersion.V2,
        title="Index version",
        description="v2: bound to the image through its image index. v1: a referrer, for runtimes before SOCI 0.10.",
    )
    span_size: int = Field(
        default=DEFAULT_SPAN_SIZE,
        ge=1,
        le=LARGEST_SPAN_SIZE,
        title="Span size",
        description="Bytes between checkpoints of a layer, uncompressed.",
    )
    min_layer_size: int = Field(
        default=10 << 20, ge=0, title="Smallest layer", description="Smaller layers are not indexed and pulled whole."
    )
    reuse_from: str | None = Field(
        default=None,
        title="Reuse from",
        description="A tag of the same repository whose zTOCs are reused. Empty: the first fixed tag.",
        examples=["latest"],
    )


class LayerRecord(Record):
    """One layer of an image: its zTOC, or the reason why it has none."""

    digest: Digest
    size: int
    media_type: str
    ztoc: Digest | None = None
    reason: Reason | None = None


class PlatformImage(Record):
    """The image that one branch has published, by digest.

    ``manifest`` and ``soci_index`` are the descriptors for the joined image index, with platform and annotations; a v1
    SOCI index is a referrer and not listed there. ``timings`` are in seconds, by step.
    """

    platform: Platform
    manifest: Descriptor
    soci_index: Descriptor | None = None
    soci_version: IndexVersion = IndexVersion.V2
    attestations: tuple[Descriptor, ...] = ()
    layers: tuple[LayerRecord, ...] = ()
    timings: dict[str, float] = Field(default_factory=dict)
    bytes_uploaded: int = 0
    bytes_skipped: int = 0

    def digests(self) -> dict[str, Any]:
        """Return the platform and the digests of manifest and SOCI index (None without one), for JSON output."""
        return {
            "platform": str(self.platform),
            "manifest": str(self.manifest.digest),
            "soci_index": str(self.soci_index.digest) if self.soci_index else None,
        }

    def summary(self) -> dict[str, Any]:
        """Return the digests, and the digest, size, zTOC and reason of each layer."""
        layers = [layer.model_dump(mode="json", exclude={"media_type"}) for layer in self.layers]
        return self.digests() | {"layers": layers}
