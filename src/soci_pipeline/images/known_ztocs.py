"""Collect the zTOCs in the SOCI indexes of a repository by layer, and the layers that cannot have one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from soci_pipeline.images.graph import ImageGraph, ImageNode
from soci_pipeline.oci.annotations import IMAGE_LAYER_DIGEST, SPAN_SIZE
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.soci.index.records import IndexVersion


@dataclass(frozen=True, slots=True)
class Known:
    """The zTOCs by layer in SOCI indexes of a repository for one span size, and the layers that cannot have one."""

    ztocs: Mapping[Digest, Descriptor]
    left_out: frozenset[Digest] = frozenset()

    @classmethod
    def of(cls, graph: ImageGraph, span_size: int) -> Self:
        """Collect from the images of a graph, with SOCI indexes of either version."""
        ztocs: dict[Digest, Descriptor] = {}
        left_out: set[Digest] = set()
        for image in graph.images:
            own = listed(image, span_size)
            ztocs |= own
            left_out |= _left_out(image, own)
        return cls(ztocs, frozenset(left_out - ztocs.keys()))

    def __or__(self, other: "Known") -> "Known":
        ztocs = dict(self.ztocs) | dict(other.ztocs)
        return Known(ztocs, frozenset((self.left_out | other.left_out) - ztocs.keys()))


def _left_out(image: ImageNode, own: Mapping[Digest, Descriptor]) -> set[Digest]:
    least = min((layer.size for layer in image.manifest.layers if layer.digest in own), default=None)
    if least is None:
        return set()
    return {layer.digest for layer in image.manifest.layers if layer.size >= least and layer.digest not in own}


def listed(
    image: ImageNode, span_size: int, *, versions: Iterable[IndexVersion] = tuple(IndexVersion)
) -> dict[Digest, Descriptor]:
    """Return the zTOCs of an image's layers for one span size, from its SOCI indexes of the given versions."""
    layers = {str(layer.digest): layer.digest for layer in image.manifest.layers}
    wanted = set(versions)
    return {
        layers[said]: ztoc.plain
        for soci in image.soci_indexes
        if soci.version in wanted
        for ztoc in soci.manifest.layers
        if (said := ztoc.annotations.get(IMAGE_LAYER_DIGEST, "")) in layers
        and ztoc.annotations.get(SPAN_SIZE) == str(span_size)
    }
