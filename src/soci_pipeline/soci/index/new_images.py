"""Write the new documents of a conversion: SOCI indexes, image manifests that refer to them, and the image index.

Every step returns an immutable record. Only `make` and the functions that it calls write to the target layout.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from soci_pipeline.oci.annotations import IMAGE_MANIFEST_DIGEST, REFERENCE_DIGEST, SOCI_INDEX_DIGEST, is_attestation
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import (
    DOCKER_CONFIG,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    SOCI_INDEX_V1,
    SOCI_INDEX_V2,
    SOCI_PREFETCH,
)
from soci_pipeline.soci.index.attestations import follow_all
from soci_pipeline.soci.index.document import CONFIG, CONFIG_TYPES, IndexedLayer, prefetch_document, soci_index
from soci_pipeline.soci.index.layers import LayerKey, layer_key
from soci_pipeline.soci.index.prefetch import prefetch_spans
from soci_pipeline.soci.index.records import IndexVersion, PlatformImage, SociOptions
from soci_pipeline.soci.index.source_images import SourceImage, SourceLayout, in_requested_order


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything except the source that determines the bytes of the new documents."""

    options: SociOptions
    build_tool: str
    disable_xattrs: bool
    prefetch_files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """The source of a conversion and its options."""

    source: SourceLayout
    recipe: Recipe

    @property
    def layers(self) -> list[Descriptor]:
        """The layers of all chosen images, which are indexed."""
        return [layer for image in self.source.images if image.chosen for layer in image.manifest.layers]


@dataclass(frozen=True, slots=True)
class Made:
    """The result: the image index, a record of each chosen image, and the paths that will be prefetched."""

    root: Descriptor
    images: tuple[PlatformImage, ...]
    prefetched: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Indexed:
    """The indexed layers of a chosen image, and its SOCI index, which is None if no layer has a zTOC."""

    layers: tuple[IndexedLayer, ...]
    document: ImageManifest | None
    prefetched: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Written:
    """The new descriptors of an image and its SOCI index."""

    manifest: Descriptor
    soci_index: Descriptor | None


def make(plan: ConversionPlan, layers: Mapping[LayerKey, IndexedLayer], target: Layout) -> Made:
    """Write the SOCI indexes of the chosen images and all documents that change because of them."""
    source, recipe = plan.source, plan.recipe
    chosen = in_requested_order(source.images)
    indexed = {image.descriptor.digest: _index(recipe, image, layers) for image in chosen}
    for each in indexed.values():
        _write_blobs(recipe, each, target)
    if recipe.options.version is IndexVersion.V1:
        index, written = source.index, [_write_v1(image, indexed, target) for image in chosen]
    else:
        index, by_digest = _write_v2(source, indexed, target)
        written = [by_digest[image.descriptor.digest] for image in chosen]
    return Made(
        root=_root(source, index, target).plain,
        images=tuple(
            _record(recipe, image, indexed[image.descriptor.digest], each, index)
            for image, each in zip(chosen, written, strict=True)
        ),
        prefetched=frozenset[str]().union(*(each.prefetched for each in indexed.values())),
    )


def _index(recipe: Recipe, image: SourceImage, found: Mapping[LayerKey, IndexedLayer]) -> _Indexed:
    """Build the SOCI index of one image without writing anything."""
    # Descriptors of the same layer may differ between images; use those of this manifest for the record.
    layers = tuple(replace(found[layer_key(layer)], layer=layer) for layer in image.manifest.layers)
    if not any(layer.ztoc for layer in layers):
        return _Indexed(layers, None, frozenset())
    files = frozenset[str]()
    if recipe.prefetch_files:
        # Which layer has the topmost copy of a path depends on the image.
        prefetch = prefetch_spans([layer.toc for layer in layers], recipe.prefetch_files)
        layers = tuple(replace(layer, prefetch=each) for layer, each in zip(layers, prefetch.spans, strict=True))
        files = prefetch.files
    version = recipe.options.version
    document = soci_index(
        layers,
        version=version,
        span_size=recipe.options.span_size,
        build_tool=recipe.build_tool,
        disable_xattrs=recipe.disable_xattrs,
        subject=image.descriptor if version is IndexVersion.V1 else None,
    )
    return _Indexed(layers, document, files)


def _write_blobs(recipe: Recipe, indexed: _Indexed, target: Layout) -> None:
    """Write the blobs that a SOCI index refers to, except for its zTOCs, which already exist."""
    if indexed.document is None:
        return
    target.add_bytes(CONFIG, CONFIG_TYPES[recipe.options.version])
    for layer in indexed.layers:
        if layer.prefetch:
            target.add_bytes(prefetch_document(layer.prefetch), SOCI_PREFETCH)


def _write_v1(image: SourceImage, indexed: Mapping[Digest, _Indexed], target: Layout) -> _Written:
    document = indexed[image.descriptor.digest].document
    if document is None:
        return _Written(image.descriptor, None)
    stored = target.add_document(document)
    return _Written(image.descriptor, stored.annotated(artifact_type=SOCI_INDEX_V1, platform=image.platform))


def _write_v2(
    source: SourceLayout, indexed: Mapping[Digest, _Indexed], target: Layout
) -> tuple[ImageIndex, dict[Digest, _Written]]:
    """Return the new image index, and the new descriptors of each image by its digest in the source."""
    documents = {digest: each.document for digest, each in indexed.items() if each.document is not None}
    written = {
        image.descriptor.digest: _rewrite(
            image, documents.get(image.descriptor.digest), target, indexed=bool(documents)
        )
        for image in source.images
    }
    children = _children(source, written, target)
    return source.index if children == source.index.manifests else source.index.replaced(manifests=children), written


def _rewrite(image: SourceImage, document: ImageManifest | None, target: Layout, *, indexed: bool) -> _Written:
    """Write an image manifest and its SOCI index.

    If any image is indexed, all manifests are rewritten with OCI media types, as in the reference, so that an image
    index never mixes Docker and OCI types; a manifest that is already in that form keeps its digest.
    """
    manifest, old = image.manifest, image.descriptor
    annotations = dict(manifest.annotations)
    if image.chosen:
        annotations.pop(SOCI_INDEX_DIGEST, None)
    if document is not None:
        annotations[SOCI_INDEX_DIGEST] = str(document.descriptor.digest)
    config_type = OCI_CONFIG if manifest.config.media_type == DOCKER_CONFIG else manifest.config.media_type
    new = manifest.replaced(
        media_type=OCI_MANIFEST, config=manifest.config.annotated(media_type=config_type), annotations=annotations
    )
    if not indexed and new == manifest:
        return _Written(old, None)
    stored = target.add_document(new)
    own = {key: value for key, value in old.annotations.items() if key != SOCI_INDEX_DIGEST}
    descriptor = old.annotated(
        media_type=OCI_MANIFEST, digest=stored.digest, size=stored.size, annotations=own | annotations, data=""
    )
    if document is None:
        return _Written(descriptor, None)
    listed = target.add_document(document).annotated(
        annotations={IMAGE_MANIFEST_DIGEST: str(stored.digest)},
        platform=image.chosen,
        artifact_type=SOCI_INDEX_V2,
    )
    return _Written(descriptor, listed)


def _children(source: SourceLayout, written: Mapping[Digest, _Written], target: Layout) -> tuple[Descriptor, ...]:
    """Return the entries of the new image index; a SOCI index replaces the earlier one of its image or comes last."""
    index = source.index
    renamed = {before: each.manifest for before, each in written.items() if before != each.manifest.digest}
    pending = {image.descriptor.digest: image for image in in_requested_order(source.images)}
    listed = {str(child.digest) for child in index.manifests}
    followed = follow_all(index.manifests, renamed, source.layout, target)
    children: list[Descriptor] = []
    for child, after in zip(index.manifests, followed, strict=True):
        if child.digest in written:
            children.append(written[child.digest].manifest)
        elif after != child:
            children.append(after)
        elif (image := _image_of_soci_index(child, pending.values(), listed)) is not None:
            del pending[image.descriptor.digest]
            if (new := written[image.descriptor.digest].soci_index) is not None:
                children.append(new)
        else:
            children.append(_renamed(child, renamed))
    return (*children, *(new for digest in pending if (new := written[digest].soci_index) is not None))


def _image_of_soci_index(child: Descriptor, images: Iterable[SourceImage], listed: set[str]) -> SourceImage | None:
    """Return the image that an earlier SOCI index belongs to: the one it names or, if missing, one of its platform."""
    if child.artifact_type != SOCI_INDEX_V2:
        return None
    named, platform = child.annotations.get(IMAGE_MANIFEST_DIGEST), child.platform
    if named in listed or platform is None:
        return next((image for image in images if image.descriptor.digest == named), None)
    return next((image for image in images if image.platform.matches(platform)), None)


def _renamed(child: Descriptor, renamed: Mapping[Digest, Descriptor]) -> Descriptor:
    """Return an entry that is kept; a SOCI index whose image was rewritten gets the image's new digest."""
    named = child.annotations.get(IMAGE_MANIFEST_DIGEST)
    new = next((str(after.digest) for before, after in renamed.items() if before == named), None)
    return child if new is None else child.annotated(annotations=child.annotations | {IMAGE_MANIFEST_DIGEST: new})


def _record(
    recipe: Recipe, image: SourceImage, indexed: _Indexed, written: _Written, index: ImageIndex
) -> PlatformImage:
    manifest = written.manifest
    return PlatformImage(
        platform=image.platform,
        manifest=manifest if manifest.platform else manifest.annotated(platform=image.platform),
        soci_index=written.soci_index,
        soci_version=recipe.options.version,
        attestations=tuple(
            child
            for child in index.manifests
            if is_attestation(child) and child.annotations.get(REFERENCE_DIGEST) == manifest.digest
        ),
        layers=tuple(layer.record for layer in indexed.layers),
    )


def _root(source: SourceLayout, index: ImageIndex, target: Layout) -> Descriptor:
    """Store the image index; if nothing in it has changed, return the source's descriptor, which keeps its bytes."""
    if source.root is not None and index == source.index:
        return source.root
    return target.add_document(index.replaced(media_type=OCI_INDEX))
