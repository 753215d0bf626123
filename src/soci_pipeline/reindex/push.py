"""Pushes the documents of an image with new SOCI indexes by digest, without writing a tag."""

from collections.abc import Sequence
from functools import partial

from soci_pipeline.machine.working_folder import working_folder
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest, parse_image_manifest
from soci_pipeline.oci.media_types import IN_TOTO
from soci_pipeline.reindex.assembly import Assembled, assemble
from soci_pipeline.reindex.existing import ExistingImage
from soci_pipeline.reindex.image_plan import ImagePlan


def push(image: ExistingImage, plans: Sequence[ImagePlan]) -> Assembled:
    """Push SOCI indexes, manifests and the new image index, unless nothing has changed; return the documents."""
    with working_folder(image.settings.folder, purpose="index") as folder:
        scratch = Layout.create(folder / "layout")
        assembled = assemble(
            image.graph,
            plans,
            span_size=image.settings.soci.span_size,
            build_tool=image.settings.build_tool,
            scratch=scratch,
            fetch=partial(_fetch_attestation, image, scratch),
        )
        if assembled.changed and not _is_published(image, assembled.index):
            for manifest in (*assembled.manifests, assembled.index):
                _push_manifest(image, scratch, manifest)
    return assembled


def _is_published(image: ExistingImage, index: Descriptor) -> bool:
    """Whether the tag with the suffix already points at this image index."""
    if not image.settings.suffix or image.new_tag is None:
        return False
    current = image.current(image.new_tag)
    return current is not None and current.digest == index.digest


def _push_manifest(image: ExistingImage, scratch: Layout, manifest: Descriptor) -> None:
    document = scratch.read_document(manifest)
    for child in document.children if isinstance(document, ImageManifest) else ():
        if scratch.has(child):
            image.client.blobs.upload(image.repository, child, partial(scratch.open_blob, child))
    image.client.manifests.put(image.repository, manifest.digest, scratch.read(manifest), manifest.media_type)


def _fetch_attestation(image: ExistingImage, scratch: Layout, attestation: Descriptor) -> None:
    _, data = image.client.manifests.get(image.repository, attestation.digest)
    scratch.add_bytes(data, attestation.media_type)
    manifest = parse_image_manifest(data, media_type=attestation.media_type)
    # Fetch only the blobs that may be rewritten; the others stay in the registry.
    for blob in (manifest.config, *(layer for layer in manifest.layers if layer.media_type == IN_TOTO)):
        with image.client.blobs.stream(image.repository, blob) as pieces:
            scratch.add_chunks(pieces, blob)
