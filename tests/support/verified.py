"""Images of several platforms in one index, the gate's findings for them, and their parts."""

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import parse_image_manifest
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.records import PlatformImage
from soci_pipeline.verification.verify import VerificationReport, verify
from tests.support.published import REPOSITORY, upload_joined


def published(client: RegistryClient, layout: Layout, *images: PlatformImage) -> Digest:
    return upload_joined(client, layout, *images).digest


def verified(client: RegistryClient, digest: Digest, mode: str = "all") -> VerificationReport:
    return verify(client, REPOSITORY, digest, mode=mode)


def faults(client: RegistryClient, digest: Digest, mode: str = "all") -> str:
    report = verified(client, digest, mode)
    assert report.ok == (not report.findings)
    return "\n".join(str(finding) for finding in report.findings)


def layers_of(layout: Layout, image: PlatformImage) -> tuple[Descriptor, ...]:
    return parse_image_manifest(layout.read(image.manifest)).layers


def ztocs_of(layout: Layout, image: PlatformImage) -> tuple[Descriptor, ...]:
    assert image.soci_index is not None
    return parse_image_manifest(layout.read(image.soci_index)).layers
