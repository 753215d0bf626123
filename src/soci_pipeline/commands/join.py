"""Join images that are in a registry, one for each platform, into one OCI image index.

Each DIGEST is an image manifest, or the image index of one platform's branch; its SOCI index and attestations are
included. The index is pushed by digest, and tagged if REFERENCE has a tag. Joining the same images again writes the
same bytes, in any order. A platform that the tag had and loses is named; with --json it is in "platforms_lost", which
is null if the tag's old image cannot be read.

Exit statuses: 0 joined; 3 an invalid reference, digest or platform; 10 to 12 the registry rejects the request, does not
answer, or requires other credentials; 16 the images cannot be joined: every reason is named and nothing was published;
18 the tag must not move.
"""

import re
from collections.abc import Iterable, Sequence

import click

from soci_pipeline.commands import CommandResult
from soci_pipeline.commands.command import Arguments, command
from soci_pipeline.commands.registry_access import client_for, reference_of, registry_options
from soci_pipeline.errors import InvalidInput, SociPipelineError
from soci_pipeline.images.graph import is_artifact, is_image
from soci_pipeline.log import logger
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.image_config import platform_of_config
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse
from soci_pipeline.oci.platform import Platform
from soci_pipeline.publish.collect import collect, reader
from soci_pipeline.publish.join import join
from soci_pipeline.publish.tags import move_tags
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.reference import ImageReference, is_tag

_HEX_OF_A_DIGEST = re.compile(r"([0-9a-fA-F]{64}|[0-9a-fA-F]{128})\Z")


@command(__doc__)
@click.argument("reference", metavar="REFERENCE", help="the repository, with a tag for the index if you want one")
@click.argument(
    "digests",
    nargs=-1,
    required=True,
    metavar="DIGEST...",
    help="an image of the same repository, as `push` and `inspect` show it",
)
@click.option(
    "--platform",
    multiple=True,
    metavar="P",
    help="a platform that must be included; no others are allowed; may be repeated",
)
@click.option("--annotation", multiple=True, metavar="KEY=VALUE", help="annotation of the index; may be repeated")
@registry_options
def run(arguments: Arguments) -> CommandResult:
    reference = reference_of(arguments.reference)
    if reference.digest is not None:
        raise InvalidInput("the digest of the index is computed", advice="Use a repository, with or without a tag.")
    digests = [_digest(text, reference) for text in arguments.digests]
    twice = sorted({digest for digest in digests if digests.count(digest) > 1})
    if twice:
        raise InvalidInput(f"{twice[0]} is given more than once", advice="Use one digest per platform.")
    platforms = [Platform.parse(text) for text in arguments.platform] or None
    annotations = dict(_annotation(text) for text in arguments.annotation)
    with client_for(arguments, reference) as client:
        images = collect(client, reference.repository, digests)
        index = join(images, annotations=annotations, read=reader(client, reference.repository), platforms=platforms)
        before = _platforms_under_tag(client, reference)
        uploaded = _put(client, reference, index)
    lost = None if before is None else _lost(before, [image.platform for image in images])
    for platform in lost or ():
        logger().warning("%s was under the tag %s before and no longer is", platform, reference.tag)
    size = index.descriptor.size
    images = tuple(sorted(images, key=lambda image: image.platform))
    answer = {
        "index": str(index.descriptor.digest),
        "platforms": [image.digests() for image in images],
        "platforms_lost": lost,
        "tags": [reference.tag] if reference.tag else [],
        "bytes_uploaded": uploaded,
        "bytes_skipped": 0 if uploaded else size,
    }
    named = f"{reference.name}@{index.descriptor.digest}"
    return CommandResult(json=answer, text=f"{named}  {', '.join(str(image.platform) for image in images)}")


def _platforms_under_tag(client: RegistryClient, reference: ImageReference) -> tuple[Platform, ...] | None:
    """Return the platforms of the tag's current image: none for a new tag, None if they cannot be read.

    Errors in the old image do not prevent its replacement.
    """
    try:
        if reference.tag is None or client.manifests.head(reference.repository, reference.tag) is None:
            return ()
        document = parse(client.manifests.get(reference.repository, reference.tag)[1])
        if isinstance(document, ImageManifest):
            if is_artifact(document):
                return ()
            return (platform_of_config(client.blobs.read(reference.repository, document.config)),)
    except SociPipelineError as error:
        logger().warning("cannot read which platforms the tag %s had: %s", reference.tag, error.reason)
        return None
    return tuple(entry.platform for entry in document.manifests if entry.platform is not None and is_image(entry))


def _lost(before: Iterable[Platform], now: Sequence[Platform]) -> list[str]:
    """Return the platforms that no image has any more, without duplicates."""
    return list(dict.fromkeys(str(each) for each in before if not any(each.matches(platform) for platform in now)))


def _put(client: RegistryClient, reference: ImageReference, index: ImageIndex) -> int:
    """Push the index by digest, then move the tag; return the number of bytes sent."""
    descriptor = index.descriptor
    sent = 0
    if client.manifests.head(reference.repository, descriptor.digest) is None:
        client.manifests.put(reference.repository, descriptor.digest, index.encode(), index.media_type)
        sent = descriptor.size
    if reference.tag is not None:
        move_tags(client, reference.repository, descriptor, [reference.tag])
    return sent


def _digest(text: str, reference: ImageReference) -> Digest:
    try:
        return Digest(text)
    except InvalidInput as error:
        if not is_tag(text) or _HEX_OF_A_DIGEST.match(text):
            raise
        raise InvalidInput(
            f"not a valid digest: {text!r}",
            advice=f"{error.advice} If it is a tag, `soci-pipeline inspect {reference.with_tag(text)}` shows its "
            "images' digests.",
        ) from error


def _annotation(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidInput(f"not an annotation: {text[:100]!r}", advice="Write it as KEY=VALUE.")
    return key, value
