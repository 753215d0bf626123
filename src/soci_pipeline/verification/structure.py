"""Verification of the image's structure: manifests, configs and annotations are consistent, and all blobs exist.

This is the first part of the verification. It reads no layers and zTOCs, but returns those to read as `LayerToCheck`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from soci_pipeline.images.findings import Findings
from soci_pipeline.images.graph import ImageGraph, ImageNode, SociIndexNode, is_soci_index
from soci_pipeline.oci.annotations import (
    IMAGE_LAYER_DIGEST,
    IMAGE_LAYER_MEDIA_TYPE,
    IMAGE_MANIFEST_DIGEST,
    REFERENCE_DIGEST,
    SOCI_INDEX_DIGEST,
    SPAN_SIZE,
    is_attestation,
)
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.image_config import diff_ids_of_config
from soci_pipeline.oci.manifest import ImageIndex
from soci_pipeline.oci.media_types import SOCI_INDEX_V1, SOCI_INDEX_V2, SOCI_LAYER
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.records import IndexVersion

Find = Callable[[Digest], Descriptor | None]
"""Function that returns the descriptor of a manifest in the repository by its digest, or None."""


@dataclass(frozen=True, slots=True)
class LayerToCheck:
    """One layer of an image and its zTOC, or None; ``diff_id`` is None if it is not known."""

    where: str
    layer: Descriptor
    diff_id: Digest | None
    ztoc: Descriptor | None

    @property
    def span_size(self) -> int | None:
        """The span size in bytes from the SOCI index, or None if it is missing or not a number."""
        said = self.ztoc.annotations.get(SPAN_SIZE, "") if self.ztoc else ""
        return int(said) if said.isdecimal() else None

    @property
    def may_be_foreign(self) -> bool:
        """Whether the layer may be missing in the registry; never with a zTOC, since spans are read from there."""
        return self.ztoc is None and self.layer.may_be_foreign


def check_structure(
    client: RegistryClient,
    repository: str,
    graph: ImageGraph,
    platforms: Sequence[Platform] | None,
    findings: Findings,
) -> tuple[LayerToCheck, ...]:
    """Add a finding for every fault of the graph; return the layers, each pair of layer and zTOC once."""
    _check_platforms(graph, platforms, findings)
    _check_entries(graph, partial(client.manifests.head, repository), findings)
    layers: dict[tuple[Digest, Digest | None], LayerToCheck] = {}
    for image in graph.images:
        findings.count("images")
        for each in _check_image(image, graph, findings):
            layers.setdefault((each.layer.digest, each.ztoc.digest if each.ztoc else None), each)
    _check_blobs(client, repository, layers.values(), findings)
    return tuple(layers.values())


def _check_platforms(graph: ImageGraph, wanted: Sequence[Platform] | None, findings: Findings) -> None:
    there: dict[Platform, Digest] = {}
    for image in graph.images:
        claimed = image.descriptor.platform
        if claimed is not None and not claimed.matches(image.platform):
            findings.add(image.where, f"its descriptor says {claimed}, but its config says {image.platform}")
        plain = image.platform.normalised()
        if plain in there and there[plain] != image.descriptor.digest:
            findings.add(image.where, f"{there[plain]} is an image for the same platform")
        there[plain] = image.descriptor.digest
    if not graph.images:
        findings.add(str(graph.root.digest), "it contains no readable image")
    for platform in wanted or ():
        if not any(platform.matches(each) for each in there):
            findings.add(str(graph.root.digest), f"there is no image for {platform}")


def _check_entries(graph: ImageGraph, there: Find, findings: Findings) -> None:
    """Check the SOCI indexes, attestations and artifacts in the image index: what they refer to must match."""
    if graph.index is None:
        return
    listed = {entry.digest for entry in graph.index.manifests}
    images = {image.descriptor.digest: image for image in graph.images}
    for entry in graph.index.manifests:
        target = entry.annotations.get(REFERENCE_DIGEST)
        if is_attestation(entry) and target not in listed:
            findings.add(f"attestation {entry.digest}", f"it is about {target}, which is not in the image index")
        if is_soci_index(entry):
            _check_back_reference(entry, images, findings)
        elif (artifact := graph.artifacts.get(entry.digest)) is not None and artifact.subject is not None:
            _check_subject(entry, artifact.subject, graph.index, there, findings)


def _check_subject(entry: Descriptor, subject: Descriptor, index: ImageIndex, there: Find, findings: Findings) -> None:
    """Check an artifact's `subject`: it must exist as described, and be the attested image for an attestation."""
    attests, target = is_attestation(entry), entry.annotations.get(REFERENCE_DIGEST)
    where = f"{'attestation' if attests else 'artifact'} {entry.digest}"
    if attests and subject.digest != target:
        findings.add(where, f"its subject is {subject.digest}, but its {REFERENCE_DIGEST} is {target}")
        return
    listed = next((each for each in index.manifests if each.digest == subject.digest), None) or there(subject.digest)
    if listed is None:
        findings.add(where, f"its subject {subject.digest} is neither in the image index nor in the repository")
    elif (subject.media_type, subject.size) != (listed.media_type, listed.size):
        said, real = (f"{each.media_type} of {each.size} bytes" for each in (subject, listed))
        findings.add(where, f"its subject {subject.digest} is {said}, but the manifest is {real}")


def _check_back_reference(entry: Descriptor, images: dict[Digest, ImageNode], findings: Findings) -> None:
    where = f"SOCI index {entry.digest}"
    target = entry.annotations.get(IMAGE_MANIFEST_DIGEST)
    image = next((image for digest, image in images.items() if digest == target), None)
    if image is None:
        findings.add(where, f"its {IMAGE_MANIFEST_DIGEST} is {target}, which is not an image of the index")
        return
    if image.manifest.annotations.get(SOCI_INDEX_DIGEST) != entry.digest:
        findings.add(where, f"the image {target} does not name it in {SOCI_INDEX_DIGEST}, so no runtime finds it")
    if entry.platform is not None and not entry.platform.matches(image.platform):
        findings.add(where, f"it is listed for {entry.platform}, but its image is for {image.platform}")
    if entry.artifact_type != SOCI_INDEX_V2:
        findings.add(where, f"its entry has the artifact type {entry.artifact_type!r}")


def _check_image(image: ImageNode, graph: ImageGraph, findings: Findings) -> list[LayerToCheck]:
    ztocs: dict[Digest, list[Descriptor]] = {}
    for soci in image.soci_indexes:
        findings.count("soci_indexes")
        _check_soci_index(soci, image, graph, findings)
        for ztoc in soci.manifest.layers:
            if ztoc.media_type == SOCI_LAYER:
                _note_ztoc(ztoc, soci, image, ztocs, findings)
    diff_ids = _diff_ids(image, findings)
    found = []
    for position, layer in enumerate(image.manifest.layers):
        diff_id = diff_ids[position] if position < len(diff_ids) else None
        where = f"{image.platform} layer {layer.digest}"
        choices: list[Descriptor | None] = [*ztocs.get(layer.digest, ())] or [None]
        found += [LayerToCheck(where=where, layer=layer, diff_id=diff_id, ztoc=ztoc) for ztoc in choices]
    return found


def _check_soci_index(soci: SociIndexNode, image: ImageNode, graph: ImageGraph, findings: Findings) -> None:
    where = f"{image.where} SOCI index {soci.descriptor.digest}"
    expected = SOCI_INDEX_V2 if soci.version is IndexVersion.V2 else SOCI_INDEX_V1
    if soci.manifest.config.media_type != expected:
        findings.add(where, f"its config has the type {soci.manifest.config.media_type}, not {expected}")
    if soci.version is IndexVersion.V1:
        subject = soci.manifest.subject
        if subject is None or subject.digest != image.descriptor.digest:
            findings.add(where, f"its subject is {subject.digest if subject else 'missing'}")
        return
    said = image.descriptor.annotations.get(SOCI_INDEX_DIGEST)
    if graph.index is not None and said is not None and said != soci.descriptor.digest:
        findings.add(image.where, f"its descriptor names the SOCI index {said}, its manifest {soci.descriptor.digest}")
    if graph.index is not None and all(each.digest != soci.descriptor.digest for each in graph.index.manifests):
        findings.add(where, "it is not listed in the image index, so copies and garbage collection lose it")


def _note_ztoc(
    ztoc: Descriptor, soci: SociIndexNode, image: ImageNode, ztocs: dict[Digest, list[Descriptor]], findings: Findings
) -> None:
    where = f"{image.where} SOCI index {soci.descriptor.digest} zTOC {ztoc.digest}"
    said = ztoc.annotations.get(IMAGE_LAYER_DIGEST)
    layer = next((layer for layer in image.manifest.layers if layer.digest == said), None)
    if layer is None:
        findings.add(where, f"its {IMAGE_LAYER_DIGEST} is {said}, which is not a layer of the image")
        return
    media_type = ztoc.annotations.get(IMAGE_LAYER_MEDIA_TYPE)
    if media_type is not None and media_type != layer.media_type:
        findings.add(where, f"it says that its layer is {media_type}, but the image says {layer.media_type}")
    known = ztocs.setdefault(layer.digest, [])
    if ztoc.digest not in {each.digest for each in known}:
        known.append(ztoc)


def _diff_ids(image: ImageNode, findings: Findings) -> tuple[Digest, ...]:
    with findings.catching(f"{image.where} config {image.manifest.config.digest}"):
        diff_ids = diff_ids_of_config(image.config)
        if len(diff_ids) != len(image.manifest.layers):
            findings.add(
                f"{image.where} config {image.manifest.config.digest}",
                f"it has {len(diff_ids)} diff ids for {len(image.manifest.layers)} layers",
            )
            return ()
        return diff_ids
    return ()


def _check_blobs(client: RegistryClient, repository: str, layers: Iterable[LayerToCheck], findings: Findings) -> None:
    for each in layers:
        if not each.may_be_foreign:
            _check_blob(client, repository, each.where, each.layer, findings)
            findings.count("layers")
        if each.ztoc is not None:
            _check_blob(client, repository, f"{each.where} zTOC {each.ztoc.digest}", each.ztoc, findings)


def _check_blob(client: RegistryClient, repository: str, where: str, blob: Descriptor, findings: Findings) -> None:
    with findings.catching(where):
        if not client.blobs.exists(repository, blob):
            findings.add(where, f"the blob {blob.digest} is not in the repository {repository}")
