"""The shortest way to put a layout into a registry, and access to what the registry has stored."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.media_types import IMAGE_INDEXES, IMAGE_MANIFESTS
from soci_pipeline.publish.join import join
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.soci.index.records import PlatformImage

REPOSITORY = "team/app"


def upload(
    client: RegistryClient,
    layout: Layout,
    *roots: Descriptor,
    repository: str = REPOSITORY,
    there: Iterable[Descriptor] = (),
) -> None:
    """Upload some graphs of a layout to a repository, children first, without tags, except what is in ``there``."""
    known = {each.digest for root in there for each in layout.walk(root)}
    for each in (each for root in roots for each in layout.walk(root)):
        if each.digest in known:
            continue
        known.add(each.digest)
        if each.media_type in IMAGE_INDEXES | IMAGE_MANIFESTS:
            client.manifests.put(repository, each.digest, layout.read(each), each.media_type)
        else:
            client.blobs.upload(repository, each, partial(layout.open_blob, each))


def upload_joined(client: RegistryClient, layout: Layout, *images: PlatformImage) -> Descriptor:
    """Upload images with their SOCI indexes and an image index of them all, without a tag; return the image index."""
    parts = [part for image in images for part in (image.manifest, image.soci_index) if part is not None]
    upload(client, layout, *parts)
    index = layout.add_document(join(images, annotations={}, read=layout.read))
    upload(client, layout, index, there=parts)
    return index


def tag(client: RegistryClient, layout: Layout, root: Descriptor, name: str, *, repository: str = REPOSITORY) -> None:
    """Upload a graph to a repository and tag it."""
    upload(client, layout, root, repository=repository)
    client.manifests.put(repository, name, layout.read(root), root.media_type)


def stored(folder: Path, repository: str = REPOSITORY) -> Layout:
    """Return the registry's storage of a repository, for tests that damage it."""
    return Layout.open(folder / repository.replace("/", "+"))


def flip(path: Path, position: int = -1, *, bit: int = 0) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.chmod(0o644)
    path.write_bytes(data)
