"""Bytes to fetch before a container can start: with lazy loading through the SOCI index, and with a full pull.

Lazy loading fetches, for one platform: the image index, the image's manifest and config, the SOCI index with its
config, the zTOCs, and every layer without a zTOC. Spans are not counted, because they are fetched when the running
container first reads a file in them. A full pull fetches the image index, the manifest, the config and every layer.
"""

from pydantic import BaseModel, ConfigDict

from soci_pipeline.images.graph import ImageGraph, ImageNode
from soci_pipeline.oci.annotations import IMAGE_LAYER_DIGEST
from soci_pipeline.oci.platform import Platform


class PlatformCost(BaseModel):
    """Bytes to fetch for one platform before a container starts, with lazy loading and with a full pull."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    platform: Platform
    lazy_bytes: int
    total_bytes: int


def lazy_costs(graph: ImageGraph) -> tuple[PlatformCost, ...]:
    """Return the cost of each platform, in the order of the images."""
    above = graph.root.size if graph.index is not None else 0
    return tuple(_cost(image, above) for image in graph.images)


def _cost(image: ImageNode, above: int) -> PlatformCost:
    small = above + image.descriptor.size + image.manifest.config.size
    layers = {layer.digest: layer.size for layer in image.manifest.layers}
    soci = image.soci_indexes[0] if image.soci_indexes else None
    if soci is None:
        indexed, index_size = set[str](), 0
    else:
        indexed = {ztoc.annotations.get(IMAGE_LAYER_DIGEST, "") for ztoc in soci.manifest.layers}
        index_size = soci.descriptor.size + soci.manifest.config.size
        index_size += sum({ztoc.digest: ztoc.size for ztoc in soci.manifest.layers}.values())
    whole = sum(size for digest, size in layers.items() if digest not in indexed)
    return PlatformCost(
        platform=image.platform,
        lazy_bytes=small + index_size + whole,
        total_bytes=small + sum(layers.values()),
    )
