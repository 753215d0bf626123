"""Pulls a manifest graph from a registry into an OCI layout and verifies every byte."""

import contextvars
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from soci_pipeline.errors import InvalidInput, PlatformMismatch
from soci_pipeline.oci.annotations import IMAGE_MANIFEST_DIGEST, REFERENCE_DIGEST
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import MAX_DEPTH, MAX_LISTED, ImageIndex, ImageManifest, parse
from soci_pipeline.oci.media_types import IMAGE_INDEXES, IMAGE_MANIFESTS
from soci_pipeline.oci.platform import Platform
from soci_pipeline.registry.client import RegistryClient
from soci_pipeline.registry.errors import ContentMismatch

_BELONGS_TO = (REFERENCE_DIGEST, IMAGE_MANIFEST_DIGEST)


def pull_graph(
    client: RegistryClient,
    repository: str,
    reference: str | Digest,
    layout: Layout,
    *,
    platforms: Sequence[Platform] | None = None,
    jobs: int = 4,
) -> Descriptor:
    """Fetch a manifest or index with everything it refers to; return its descriptor.

    ``index.json`` is not changed. With ``platforms``, an index is reduced to those images with their attestations and
    SOCI indexes, and the descriptor is that of the reduced index. Raises `PlatformMismatch` if it lacks one of the
    platforms, `ManifestUnknown`, `ContentMismatch`.
    """
    root, data = client.manifests.get(repository, reference)
    document = parse(data, media_type=root.media_type)
    if platforms is not None and isinstance(document, ImageIndex):
        document = _reduced(document, platforms, f"{repository}:{reference}")
        data = document.encode()
        root = document.descriptor
    pull = _Pull(client, repository, layout)
    pull.manifests(document)
    _fetch(client, repository, list(pull.blobs.values()), layout, jobs)
    # Add the root last, so that an interrupted pull does not look complete.
    return layout.add_bytes(data, root.media_type)


@dataclass(frozen=True, slots=True)
class _Pull:
    """Pulls the manifests of one graph into ``layout``, each once, and collects the ``blobs`` they refer to."""

    client: RegistryClient
    repository: str
    layout: Layout
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    seen: set[Digest] = field(default_factory=set)

    def manifests(self, document: ImageManifest | ImageIndex, depth: int = 0) -> None:
        """Fetch all manifests below a document."""
        if depth > MAX_DEPTH:
            raise InvalidInput(f"an image index of {self.repository} is nested deeper than {MAX_DEPTH}")
        if isinstance(document, ImageIndex):
            document.check_listed()
        for child in document.children:
            if child.media_type in IMAGE_INDEXES | IMAGE_MANIFESTS:
                self._manifest(child, depth)
            elif not child.may_be_foreign:
                self.blobs.setdefault(child.digest, child)

    def _manifest(self, child: Descriptor, depth: int) -> None:
        if child.digest in self.seen:
            return
        if len(self.seen) >= MAX_LISTED:
            raise InvalidInput(f"an image index of {self.repository} contains more than {MAX_LISTED} manifests")
        self.seen.add(child.digest)
        found, data = self.client.manifests.get(self.repository, child.digest)
        if found.size != child.size:
            raise ContentMismatch(f"manifest {child.digest} has {found.size} bytes, not {child.size}")
        self.manifests(parse(data, media_type=child.media_type), depth + 1)
        self.layout.add_bytes(data, child.media_type)


def _fetch(client: RegistryClient, repository: str, blobs: list[Descriptor], layout: Layout, jobs: int) -> None:
    def fetch(blob: Descriptor) -> None:
        if not layout.has(blob):
            with client.blobs.stream(repository, blob) as chunks:
                layout.add_chunks(chunks, blob)

    blobs.sort(key=lambda blob: blob.size, reverse=True)
    with ThreadPoolExecutor(max_workers=max(1, jobs), thread_name_prefix="pull") as pool:
        futures = [pool.submit(contextvars.copy_context().run, fetch, blob) for blob in blobs]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _reduced(index: ImageIndex, platforms: Sequence[Platform], what: str) -> ImageIndex:
    images = [
        child
        for child in index.manifests
        if child.platform is not None
        and not any(key in child.annotations for key in _BELONGS_TO)
        and any(child.platform.matches(wanted) for wanted in platforms)
    ]
    missing = [str(wanted) for wanted in platforms if not any(_is(image, wanted) for image in images)]
    if missing:
        there = ", ".join(sorted({str(child.platform) for child in index.manifests if child.platform})) or "none"
        raise PlatformMismatch(f"{what} has no image for {', '.join(missing)}; its platforms: {there}")
    chosen = {image.digest for image in images}
    kept = [child for child in index.manifests if child in images or _owner(child) in chosen]
    return index.replaced(manifests=tuple(kept))


def _is(image: Descriptor, wanted: Platform) -> bool:
    return image.platform is not None and image.platform.matches(wanted)


def _owner(child: Descriptor) -> str | None:
    return next((child.annotations[key] for key in _BELONGS_TO if key in child.annotations), None)
