"""What indexing an image that is in a registry comes to: which layers are fetched, which zTOCs are known already.

Known is a zTOC of the same layer and span size in the image's own SOCI index, or in that of another tag. A layer that
such an index leaves out although a smaller one is in it was tried before and cannot be indexed; it is not fetched
again. An image for which nothing is to be fetched or added stays as it is, byte for byte.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from soci_pipeline.images.graph import ImageNode
from soci_pipeline.images.known_ztocs import Known, listed
from soci_pipeline.images.repository_ztocs import known_under
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.reindex.existing import ExistingImage
from soci_pipeline.soci.index.records import IndexVersion, LayerRecord, SociOptions
from soci_pipeline.soci.reasons import Reason, reason_by_descriptor


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer: its known zTOC, or why it gets none; neither means that it has to be fetched."""

    layer: Descriptor
    ztoc: Descriptor | None = None
    reason: Reason | None = None

    @property
    def fetch(self) -> bool:
        """Whether only the layer itself can say more."""
        return self.ztoc is None and self.reason is None

    @property
    def record(self) -> LayerRecord:
        """The layer as others are told of it."""
        return LayerRecord(
            digest=self.layer.digest,
            size=self.layer.size,
            media_type=self.layer.media_type,
            ztoc=self.ztoc.digest if self.ztoc else None,
            reason=self.reason,
        )


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """One image; ``is_done`` where its own v2 index says all that there is to say with these settings."""

    node: ImageNode
    layers: tuple[LayerPlan, ...]
    is_done: bool

    def with_layers(self, found: Mapping[Digest, LayerPlan]) -> "ImagePlan":
        """The same plan with what was found out about the layers that had to be fetched."""
        layers = (found.get(each.layer.digest, each) if each.fetch else each for each in self.layers)
        return replace(self, layers=tuple(layers))


def plan_images(image: ExistingImage) -> tuple[ImagePlan, ...]:
    """What is to be done for each image, with the zTOCs that other tags have and that are still in the repository."""
    known = _known(image)
    there = {layer: ztoc for layer, ztoc in known.ztocs.items() if image.client.blobs.exists(image.repository, ztoc)}
    usable = Known(there, known.left_out)
    return tuple(plan_image(each, image.settings.soci, usable) for each in image.graph.images)


def _known(image: ExistingImage) -> Known:
    """What the tags that are read again know; the image itself comes last, and counts most."""
    soci = image.settings.soci
    known = Known({})
    if soci.reuse_from is not None:
        known |= _known_under(image, soci.reuse_from, level=logging.WARNING)
    if image.new_tag is not None and image.settings.suffix:
        known |= _known_under(image, image.new_tag, level=logging.DEBUG)
    return known | Known.of(image.graph, soci.span_size)


def _known_under(image: ExistingImage, tag: str, *, level: int) -> Known:
    return known_under(image.client, image.repository, tag, image.settings.soci.span_size, level=level)


def plan_image(image: ImageNode, options: SociOptions, known: Known) -> ImagePlan:
    """Decide for each layer, by what the repository knows for the options' span size."""
    own = listed(image, options.span_size, versions=(IndexVersion.V2,))
    layers = tuple(_plan_layer(layer, options, known) for layer in image.manifest.layers)
    wanted = {plan.layer.digest: plan.ztoc.digest for plan in layers if plan.ztoc is not None}
    has = {layer: ztoc.digest for layer, ztoc in own.items()}
    is_done = not any(plan.fetch for plan in layers) and wanted == has
    return ImagePlan(node=image, layers=layers, is_done=is_done)


def to_fetch(plans: Iterable[ImagePlan]) -> dict[Digest, Descriptor]:
    """The layers that have to be fetched, each once."""
    return {each.layer.digest: each.layer for plan in plans for each in plan.layers if each.fetch}


def _plan_layer(layer: Descriptor, options: SociOptions, known: Known) -> LayerPlan:
    ztoc = known.ztocs.get(layer.digest)
    # Who made the zTOC had the layer, and brought it to the repository with it.
    reason = reason_by_descriptor(layer, options.min_layer_size, is_here=ztoc is not None)
    if reason is not None:
        return LayerPlan(layer, reason=reason)
    if ztoc is not None:
        return LayerPlan(layer, ztoc=ztoc)
    # Which of the reasons it was is not recorded anywhere; this is by far the most common.
    return LayerPlan(layer, reason=Reason.UNSUPPORTED_ENTRY if layer.digest in known.left_out else None)
