"""The steps of a publication before and after its branches, each one call; tasks and local publications use them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from soci_pipeline._version import __version__
from soci_pipeline.git.source import ResolvedSource
from soci_pipeline.log import logger
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.collect import reader
from soci_pipeline.publish.join import join
from soci_pipeline.publish.provenance import Origin, attach
from soci_pipeline.publish.records import PublishedImage
from soci_pipeline.publish.registries import connection_to, prepare
from soci_pipeline.publish.same_images import compare
from soci_pipeline.publish.signature import configured_signer, sign
from soci_pipeline.publish.tag_names import TagNames
from soci_pipeline.publish.tags import IsAncestor, TagRecord
from soci_pipeline.publish.target import Target
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference
from soci_pipeline.settings import Settings
from soci_pipeline.soci.index.records import PlatformImage
from soci_pipeline.text import counted
from soci_pipeline.verification.mode import VerifyMode
from soci_pipeline.verification.verify import VerificationReport, verify

if TYPE_CHECKING:
    import boto3


def checked_target(
    image: ImageReference,
    names: TagNames,
    revision: str,
    client: RegistryClient,
    settings: Settings,
    *,
    ancestry: Callable[[], AbstractContextManager[IsAncestor]],
    aws: "boto3.Session | None" = None,
    force: bool = False,
) -> Target:
    """Check that the registry accepts a push and that the tags can move to ``revision``; return the target.

    Raises as `Target.check`, and `InvalidInput` if the configured signer cannot sign.
    """
    # Before anything is built: without its token, signing would fail at the end.
    configured_signer(settings.publish)
    rule = prepare(image, settings, aws=aws)
    target = Target(image, client, names, ancestry, rule, force)
    target.check(revision)
    return target


def push_joined(
    target: Target, annotations: Mapping[str, str], images: Sequence[PlatformImage], platforms: Sequence[Platform]
) -> Descriptor:
    """Join the images of the branches under one image index and push it by digest; raise as `join`.

    Every digest of the branches is read back from the registry first.
    """
    client, repository = target.client, target.image.repository
    index = join(images, annotations=annotations, read=reader(client, repository), platforms=platforms)
    found = index.descriptor
    client.manifests.put(repository, found.digest, index.encode(), index.media_type)
    logger().info("joined %s as %s@%s", counted(len(images), "platform"), target.image, found.digest)
    return found


def verified(
    client: RegistryClient,
    image: ImageReference,
    reference: str | Digest,
    mode: VerifyMode,
    platforms: Sequence[Platform] | None = None,
    *,
    show: Callable[[VerificationReport], None] = lambda _report: None,
) -> VerificationReport:
    """Verify the content of the repository under ``reference``; ``show`` gets the report even if it has findings.

    Raises `VerificationFailed` with every finding.
    """
    report = verify(client, image.repository, reference, mode=mode, platforms=platforms)
    show(report)
    report.raise_for_findings(f"{image.name} at {reference}")
    logger().info("verified: %s", report.checked_summary())
    return report


def same_image(target: Target, tag: str, index: Descriptor, images: Sequence[PlatformImage]) -> PublishedImage | None:
    """Return the content of ``tag`` if its images equal the new ones; log the result."""
    found = compare(target.client, target.image.repository, index.digest, tag)
    if found.there is None or found.difference is not None:
        logger().info("published, because %s", found.difference)
        return None
    logger().info("unchanged: %s has the same images, so nothing is published", target.image.with_tag(tag))
    reference = str(target.image.with_digest(found.there))
    return PublishedImage(reference=reference, index=found.there, platforms=tuple(images), same_as=tag)


def published_image(
    target: Target, index: Descriptor, images: Sequence[PlatformImage], moved: Sequence[TagRecord], *, verified: bool
) -> PublishedImage:
    """Return the record of an image whose tags have moved."""
    return PublishedImage(
        reference=str(target.image.with_digest(index.digest)),
        index=index.digest,
        platforms=tuple(images),
        tags=tuple(record.tag for record in moved),
        verified=verified,
    )


def attest_commit(
    target: Target,
    commit: ResolvedSource,
    index: Descriptor,
    images: Sequence[PlatformImage],
    *,
    parameters: Mapping[str, Any],
) -> None:
    """Attach the provenance statement to an image index; keep an existing one of the same commit."""
    origin = Origin(
        source=commit.url,
        ref=commit.ref,
        revision=commit.commit,
        parameters=parameters,
        tools={"soci-pipeline": __version__},
    )
    attach(target.client, target.image.repository, index, images, origin, name=target.image.name)


def sign_where_configured(
    target: Target, index: Descriptor, settings: Settings, *, aws: "boto3.Session | None" = None
) -> None:
    """Sign an image index with the key or token of the settings; do nothing if there is none."""
    signer = configured_signer(settings.publish)
    if signer is not None:
        connection = connection_to(target.image, settings, aws=aws)
        sign(target.image.with_digest(index.digest), signer, connection)
