"""OCI images created in code, as layouts in a folder: real tar layers, real digests, no downloads."""

import gzip
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from soci_pipeline.oci.descriptor import Descriptor
from soci_pipeline.oci.digest import Digest
from soci_pipeline.oci.layout import Layout
from soci_pipeline.oci.manifest import ImageIndex, ImageManifest, parse_image_manifest
from soci_pipeline.oci.media_types import (
    DOCKER_LAYER_GZIP,
    IN_TOTO,
    OCI_CONFIG,
    OCI_EMPTY,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)
from soci_pipeline.oci.platform import Platform
from tests.support.tars import gzipped, noise, tar_of, text

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
CREATED = "2023-11-14T22:13:20Z"


@dataclass(frozen=True)
class Layer:
    """The stored bytes of one layer, their media type and URLs; ``tar`` is their content, for the diff id."""

    data: bytes
    media_type: str = OCI_LAYER_GZIP
    urls: tuple[str, ...] = ()

    @cached_property
    def tar(self) -> bytes:
        return gzip.decompress(self.data) if self.media_type in {OCI_LAYER_GZIP, DOCKER_LAYER_GZIP} else self.data

    @cached_property
    def digest(self) -> Digest:
        return Digest.of(self.data)


def gzip_layer(files: Mapping[str, bytes], *, level: int = 6) -> Layer:
    return Layer(gzipped(tar_of(files), level=level))


def tar_layer(files: Mapping[str, bytes]) -> Layer:
    return Layer(tar_of(files), OCI_LAYER)


@cache
def large_layer(platform: Platform) -> Layer:
    """Return a layer just large enough to be indexed by default; gzip and git process it fast."""
    data = f"{platform}\n".encode() * (1 << 20)
    return gzip_layer({"opt/model.bin": data[: (10 << 20) + 1000]}, level=0)


def with_address(layer: Layer) -> Layer:
    """Return the same layer with a URL; registries may then lack its content."""
    return replace(layer, urls=("https://example.com/base",))


@cache
def default_layers(platform: Platform) -> tuple[Layer, ...]:
    """Return two small layers: one for all platforms, and one only for this platform."""
    return (
        gzip_layer({"etc/os-release": b"ID=test\n", "usr/share/doc.txt": text(200_000)}),
        gzip_layer({"usr/bin/app": f"{platform}\n".encode() + text(120_000, seed=len(str(platform)))}),
    )


def add_image(
    layout: Layout,
    platform: Platform,
    layers: Sequence[Layer] | None = None,
    *,
    annotations: Mapping[str, str] | None = None,
    env: Sequence[str] = ("PATH=/usr/bin:/bin",),
) -> Descriptor:
    """Store an image; return the descriptor of its manifest, with the platform."""
    chosen = default_layers(platform) if layers is None else list(layers)
    config = {
        "created": CREATED,
        "architecture": platform.architecture,
        "os": platform.os,
        **({"variant": platform.variant} if platform.variant else {}),
        "config": {"Env": list(env)},
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id(layer)) for layer in chosen]},
    }
    manifest = ImageManifest(
        config=layout.add_bytes(json.dumps(config).encode(), OCI_CONFIG),
        layers=tuple(layout.add_bytes(layer.data, layer.media_type).annotated(urls=layer.urls) for layer in chosen),
        annotations=dict(annotations or {}),
    )
    return layout.add_document(manifest).annotated(platform=platform)


def diff_id(layer: Layer) -> Digest:
    """Return the digest of a layer's uncompressed content; of its own bytes if it cannot be read."""
    try:
        return Digest.of(layer.tar)
    except (OSError, EOFError):
        return layer.digest


def add_attestation(layout: Layout, image: Descriptor, *, payload: bytes | None = None) -> Descriptor:
    """Store an attestation manifest of an image as BuildKit does; ``payload`` replaces the unsigned statement."""
    statement = {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "subject": [{"name": "pkg:docker/test@1", "digest": {"sha256": image.digest.hex}}],
        "predicate": {"builder": {"id": "test"}},
    }
    data = json.dumps(statement).encode() if payload is None else payload
    layer = layout.add_bytes(data, IN_TOTO).annotated(
        annotations={"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"}
    )
    config = {
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(layer.digest)]},
    }
    manifest = ImageManifest(config=layout.add_bytes(json.dumps(config).encode(), OCI_CONFIG), layers=(layer,))
    return layout.add_document(manifest).annotated(
        platform=Platform("unknown", "unknown"),
        annotations={
            "vnd.docker.reference.digest": str(image.digest),
            "vnd.docker.reference.type": "attestation-manifest",
        },
    )


def add_artifact(
    layout: Layout, kind: str, *, subject: Descriptor | None = None, data: bytes = b"words\n"
) -> Descriptor:
    """Store an OCI artifact with an empty config; its descriptor has no artifact type, as with some tools."""
    manifest = ImageManifest(
        artifact_type=kind,
        config=layout.add_bytes(b"{}", OCI_EMPTY).annotated(data="e30="),
        layers=(layout.add_bytes(data, kind),),
        subject=None if subject is None else subject.plain,
    )
    return layout.add_document(manifest)


def as_artifact(layout: Layout, attestation: Descriptor, image: Descriptor) -> Descriptor:
    """Store the same attestation as newer versions of BuildKit do: an OCI artifact whose subject is the image."""
    kind = "application/vnd.docker.attestation.manifest.v1+json"
    manifest = parse_image_manifest(layout.read(attestation)).replaced(
        artifact_type=kind, config=layout.add_bytes(b"{}", OCI_EMPTY).annotated(data="e30="), subject=image.plain
    )
    return layout.add_document(manifest).annotated(
        artifact_type=kind, platform=attestation.platform, annotations=attestation.annotations
    )


def image_layout(
    path: Path,
    platform: Platform = AMD64,
    layers: Sequence[Layer] | None = None,
    *,
    annotations: Mapping[str, str] | None = None,
) -> Layout:
    """Create a layout whose root is one image manifest."""
    layout = Layout.create(path)
    layout.set_roots([add_image(layout, platform, layers, annotations=annotations)])
    return layout


def index_layout(path: Path, platforms: Sequence[Platform] = (AMD64, ARM64), *, attestations: bool = False) -> Layout:
    """Create a layout whose root is an image index with one image for each platform."""
    layout = Layout.create(path)
    images = [add_image(layout, platform) for platform in platforms]
    attested = [add_attestation(layout, image) for image in images] if attestations else []
    index = ImageIndex(manifests=(*images, *attested))
    layout.set_roots([layout.add_document(index)])
    return layout


def only_manifest(layout: Layout) -> ImageManifest:
    """Return the image manifest of a layout that has one image."""
    document = layout.read_document(layout.root())
    if isinstance(document, ImageIndex):
        images = [item for item in document.manifests if item.media_type == OCI_MANIFEST and item.platform]
        document = layout.read_document(images[0])
    assert isinstance(document, ImageManifest)
    return document


def indexable_archive(path: Path) -> Path:
    """Write an OCI archive of one image whose layer is larger than 10 MiB, so that it is indexed by default."""
    layout = Layout.create(path.with_suffix(".layout"))
    layout.set_roots([add_image(layout, AMD64, [gzip_layer({"opt/model.bin": noise((10 << 20) + 1000)}, level=1)])])
    with tarfile.open(path, "w") as archive:
        archive.add(layout.path, arcname=".")
    return path
