"""Complete releases of an image in a registry: both index versions, attestations and signatures."""

from dataclasses import dataclass

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageManifest
from soci_pipeline.oci.media_types import OCI_EMPTY
from soci_pipeline.publish.join import join
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.records import IndexVersion
from tests.support.branches import branch_v2
from tests.support.images import AMD64, ARM64, Layer, add_attestation, gzip_layer
from tests.support.indexed import indexed, some_layers
from tests.support.published import REPOSITORY, tag, upload


@dataclass(frozen=True)
class Release:
    """One tag: a v2 image with its attestation, a v1 image with its SOCI index, and a signature of the index."""

    index: Descriptor
    own: tuple[Descriptor, ...]
    """Manifests that no other release has."""


def release(client: RegistryClient, layout: Layout, name: str, *, repository: str = REPOSITORY) -> Release:
    """Publish a release; all releases share the base layers and the whole v1 image."""
    layers: list[Layer] = [*some_layers(), gzip_layer({"release": name.encode() * 5000})]
    plain = indexed(layout, AMD64, layers)
    new = plain.model_copy(update={"attestations": (add_attestation(layout, plain.manifest),)})
    old = indexed(layout, ARM64, version=IndexVersion.V1)
    assert new.soci_index is not None
    assert old.soci_index is not None
    upload(client, layout, new.manifest, new.soci_index, *new.attestations, repository=repository)
    upload(client, layout, old.manifest, old.soci_index, repository=repository)
    index = layout.add_document(join([new, old], annotations={"release": name}, read=layout.read))
    tag(client, layout, index, name, repository=repository)
    tag(client, layout, new.manifest, f"{name}-amd64", repository=repository)
    signature = ImageManifest(
        artifact_type="application/vnd.test.signature", config=layout.add_bytes(b"{}", OCI_EMPTY), subject=index.plain
    )
    signed = layout.add_document(signature)
    upload(client, layout, signed, repository=repository)
    return Release(index, (index, new.manifest, new.soci_index, *new.attestations, signed))


def two_releases(client: RegistryClient, layout: Layout) -> dict[str, Descriptor]:
    """Publish an image of one platform under each of the tags v1 and v2; return the image indexes by tag."""
    made = {}
    for name in ("v1", "v2"):
        image = branch_v2(layout, AMD64, layers=[gzip_layer({"release": name.encode()})])
        assert image.soci_index is not None
        upload(client, layout, image.manifest, image.soci_index)
        made[name] = layout.add_document(join([image], annotations={}, read=layout.read))
        tag(client, layout, made[name], name)
    return made
