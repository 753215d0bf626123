"""Plans the indexing of an image in a registry: which layers to fetch, and which zTOCs exist already.

A zTOC is reused if it is for the same layer and span size and is in a SOCI index of the image or of another tag. If
such an index has no zTOC for a layer although it has one for a smaller layer, that layer was tried before and cannot be
indexed; it is not fetched again. An image with nothing to fetch or add stays unchanged, byte for byte.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from soci_pipeline.images.graph import ImageNode
from soci_pipeline.images.known_ztocs import Known, listed
from soci_pipeline.images.repository_ztocs import ztocs_of_tag
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.reindex.existing import ExistingImage
from soci_pipeline.soci.index.records import IndexVersion, LayerRecord, SociOptions
from soci_pipeline.soci.reasons import Reason, reason_by_descriptor


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer with its known zTOC or the reason for having none; if both are None, it must be fetched."""

    layer: Descriptor
    ztoc: Descriptor | None = None
    reason: Reason | None = None

    @property
    def fetch(self) -> bool:
        """Whether the layer must be fetched."""
        return self.ztoc is None and self.reason is None

    @property
    def record(self) -> LayerRecord:
        """The layer's record for reports."""
        return LayerRecord(
            digest=self.layer.digest,
            size=self.layer.size,
            media_type=self.layer.media_type,
            ztoc=self.ztoc.digest if self.ztoc else None,
            reason=self.reason,
        )


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """Plan for one image; ``is_done`` means that its v2 index is already complete for these settings."""

    node: ImageNode
    layers: tuple[LayerPlan, ...]
    is_done: bool

    def with_layers(self, found: Mapping[Digest, LayerPlan]) -> "ImagePlan":
        """Return the plan with the results for the layers that had to be fetched."""
        layers = (found.get(each.layer.digest, each) if each.fetch else each for each in self.layers)
        return replace(self, layers=tuple(layers))


def plan_images(image: ExistingImage) -> tuple[ImagePlan, ...]:
    """Plan each image, reusing zTOCs of the image and other tags that are still in the repository."""
    known = _known(image)
    there = {layer: ztoc for layer, ztoc in known.ztocs.items() if image.client.blobs.exists(image.repository, ztoc)}
    usable = Known(there, known.left_out)
    return tuple(plan_image(each, image.settings.soci, usable) for each in image.graph.images)


def _known(image: ExistingImage) -> Known:
    """Return the known zTOCs of the tags to reuse and of the image itself, which takes precedence."""
    soci = image.settings.soci
    known = Known({})
    if soci.reuse_from is not None:
        known |= _known_under(image, soci.reuse_from, level=logging.WARNING)
    if image.new_tag is not None and image.settings.suffix:
        known |= _known_under(image, image.new_tag, level=logging.DEBUG)
    return known | Known.of(image.graph, soci.span_size)


def _known_under(image: ExistingImage, tag: str, *, level: int) -> Known:
    return ztocs_of_tag(image.client, image.repository, tag, image.settings.soci.span_size, level=level)


def plan_image(image: ImageNode, options: SociOptions, known: Known) -> ImagePlan:
    """Plan one image with the zTOCs that are known for the options' span size."""
    own = listed(image, options.span_size, versions=(IndexVersion.V2,))
    layers = tuple(_plan_layer(layer, options, known) for layer in image.manifest.layers)
    wanted = {plan.layer.digest: plan.ztoc.digest for plan in layers if plan.ztoc is not None}
    has = {layer: ztoc.digest for layer, ztoc in own.items()}
    is_done = not any(plan.fetch for plan in layers) and wanted == has
    return ImagePlan(node=image, layers=layers, is_done=is_done)


def to_fetch(plans: Iterable[ImagePlan]) -> dict[Digest, Descriptor]:
    """Return the layers that must be fetched, each once."""
    return {each.layer.digest: each.layer for plan in plans for each in plan.layers if each.fetch}


def _plan_layer(layer: Descriptor, options: SociOptions, known: Known) -> LayerPlan:
    ztoc = known.ztocs.get(layer.digest)
    # If there is a zTOC, its layer was pushed to the repository with it.
    reason = reason_by_descriptor(layer, options.min_layer_size, is_here=ztoc is not None)
    if reason is not None:
        return LayerPlan(layer, reason=reason)
    if ztoc is not None:
        return LayerPlan(layer, ztoc=ztoc)
    # The original reason is not recorded; this is by far the most common one.
    return LayerPlan(layer, reason=Reason.UNSUPPORTED_ENTRY if layer.digest in known.left_out else None)
