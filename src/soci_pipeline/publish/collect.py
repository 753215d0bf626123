"""The inputs of a join from a registry: the records of published branches, and the content behind them."""

from collections.abc import Sequence

from soci_pipeline.errors import JoinRefused
from soci_pipeline.images.findings import Findings
from soci_pipeline.images.graph import ImageNode, SociIndexNode, read_graph
from soci_pipeline.oci.annotations import IMAGE_LAYER_DIGEST, IMAGE_MANIFEST_DIGEST, SOCI_INDEX_DIGEST
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.media_types import IMAGE_INDEXES, IMAGE_MANIFESTS, SOCI_INDEX_V2
from soci_pipeline.publish.join import Read
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.records import IndexVersion, LayerRecord, PlatformImage


def reader(client: RegistryClient, repository: str) -> Read:
    """Read and verify manifests and small blobs of one repository."""

    def read(descriptor: Descriptor) -> bytes:
        if descriptor.media_type in IMAGE_MANIFESTS | IMAGE_INDEXES:
            return client.manifests.get(repository, descriptor.digest)[1]
        return client.blobs.read(repository, descriptor)

    return read


def collect(client: RegistryClient, repository: str, digests: Sequence[Digest]) -> tuple[PlatformImage, ...]:
    """Return the images under some digests: each an image manifest, or the image index of one branch.

    Config, SOCI indexes and attestations are read; layers and zTOCs are checked for existence. Raises `JoinRefused`
    naming everything that is missing or damaged, and a temporary `RegistryError` unchanged.
    """
    findings = Findings()
    images: list[ImageNode] = []
    for digest in dict.fromkeys(digests):
        with findings.catching(str(digest)):
            graph = read_graph(client, repository, digest, findings)
            if not graph.images:
                findings.add(str(digest), "it contains no image")
            images += graph.images
    for image in images:
        _check_blobs(client, repository, image, findings)
    if findings.found:
        raise JoinRefused(
            "cannot join the digests:\n" + "\n".join(f"  - {each}" for each in findings.found),
            advice="Push what is missing first; nothing was published.",
        )
    return tuple(_record(image) for image in images)


def _check_blobs(client: RegistryClient, repository: str, image: ImageNode, findings: Findings) -> None:
    ztocs = [ztoc for soci in image.soci_indexes for ztoc in soci.manifest.layers]
    # Spans are read from the registry, so an indexed layer must exist there even if it has other URLs.
    indexed = {ztoc.annotations.get(IMAGE_LAYER_DIGEST) for ztoc in ztocs}
    layers = [each for each in image.manifest.layers if not each.may_be_foreign or str(each.digest) in indexed]
    blobs = [("layer", layer) for layer in layers] + [("zTOC", ztoc) for ztoc in ztocs]
    for kind, blob in blobs:
        if not client.blobs.exists(repository, blob):
            findings.add(image.where, f"its {kind} {blob.digest} is not in the repository {repository}")


def _record(image: ImageNode) -> PlatformImage:
    soci = image.soci_indexes[0] if image.soci_indexes else None
    ztocs = {ztoc.annotations.get(IMAGE_LAYER_DIGEST): ztoc.digest for ztoc in soci.manifest.layers} if soci else {}
    named = image.manifest.annotations.get(SOCI_INDEX_DIGEST)
    return PlatformImage(
        platform=image.platform,
        manifest=image.descriptor.annotated(
            annotations=image.descriptor.annotations | ({SOCI_INDEX_DIGEST: named} if named else {}),
            platform=image.descriptor.platform or image.platform,
        ),
        soci_index=_soci_descriptor(image, soci) if soci else None,
        soci_version=soci.version if soci else IndexVersion.V2,
        attestations=image.attestations,
        layers=tuple(
            LayerRecord(
                digest=layer.digest, size=layer.size, media_type=layer.media_type, ztoc=ztocs.get(str(layer.digest))
            )
            for layer in image.manifest.layers
        ),
    )


def _soci_descriptor(image: ImageNode, soci: SociIndexNode) -> Descriptor:
    if soci.version is IndexVersion.V1:
        return soci.descriptor
    back = {IMAGE_MANIFEST_DIGEST: str(image.descriptor.digest)}
    return soci.descriptor.annotated(
        artifact_type=SOCI_INDEX_V2,
        platform=soci.descriptor.platform or image.descriptor.platform or image.platform,
        annotations=back | soci.descriptor.annotations,
    )
