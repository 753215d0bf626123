"""SOCI index manifests, v1 and v2, which map the layers of one image to zTOCs.

Both are OCI image manifests, identified by their config media type (soci-snapshotter,
docs/soci-index-manifest-v2.md). v1 refers to its image as `subject`; v2 does not, and is found by an annotation of the
image manifest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from soci_pipeline.oci import canonical_json
from soci_pipeline.oci.annotations import (
    BUILD_TOOL_IDENTIFIER,
    DISABLE_XATTRS,
    IMAGE_LAYER_DIGEST,
    IMAGE_LAYER_MEDIA_TYPE,
    SPAN_SIZE,
)
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.oci.media_types import SOCI_INDEX_V1, SOCI_INDEX_V2, SOCI_LAYER, SOCI_PREFETCH
from soci_pipeline.soci.index.records import IndexVersion, LayerRecord
from soci_pipeline.soci.reasons import Reason
from soci_pipeline.soci.ztoc.codec import Ztoc

CONFIG: Final = b"{}"
CONFIG_TYPES: Final = {IndexVersion.V1: SOCI_INDEX_V1, IndexVersion.V2: SOCI_INDEX_V2}

SpanRange = tuple[int, int]
"""First and last span, both inclusive."""


@dataclass(frozen=True, slots=True)
class IndexedLayer:
    """One layer with its zTOC, or with the reason why it has none.

    ``prefetch`` are the spans to prefetch. ``toc`` is the decoded zTOC, if it is kept.
    """

    layer: Descriptor
    ztoc: Descriptor | None = None
    reason: Reason | None = None
    needs_xattrs: bool = True
    prefetch: tuple[SpanRange, ...] = ()
    toc: Ztoc | None = None

    @property
    def record(self) -> LayerRecord:
        """The serialisable record of this layer."""
        return LayerRecord(
            digest=self.layer.digest,
            size=self.layer.size,
            media_type=self.layer.media_type,
            ztoc=None if self.ztoc is None else self.ztoc.digest,
            reason=self.reason,
        )


def prefetch_document(spans: Sequence[SpanRange]) -> bytes:
    """Encode the list of spans that the snapshotter prefetches; experimental in the reference."""
    ranges = [{"start_span": first, "end_span": last} for first, last in spans]
    return canonical_json.encode({"version": "1.0", "prefetch_spans": ranges})


def soci_index(
    layers: Sequence[IndexedLayer],
    *,
    version: IndexVersion,
    span_size: int,
    build_tool: str,
    disable_xattrs: bool = False,
    subject: Descriptor | None = None,
) -> ImageManifest:
    """Build the SOCI index of an image: the zTOCs in the order of its layers, then the prefetch documents.

    ``disable_xattrs`` annotates layers that do not need extended attributes. ``subject`` is the image manifest, for v1.
    """
    indexed = [layer for layer in layers if layer.ztoc is not None]
    ztocs = [_ztoc(layer, layer.ztoc, span_size, disable_xattrs=disable_xattrs) for layer in indexed if layer.ztoc]
    prefetches = [_prefetch(layer) for layer in indexed if layer.prefetch]
    return ImageManifest(
        config=Descriptor(media_type=CONFIG_TYPES[version], digest=Digest.of(CONFIG), size=len(CONFIG)),
        layers=(*ztocs, *prefetches),
        subject=None if subject is None else subject.plain,
        annotations={BUILD_TOOL_IDENTIFIER: build_tool},
    )


def _ztoc(indexed: IndexedLayer, ztoc: Descriptor, span_size: int, *, disable_xattrs: bool) -> Descriptor:
    annotations = {
        IMAGE_LAYER_DIGEST: str(indexed.layer.digest),
        IMAGE_LAYER_MEDIA_TYPE: indexed.layer.media_type,
        SPAN_SIZE: str(span_size),
    }
    if disable_xattrs and not indexed.needs_xattrs:
        annotations[DISABLE_XATTRS] = "true"
    return Descriptor(media_type=SOCI_LAYER, digest=ztoc.digest, size=ztoc.size, annotations=annotations)


def _prefetch(indexed: IndexedLayer) -> Descriptor:
    data = prefetch_document(indexed.prefetch)
    annotations = {IMAGE_LAYER_DIGEST: str(indexed.layer.digest)}
    return Descriptor(media_type=SOCI_PREFETCH, digest=Digest.of(data), size=len(data), annotations=annotations)
