"""Read the images under a reference in a registry, each with its config, SOCI indexes and attestations.

Reading continues after a fault and records it, so that verification can report all of them. Layers and zTOCs are not
read here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from soci_pipeline.errors import InvalidInput
from soci_pipeline.images.findings import Findings
from soci_pipeline.oci.annotations import (
    IMAGE_MANIFEST_DIGEST,
    REFERENCE_DIGEST,
    SOCI_INDEX_DIGEST,
    is_attestation,
)
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.image_config import platform_of_config
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse, parse_image_manifest
from soci_pipeline.oci.media_types import (
    DOCKER_CONFIG,
    IMAGE_INDEXES,
    IMAGE_MANIFESTS,
    OCI_CONFIG,
    OCI_EMPTY,
    SOCI_INDEX_V1,
    SOCI_INDEX_V2,
)
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.records import IndexVersion

_IMAGE_CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
_ARTIFACT_CONFIGS = frozenset({OCI_EMPTY, SOCI_INDEX_V1, SOCI_INDEX_V2})


@dataclass(frozen=True, slots=True)
class SociIndexNode:
    """A SOCI index; ``descriptor`` is the entry of the image index for v2, the referrer for v1."""

    descriptor: Descriptor
    manifest: ImageManifest
    version: IndexVersion


@dataclass(frozen=True, slots=True)
class ImageNode:
    """One image: its ``descriptor`` as listed, the manifest's bytes in ``data``, and the ``platform`` of its config."""

    descriptor: Descriptor
    data: bytes
    manifest: ImageManifest
    config: bytes
    platform: Platform
    soci_indexes: tuple[SociIndexNode, ...]
    attestations: tuple[Descriptor, ...]

    @property
    def where(self) -> str:
        """The location of the image in findings."""
        return f"{self.platform} {self.descriptor.digest}"


@dataclass(frozen=True, slots=True)
class ImageGraph:
    """The manifest under a reference, with its bytes, and the images that could be read.

    ``artifacts`` are the manifests in the index that are neither images nor SOCI indexes, by digest, such as
    attestations.
    """

    root: Descriptor
    data: bytes
    document: ImageIndex | ImageManifest
    images: tuple[ImageNode, ...]
    artifacts: Mapping[Digest, ImageManifest] = field(default_factory=dict)

    @property
    def index(self) -> ImageIndex | None:
        """The image index, or None if the reference is a single image."""
        return self.document if isinstance(self.document, ImageIndex) else None


def is_soci_index(entry: Descriptor) -> bool:
    """Return whether an index entry is a v2 SOCI index; some copy tools drop the artifact type but keep annotations."""
    return entry.artifact_type == SOCI_INDEX_V2 or IMAGE_MANIFEST_DIGEST in entry.annotations


def is_image(entry: Descriptor) -> bool:
    """Return whether an index entry is an image, according to its descriptor."""
    if entry.media_type not in IMAGE_MANIFESTS or entry.artifact_type or is_attestation(entry) or is_soci_index(entry):
        return False
    return entry.platform is None or not entry.platform.is_unknown


def read_graph(client: RegistryClient, repository: str, reference: str | Digest, findings: Findings) -> ImageGraph:
    """Read an image index or a single image, with all documents below it but no layers or zTOCs.

    Raises `ManifestUnknown` if the reference does not exist, and `InvalidInput` if it is not an image.
    """
    root, data = client.manifests.get(repository, reference)
    document = parse(data, media_type=root.media_type)
    findings.count("manifests")
    if isinstance(document, ImageManifest):
        reader = _Reader(client, repository, findings, ())
        if is_artifact(document):
            raise InvalidInput(f"{reference} is an artifact of type {document.config.media_type}, not an image")
        image = reader.image_of(root, data, document)
        return ImageGraph(root=root, data=data, document=document, images=(image,) if image else ())
    document.check_listed()
    reader = _Reader(client, repository, findings, document.manifests)
    reader.check_others()
    images = [reader.image(entry) for entry in document.manifests if is_image(entry)]
    found = tuple(each for each in images if each)
    return ImageGraph(root=root, data=data, document=document, images=found, artifacts=reader.artifacts)


def is_artifact(manifest: ImageManifest) -> bool:
    """Return whether a manifest is an artifact, such as a SOCI index, and not an image."""
    return bool(manifest.artifact_type) or manifest.config.media_type in _ARTIFACT_CONFIGS


def _is_artifact_in_index(entry: Descriptor, manifest: ImageManifest) -> bool:
    """Like `is_artifact`, but also true for an entry without a platform and with another config type (a Helm chart)."""
    return is_artifact(manifest) or (entry.platform is None and manifest.config.media_type not in _IMAGE_CONFIGS)


class _Reader:
    def __init__(
        self, client: RegistryClient, repository: str, findings: Findings, entries: Iterable[Descriptor]
    ) -> None:
        self._client = client
        self._repository = repository
        self._findings = findings
        self._entries = tuple(entries)
        self.artifacts: dict[Digest, ImageManifest] = {}

    def check_others(self) -> None:
        """Read the entries that are neither images nor SOCI indexes, to verify their digests."""
        for entry in self._entries:
            if not is_image(entry) and not is_soci_index(entry):
                with self._findings.catching(f"manifest {entry.digest}"):
                    document = parse(self._manifest(entry), media_type=entry.media_type)
                    if isinstance(document, ImageManifest):
                        self.artifacts[entry.digest] = document
                    else:
                        self._findings.count("nested_indexes_unread")

    def image(self, entry: Descriptor) -> ImageNode | None:
        """Read one image of the index; return None for an artifact, or with a finding if it cannot be read."""
        with self._findings.catching(f"{entry.platform or 'image'} {entry.digest}"):
            data = self._manifest(entry)
            manifest = parse_image_manifest(data, media_type=entry.media_type)
            # The type may only be stated in the manifest, not in the entry.
            if _is_artifact_in_index(entry, manifest):
                self.artifacts[entry.digest] = manifest
                return None
            return self.image_of(entry, data, manifest)
        return None

    def image_of(self, entry: Descriptor, data: bytes, manifest: ImageManifest) -> ImageNode | None:
        """Like `image`, for a manifest that has already been read."""
        with self._findings.catching(f"{entry.platform or 'image'} {entry.digest} config {manifest.config.digest}"):
            config = self._client.blobs.read(self._repository, manifest.config)
            platform = platform_of_config(config)
            self._findings.count("configs")
            return ImageNode(
                descriptor=entry,
                data=data,
                manifest=manifest,
                config=config,
                platform=platform,
                soci_indexes=self._soci_indexes(entry, manifest, f"{platform} {entry.digest}"),
                attestations=tuple(
                    each
                    for each in self._entries
                    if is_attestation(each) and each.annotations.get(REFERENCE_DIGEST) == entry.digest
                ),
            )
        return None

    def _soci_indexes(self, entry: Descriptor, manifest: ImageManifest, where: str) -> tuple[SociIndexNode, ...]:
        """Return the v2 index in the manifest's annotation, as the snapshotter does, otherwise the v1 referrers."""
        named = manifest.annotations.get(SOCI_INDEX_DIGEST)
        descriptors: tuple[Descriptor, ...] = ()
        if named is None:
            descriptors = self._client.referrers.list(self._repository, entry.digest, SOCI_INDEX_V1)
        else:
            with self._findings.catching(f"{where} SOCI index {named[:100]}"):
                descriptors = (self._named(Digest(named), entry.digest),)
        version = IndexVersion.V1 if named is None else IndexVersion.V2
        found = (self._soci_index(each, version, where) for each in descriptors)
        return tuple(each for each in found if each)

    def _named(self, digest: Digest, image: Digest) -> Descriptor:
        """Return an image's SOCI index entry. Images with the same layers share its digest, but not the entry."""
        listed = [each for each in self._entries if each.digest == digest and is_soci_index(each)]
        own = [each for each in listed if each.annotations.get(IMAGE_MANIFEST_DIGEST) == image]
        if listed:
            return (own or listed)[0]
        descriptor, _ = self._client.manifests.get(self._repository, digest)
        return descriptor.annotated(artifact_type=SOCI_INDEX_V2)

    def _soci_index(self, descriptor: Descriptor, version: IndexVersion, where: str) -> SociIndexNode | None:
        with self._findings.catching(f"{where} SOCI index {descriptor.digest}"):
            manifest = parse_image_manifest(self._manifest(descriptor), media_type=descriptor.media_type)
            return SociIndexNode(descriptor=descriptor, manifest=manifest, version=version)
        return None

    def _manifest(self, entry: Descriptor) -> bytes:
        if entry.media_type not in IMAGE_MANIFESTS | IMAGE_INDEXES:
            raise InvalidInput(
                f"{entry.digest} has the media type {entry.media_type[:100]}, which is not a manifest media type"
            )
        served, data = self._client.manifests.get(self._repository, entry.digest)
        self._findings.count("manifests")
        if served.size != entry.size:
            raise InvalidInput(f"{entry.digest} has {served.size} bytes, but its descriptor says {entry.size}")
        parse(data, media_type=entry.media_type)
        return data
