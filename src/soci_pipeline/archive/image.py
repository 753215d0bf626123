"""Find one image in an archive of an OCI layout (image-layout.md) or in a Docker archive.

Since release 25, `docker save` writes archives that are both; then the OCI layout is read, since it has the digests.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from soci_pipeline.archive.documents import (
    blob_name,
    is_layout,
    read_blob,
    read_document,
    read_index,
    read_json,
    read_small,
)
from soci_pipeline.archive.reader import Archive
from soci_pipeline.errors import DamagedContent, HostileArchive, InvalidInput, PlatformMismatch
from soci_pipeline.oci.annotations import REFERENCE_DIGEST, REFERENCE_TYPE
from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.image_config import diff_ids_of_config, platform_of_config
from soci_pipeline.oci.layout_choice import choose_roots, names_of
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest
from soci_pipeline.oci.media_types import (
    DOCKER_CONFIG,
    GZIP_MAGIC,
    IMAGE_INDEXES,
    IMAGE_MANIFESTS,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    ZSTD_MAGIC,
)
from soci_pipeline.oci.platform import Platform

_MAX_DEPTH = 4
_MAX_DOCUMENTS = 1000
_SHOWN = 20
_CHOOSE = (
    "Choose one by name: --ref NAME of `soci-pipeline convert`, or #ref=NAME at the end of `prebuilt`. Or use an "
    "archive with one image per platform."
)


@dataclass(frozen=True, slots=True)
class FoundLayer:
    """A layer's file in the archive; ``descriptor`` is None in a Docker archive, which states no layer digests."""

    name: str
    media_type: str
    descriptor: Descriptor | None


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image in the archive. Only an image of an OCI layout has ``manifest`` and its exact bytes."""

    platform: Platform
    config: bytes
    diff_ids: tuple[Digest, ...]
    layers: tuple[FoundLayer, ...]
    manifest: ImageManifest | None = None
    manifest_bytes: bytes = b""
    attestations: tuple[Descriptor, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The image's names in the archive and its digest, for messages; the config's digest in a Docker archive."""
        digest = Digest.of(self.manifest_bytes or self.config)
        return f"  {' = '.join(self.names) or '(without a name)'}  {digest}"


def find_image(archive: Archive, platform: Platform, *, ref: str | None = None) -> FoundImage:
    """Return the image for ``platform``. All documents are read with a size limit and verified.

    ``ref`` chooses one of several images: by its name in ``index.json``, its digest, or its tag in a Docker archive.

    Raises `PlatformMismatch` if the archive only has images for other platforms, `InvalidInput` if it has none or
    several that match, `HostileArchive` or `DamagedContent` if it is invalid, and `DamagedContent` if the platform is
    listed but was not saved.
    """
    if is_layout(archive):
        layout = _OciLayout(archive)
        images = list(layout.images(ref))
        layout.check_held(images, platform)
        return _chosen(images, platform)
    if archive.size("manifest.json") is not None:
        return _chosen(_of_name(list(_docker_images(archive)), ref), platform)
    raise InvalidInput(
        "the archive contains no image: it has neither oci-layout with index.json nor manifest.json",
        advice="Use an OCI archive, an OCI layout or the output of `docker save`.",
    )


def _chosen(images: Sequence[FoundImage], platform: Platform) -> FoundImage:
    if not images:
        raise InvalidInput("the archive contains no image")
    matching = [image for image in images if image.platform.matches(platform)]
    if not matching:
        there = ", ".join(sorted({str(image.platform) for image in images}))
        raise PlatformMismatch(
            f"{platform} was requested, but the archive contains {there}",
            advice="Build for that platform, or name one archive per platform, with {platform} in the path or URL.",
        )
    different = list({Digest.of(image.config): image for image in reversed(matching)}.values())[::-1]
    if len(different) > 1:
        raise InvalidInput(
            f"the archive holds {len(different)} images for {platform}:\n{_listed(different)}", advice=_CHOOSE
        )
    return matching[0]


def _of_name(images: list[FoundImage], ref: str | None) -> list[FoundImage]:
    if ref is None:
        return images
    chosen = [image for image in images if ref in image.names or ref == Digest.of(image.config)]
    if not chosen:
        raise InvalidInput(f"the archive has no image {ref[:200]!r}; it has:\n{_listed(images)}", advice=_CHOOSE)
    return chosen


def _listed(images: Sequence[FoundImage]) -> str:
    shown = [image.shown for image in images[:_SHOWN]]
    return "\n".join([*shown, f"  and {len(images) - _SHOWN} more"] if len(images) > _SHOWN else shown)


class _OciLayout:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._seen: set[Digest] = set()
        self._absent: list[tuple[Descriptor, Digest]] = []

    def check_held(self, images: Sequence[FoundImage], wanted: Platform) -> None:
        """Raise `DamagedContent` if the only image for a platform is listed but was not saved.

        An engine saves the image index as it was pulled, but only those images that it has.
        """
        if any(image.platform.matches(wanted) for image in images):
            return
        absent = [blob for item, blob in self._absent if item.platform is not None and item.platform.matches(wanted)]
        if not images:
            absent += [blob for item, blob in self._absent if item.platform is None]
        if absent:
            held = ", ".join(dict.fromkeys(str(image.platform) for image in images)) or "no image"
            raise DamagedContent(
                f"{wanted} was requested; the archive lists it, but its blob is missing: {absent[0]}",
                advice=f"The archive contains {held}. Save the image again with {wanted}, or leave that platform out.",
            )

    def images(self, ref: str | None) -> Iterator[FoundImage]:
        index = read_index(self._archive)
        if ref is not None:
            attestations = [item for item in index.manifests if item.annotations.get(REFERENCE_TYPE)]
            images = [item for item in index.manifests if item not in attestations]
            index = index.replaced(manifests=(*choose_roots(images, ref, "the archive"), *attestations))
        yield from self._below(index, depth=0)

    def _below(
        self, index: ImageManifest | ImageIndex, *, depth: int, names: tuple[str, ...] = ()
    ) -> Iterator[FoundImage]:
        if depth > _MAX_DEPTH:
            raise HostileArchive(f"the image index of the archive is nested deeper than {_MAX_DEPTH}")
        attestations = [item for item in index.children if item.annotations.get(REFERENCE_TYPE)]
        for item in index.children:
            if item.digest in self._seen or item.annotations.get(REFERENCE_TYPE):
                continue
            self._seen.add(item.digest)
            if len(self._seen) > _MAX_DOCUMENTS:
                raise HostileArchive(f"the archive has more than {_MAX_DOCUMENTS} manifests")
            if self._archive.size(blob_name(item.digest)) is None:
                self._absent.append((item, item.digest))
                continue
            called = names_of(item) or names
            if item.media_type in IMAGE_INDEXES:
                document, _ = read_document(self._archive, item)
                yield from self._below(document, depth=depth + 1, names=called)
            elif item.media_type in IMAGE_MANIFESTS:
                yield from self._image(item, attestations, called)

    def _image(
        self, item: Descriptor, attestations: Sequence[Descriptor], names: tuple[str, ...]
    ) -> Iterator[FoundImage]:
        manifest, data = read_document(self._archive, item)
        if not isinstance(manifest, ImageManifest) or manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
            return  # an artifact, such as a SOCI index or a signature
        if self._archive.size(blob_name(manifest.config.digest)) is None:
            self._absent.append((item, manifest.config.digest))
            return
        config = read_blob(self._archive, manifest.config)
        platform, diff_ids = _facts(config, len(manifest.layers))
        if item.platform is not None and not item.platform.is_unknown and not item.platform.matches(platform):
            raise PlatformMismatch(f"the archive lists an image as {item.platform} but its config says {platform}")
        yield FoundImage(
            platform=platform,
            config=config,
            diff_ids=diff_ids,
            layers=tuple(FoundLayer(blob_name(layer.digest), layer.media_type, layer) for layer in manifest.layers),
            manifest=manifest,
            manifest_bytes=data,
            attestations=tuple(
                each for each in attestations if each.annotations.get(REFERENCE_DIGEST) == str(item.digest)
            ),
            names=names,
        )


def _docker_images(archive: Archive) -> Iterator[FoundImage]:
    entries = read_json(archive, "manifest.json")
    if not isinstance(entries, list) or len(entries) > _MAX_DOCUMENTS:
        raise DamagedContent("manifest.json of the archive is not a list of images")
    for entry in entries:
        names = entry.get("Layers") if isinstance(entry, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DamagedContent("an image in manifest.json of the archive has no list of layers")
        if not isinstance(entry.get("Config"), str):
            raise DamagedContent("an image in manifest.json of the archive has no config")
        config = read_small(archive, entry["Config"])
        platform, diff_ids = _facts(config, len(names))
        yield FoundImage(
            platform=platform,
            config=config,
            diff_ids=diff_ids,
            layers=tuple(FoundLayer(name, _sniffed(archive, name), None) for name in names),
            names=_tags(entry),
        )


def _tags(entry: dict[str, Any]) -> tuple[str, ...]:
    tags = entry.get("RepoTags")
    return tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()


def _sniffed(archive: Archive, name: str) -> str:
    with archive.open(name) as file:
        start = file.read(len(ZSTD_MAGIC))
    if start.startswith(GZIP_MAGIC):
        return OCI_LAYER_GZIP
    return OCI_LAYER_ZSTD if start == ZSTD_MAGIC else OCI_LAYER


def _facts(config: bytes, layers: int) -> tuple[Platform, tuple[Digest, ...]]:
    try:
        platform, diff_ids = platform_of_config(config), diff_ids_of_config(config)
    except InvalidInput as error:
        raise DamagedContent(f"an image of the archive cannot be used: {error.reason}") from error
    if len(diff_ids) != layers:
        raise DamagedContent(f"an image of the archive has {layers} layers, and its config lists {len(diff_ids)}")
    return platform, diff_ids
